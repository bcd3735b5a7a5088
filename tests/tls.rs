//! TLS as a layer, without a network: two protocols on a pump, and a peer that is the TLS library alone.
#![cfg(feature = "tls")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use common::certificates::Authority;
use common::{Log, Script};
use ropewalk::Transport;
use ropewalk::testing::{Pump, PumpOptions};
use ropewalk::tls::{ClientTls, ServerTls};

/// One side of a connection, and what happened to it.
struct Side {
    log: Log,
    received: Rc<RefCell<Vec<u8>>>,
}

impl Side {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received.borrow()).into_owned()
    }
}

fn side(script: impl FnOnce(Script) -> Script) -> (Script, Side) {
    let (log, received) = (Log::default(), Rc::default());
    let script = script(Script::new(&log).into_buffer(&received));
    (script, Side { log, received })
}

/// Starts TLS when the connection is made.
fn with_client(tls: ClientTls) -> impl FnMut(&Transport) -> ropewalk::Result<()> {
    move |transport| Ok(transport.start_tls(&tls)?)
}

fn with_server(tls: ServerTls) -> impl FnMut(&Transport) -> ropewalk::Result<()> {
    move |transport| Ok(transport.start_tls(&tls)?)
}

fn connect(client: Script, server: Script) -> Pump<Script, Script> {
    PumpOptions::new().connect(client, server)
}

/// What is written at once is sent over TLS when the handshake is done, both ways, and both sides are told in order.
#[test]
fn a_conversation() {
    let authority = Authority::new();
    let (client, client_side) = side(|script| {
        let mut start = with_client(authority.client("example.org"));
        script.made(move |transport| {
            start(transport)?;
            transport.write(b"a question");
            Ok(())
        })
    });
    let (server, server_side) = side(|script| {
        script.made(with_server(authority.server(&["example.org"]))).data(|transport, data| {
            transport.write(b"an answer to ");
            transport.write(data);
            transport.lose_connection();
            Ok(())
        })
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(server_side.text(), "a question");
    assert_eq!(client_side.text(), "an answer to a question");
    assert_eq!(server_side.log.all(), ["made", "secured", "data", "lost: the connection was closed cleanly"]);
    assert_eq!(client_side.log.all(), ["made", "secured", "data", "lost: the connection was closed cleanly"]);
    assert!(!pump.transcript().contains("a question"), "{}", pump.transcript());
}
