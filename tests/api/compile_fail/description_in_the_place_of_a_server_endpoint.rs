//~ `str` is not a server endpoint
//~ `ropewalk::endpoints::server_from_string(reactor, description)?` makes an endpoint of a description
use ropewalk::interfaces::*;

fn serve(_endpoint: impl ServerEndpoint) {}

fn main() {
    serve("tcp:8888");
}
