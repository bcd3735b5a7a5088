//! Writes of shared bytes, which are not copied.

use bytes::Bytes;

use super::Transport;

impl Transport {
    /// Queues bytes to be sent, without copying them (Twisted: `write`, whose `bytes` are shared
    /// too). The queue holds a reference until they have left.
    ///
    /// Use it for bytes that several connections get, and for large ones that the program has in a
    /// `Vec<u8>` or a [`Bytes`] anyway. One message to a thousand readers that are slow is in
    /// memory once, and each reader costs a few words. Bytes of any such type convert into
    /// [`Bytes`] without a copy; `clone` of a [`Bytes`] shares them.
    ///
    /// The last reference may be dropped inside of the engine. So the `Drop` of an owner of your
    /// own ([`Bytes::from_owner`]) must neither use a transport or the reactor, nor panic.
    ///
    /// Everything else is as with [`write`](Self::write): the order with other writes, the turn in
    /// which they leave, and the count and the limit of the queue. Less than 4 KiB are copied. Over
    /// TLS the bytes are sealed as they leave, 256 KiB at a time, so a long message is never held
    /// as a whole in its sealed form.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::rc::Rc;
    /// use ropewalk::transport::Bytes;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Sends each message to all who are here.
    /// struct Room { members: Rc<RefCell<Vec<Transport>>> }
    ///
    /// impl Protocol for Room {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         self.members.borrow_mut().push(transport.clone());
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
    ///         let message = Bytes::copy_from_slice(data);
    ///         for member in self.members.borrow().iter() {
    ///             member.write_shared(message.clone());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn write_shared(&self, bytes: impl Into<Bytes>) {
        self.write_bytes(bytes.into());
    }

    fn write_bytes(&self, bytes: Bytes) {
        let mut stream = self.0.stream.borrow_mut();
        if !stream.accepts_writes() {
            return;
        }
        self.observe_write(&stream, &bytes);
        stream.note_written(&bytes);
        stream.push_shared(bytes, self.pool());
        self.mark_stream_dirty(&mut stream);
    }
}
