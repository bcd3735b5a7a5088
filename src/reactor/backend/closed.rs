//! The backend of a closed reactor: it has no sources, and refuses every request.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Backend, BackendEvent, ConnectRefusal, Inbox, Incoming, IncomingSocket, Interest, ListenRefusal, Monotonic,
    Progress, Wake,
};
use super::{DialOptions, PortOptions};
use crate::address::Address;
use crate::transport::id::Id;
use crate::transport::outgoing::Outgoing;

/// See the module.
pub(crate) struct Closed {
    /// The count of the previous backend.
    stale: u64,
}

impl Closed {
    pub(crate) fn new(stale: u64) -> Self {
        Self { stale }
    }
}

impl Backend for Closed {
    fn clock(&self) -> Box<dyn Fn() -> Duration> {
        Monotonic::new().boxed()
    }

    fn listen(&mut self, _id: Id, _address: &Address, _options: &PortOptions) -> Result<Address, ListenRefusal> {
        Err(ListenRefusal::System(gone()))
    }

    fn accept(&mut self, _id: Id) {}

    fn pause_accept(&mut self, _id: Id) {}

    fn stop_listening(&mut self, _id: Id) -> Vec<Incoming> {
        Vec::new()
    }

    fn refuse(&mut self, _socket: IncomingSocket) {}

    fn adopt(&mut self, _id: Id, _socket: IncomingSocket) -> io::Result<()> {
        Err(gone())
    }

    fn interface_index(&self, _name: &str) -> io::Result<u32> {
        Err(gone())
    }

    fn connect(&mut self, _id: Id, _to: &Address, _options: &DialOptions) -> Result<(), ConnectRefusal> {
        Err(ConnectRefusal::Socket(gone()))
    }

    fn receive(&mut self, _id: Id, _on: bool) {}

    fn receive_rest(&mut self, _id: Id) {}

    fn passes_descriptors(&self, _id: Id) -> bool {
        false
    }

    fn send(&mut self, _id: Id, _outgoing: Outgoing<'_>) -> io::Result<Progress> {
        Err(gone())
    }

    fn send_now(&mut self, _id: Id, _data: &[u8]) -> usize {
        0
    }

    fn shut_down_writing(&mut self, _id: Id) {}

    fn close(&mut self, _id: Id, _reset: bool) {}

    fn watch(&mut self, _id: Id, _descriptor: RawFd, _interest: Interest) -> io::Result<()> {
        Err(gone())
    }

    fn rewatch(&mut self, _id: Id, _interest: Interest) -> io::Result<()> {
        Err(gone())
    }

    fn wait(&mut self, _until: Option<Duration>) -> io::Result<()> {
        Err(gone())
    }

    fn next(&mut self, _inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        None
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(Asleep)
    }

    fn descriptor(&self, _id: Id) -> Option<BorrowedFd<'_>> {
        None
    }

    fn stale(&self) -> u64 {
        self.stale
    }
}

/// A waker without effect.
struct Asleep;

impl Wake for Asleep {
    fn wake(&self) {}
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
