//~ `Echo` is not a protocol
//~ write `impl Protocol for ..` with a `data_received`
use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::for_protocol;
use ropewalk::interfaces::*;

struct Echo;

fn serve(endpoint: &TcpServerEndpoint) {
    endpoint.listen(for_protocol(|_| Echo)).or_log("listening");
}

fn main() {}
