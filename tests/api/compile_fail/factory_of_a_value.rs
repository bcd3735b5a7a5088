//~ a factory can't build `Option<&str>`
//~ a factory builds a protocol for each connection, which owns it: `|_| Echo`, no reference and no `Rc`
use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::interfaces::*;

fn serve(endpoint: &TcpServerEndpoint) {
    endpoint.listen(|_| Some("hello")).or_log("listening");
}

fn main() {}
