//! [`Ledger`]: the bytes of one end of a stream, from its protocol to the wire and back, compared
//! at every joint.
//!
//! | bytes | must be the next of those that |
//! |---|---|
//! | sent by an end without layers | its protocol wrote |
//! | sent by an end with layers | its protocol wrote before the first layer; all further ones are the layers' |
//! | read by an end | the other end sent |
//! | given to a protocol without layers | its end read |
//! | given above no more layers than the other end has | the other protocol wrote there; if that end has more layers, the rest is theirs |
//! | given above more layers than the other end has | not compared: the other protocol is its own layer, or the test plays it |
//!
//! A clean end over TCP follows all bytes that were written, or sealed and seen waiting, unless the
//! end was discarded.
//!
//! The first rows hold for any combination of ends. If a TLS side meets a plain one, each is still
//! checked against its own bytes. For two plain ends they prove together that each protocol is
//! given the bytes that the other wrote.

use super::super::expected::Expected;
use super::{Kernel, SimulatedSocket, SocketId};

/// Bytes that one end still has to send, to read and to deliver.
#[derive(Default)]
pub(super) struct Ledger {
    /// Number of layers of this end that its reactor has shown so far.
    levels: usize,
    /// Bytes written below all layers and not yet sent.
    unsent: Expected,
    /// Bytes that the other end has sent and this one has not read.
    pub(super) due: Expected,
    /// Bytes read and not yet given to the protocol, while there are no layers.
    ungiven: Expected,
    /// Bytes that the other protocol has written above one layer, two, .., and this one was not
    /// given yet.
    promised: Vec<Expected>,
    /// The end was discarded, which drops bytes that wait to be sent.
    pub(super) has_given_up: bool,
}

impl Ledger {
    /// Returns the bytes above `level` layers. There is at least one.
    fn promised(&mut self, level: usize) -> &mut Expected {
        if self.promised.len() < level {
            self.promised.resize_with(level, Expected::default);
        }
        &mut self.promised[level - 1]
    }

    /// Records that this end has at least `level` layers.
    fn reach(&mut self, level: usize) {
        self.levels = self.levels.max(level);
        if self.levels > 0 {
            self.ungiven.clear();
        }
    }

    /// Takes bytes that the owner skips. Returns `false` if they are not the sent ones.
    pub(super) fn passes(&mut self, data: &[u8]) -> bool {
        self.due.take(data) == Some(0)
    }

    /// Takes bytes that the owner reads. Returns `false` if they are not the sent ones.
    pub(super) fn reads(&mut self, data: &[u8]) -> bool {
        if self.levels == 0 {
            self.ungiven.add(data);
        }
        self.passes(data)
    }
}

impl Kernel {
    /// Records a write by a protocol above `level` layers.
    pub(crate) fn writes(&mut self, id: SocketId, level: usize, data: &[u8]) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        stream.ledger.reach(level);
        if level == 0 {
            return stream.ledger.unsent.add(data);
        }
        let peer = stream.peer;
        if let Some(SimulatedSocket::Stream(peer)) = self.sockets.get_mut(peer) {
            peer.ledger.promised(level).add(data);
        }
    }

    /// Records that an end has `levels` layers now.
    pub(crate) fn is_layered(&mut self, id: SocketId, levels: usize) {
        if let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) {
            stream.ledger.reach(levels);
        }
    }

    /// Compares sent bytes with the written ones. Further bytes of an end with layers are the
    /// layers'.
    pub(crate) fn sends(&mut self, id: SocketId, data: &[u8]) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        match stream.ledger.unsent.take(data) {
            Some(0) => {}
            Some(_) if stream.ledger.levels > 0 => {}
            _ => self.faults.add(format_args!("{} sends bytes that differ from the written ones", stream.local)),
        }
    }

    /// Checks that a clean end leaves no written bytes behind.
    pub(super) fn ends_cleanly(&mut self, id: SocketId) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get(id) else { return };
        let unsent = stream.ledger.unsent.len();
        // UNIX sockets have no other way to end.
        if unsent > 0 && !stream.is_unix() {
            let local = &stream.local;
            self.faults.add(format_args!("{local} ends cleanly, but {unsent} written bytes are unsent"));
        }
    }

    /// Records that an end is discarded: bytes that it has not sent are dropped, and its end may
    /// look clean.
    pub(crate) fn gives_up(&mut self, id: SocketId) {
        if let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) {
            stream.ledger.unsent.clear();
            stream.ledger.has_given_up = true;
        }
    }

    /// Compares the bytes given to a protocol above `level` layers.
    pub(crate) fn gives(&mut self, id: SocketId, level: usize, data: &[u8]) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        stream.ledger.reach(level);
        let (peer, local, remote) = (stream.peer, stream.local.clone(), stream.remote.clone());
        if level == 0 {
            if stream.ledger.ungiven.take(data) != Some(0) {
                self.faults.add(format_args!("{local} is given bytes that differ from those it has read"));
            }
            return;
        }
        let levels = self.levels(peer);
        if level > levels {
            return;
        }
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        match stream.ledger.promised(level).take(data) {
            Some(0) => {}
            Some(_) if level < levels => {}
            _ => self.faults.add(format_args!("{local} is given bytes that differ from those {remote} has written")),
        }
    }

    /// Records that a protocol above `level` layers has returned bytes, to be given them again.
    pub(crate) fn takes_back(&mut self, id: SocketId, level: usize, data: &[u8]) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get(id) else { return };
        let is_watched = level == 0 || level <= self.levels(stream.peer);
        if is_watched && let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) {
            let expected = if level == 0 { &mut stream.ledger.ungiven } else { stream.ledger.promised(level) };
            expected.put_back(data);
        }
    }

    /// Checks that a clean end above layers follows all bytes that were written there.
    pub(crate) fn tells_the_end(&mut self, id: SocketId, level: usize) {
        let Some(SimulatedSocket::Stream(stream)) = self.sockets.get_mut(id) else { return };
        let (peer, local) = (stream.peer, stream.local.clone());
        if level == 0 {
            return;
        }
        let missing = stream.ledger.promised(level).len();
        if missing > 0 && self.levels(peer) == level {
            self.faults.add(format_args!("the end is reported to {local}, but {missing} written bytes are missing"));
        }
    }

    fn levels(&self, id: SocketId) -> usize {
        match self.sockets.get(id) {
            Some(SimulatedSocket::Stream(stream)) => stream.ledger.levels,
            _ => 0,
        }
    }
}
