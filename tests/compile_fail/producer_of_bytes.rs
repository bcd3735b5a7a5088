//~ `&[u8; 5]` is not a producer
//~ bytes that are there are written: `transport.write(bytes)`
//~ a file, or anything that can be read, is sent by `FileSender::new(file).begin(transport)`
use ropewalk::Transport;
use ropewalk::transport::Streaming;

fn send(transport: &Transport) {
    transport.register_producer(b"hello", Streaming::Pull).unwrap();
}

fn main() {}
