//~ `&[u8; 5]` is not a producer
//~ to send bytes, write them: `transport.write(bytes)`
//~ to send a file, or any other reader: `FileSender::new(file).begin(transport)`
use ropewalk::Transport;
use ropewalk::transport::Streaming;

fn send(transport: &Transport) {
    transport.register_producer(b"hello", Streaming::Pull).unwrap();
}

fn main() {}
