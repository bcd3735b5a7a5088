//~ use ropewalk::
//~ ServerEndpointExt
use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::{Protocol, for_protocol};

fn serve<P: Protocol>(endpoint: &TcpServerEndpoint, build: fn() -> P) {
    endpoint.listen(for_protocol(move |_| build())).or_log("listening");
}

fn main() {}
