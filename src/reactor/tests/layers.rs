//! Layers that are added to a connection.

use std::net::TcpStream;
use std::time::Duration;

use super::{Echo, Log, listen, reactor, run_until};
use crate::failure::{Failure, Result};
use crate::testing::StringTransport;
use crate::transport::layer::{Layer, Opened};
use crate::transport::send_queue::BufferPool;

/// A layer that passes every byte on, or fails.
struct Glass(Option<&'static str>);

impl Layer for Glass {
    fn open(&mut self, data: &[u8], _: &mut Vec<u8>, _: &BufferPool) -> Opened {
        Opened { plain: data.to_vec(), failure: self.0.map(Failure::message), ..Opened::default() }
    }

    fn end(&mut self) -> Option<Failure> {
        None
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn timeout(&self) -> Option<Duration> {
        None
    }

    fn is_late(&self, _: Duration) -> Failure {
        Failure::message("late")
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
        sealed.extend_from_slice(plain);
        Ok(())
    }

    fn close(&mut self, _: &mut Vec<u8>) {}

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A layer that fails when it is added ends the connection, with its failure.
#[test]
fn a_layer_that_fails_to_start_ends_the_connection() {
    let connection = StringTransport::new().joined(Echo(Log::default()));
    assert_eq!(connection.transport().add_layer(Box::new(Glass(Some("no keys")))), Some(()));
    connection.turn();
    assert_eq!(connection.lost().expect("it is over").to_string(), "no keys");
}

/// A layer vouches for bytes only: descriptors that arrive below it are closed.
#[test]
fn descriptors_below_a_layer_are_not_delivered() {
    let (reactor, log) = (reactor(), Log::default());
    let (_port, address) = listen(&reactor, &log);
    let _peer = TcpStream::connect(address).unwrap();
    run_until(&reactor, || !log.borrow().is_empty());
    let core = &reactor.0;
    let id = core.slots.borrow().ids(|slot| slot.joint().is_some())[0];
    let joint = core.joint(id).unwrap();
    for expected in [&["made", "descriptor"][..], &["made", "descriptor"]] {
        joint.descriptors_received(vec![std::fs::File::open("/dev/null").unwrap().into()]);
        assert_eq!(*log.borrow(), expected);
        core.settle();
        assert!(core.context.is_clean());
        joint.transport().add_layer(Box::new(Glass(None))).unwrap();
        assert!(!core.context.is_clean(), "a layer may have something to say first");
    }
}
