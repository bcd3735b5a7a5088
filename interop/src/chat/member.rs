//! [`Member`]: one end of the chat, as the others see it. It has a bounded queue, and a time-out
//! for each wait.
//!
//! A message for a member never waits for the member: it is queued, or the member is cut off.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ropewalk::{Clock, DelayedCall, Transport};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Limits;

/// Number of bytes that a queued message costs beside its text. Arbitrary, so that empty messages
/// are bounded too.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// A connection of the chat, from its handshake on.
pub(super) struct Member {
    transport: Transport,
    queue_limit: usize,
    closing_limit: Duration,
    queue: RefCell<Queue>,
    /// Bytes came in since the last ping was sent.
    is_heard: Cell<bool>,
    /// The handshake is done: a close frame can be sent.
    is_open: Cell<bool>,
    /// Aborts the connection.
    deadline: RefCell<Option<DelayedCall>>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The connection is to be closed so, behind the messages.
    end: Option<CloseFrame>,
    waker: Option<Waker>,
}

/// The next thing to send.
pub(super) enum Next {
    Message(Message),
    End(CloseFrame),
}

impl Member {
    /// Creates a member whose handshake has a limit from now on.
    pub(super) fn new(transport: &Transport, limits: &Limits) -> Rc<Self> {
        let member = Self {
            transport: transport.clone(),
            queue_limit: limits.queue_bytes,
            closing_limit: limits.closing,
            queue: RefCell::default(),
            is_heard: Cell::new(true),
            is_open: Cell::new(false),
            deadline: RefCell::default(),
        };
        member.set_deadline(limits.handshake);
        Rc::new(member)
    }

    /// Ends the time of the handshake.
    pub(super) fn open(&self) {
        self.is_open.set(true);
        self.clear_deadline();
    }

    /// Queues a message. A member whose queue is full is cut off.
    pub(super) fn tell(&self, message: Message) {
        let mut queue = self.queue.borrow_mut();
        if queue.end.is_some() {
            return;
        }
        queue.bytes += message.len() + MESSAGE_OVERHEAD_BYTES;
        if queue.bytes > self.queue_limit {
            let end = Some(CloseFrame { code: CloseCode::Policy, reason: "too slow".into() });
            *queue = Queue { end, waker: queue.waker.take(), ..Queue::default() };
            self.wake(queue);
            tracing::info!(peer = %self.transport.peer(), "a member is cut off: it reads too slowly");
            // The code will not reach it.
            self.transport.abort_connection();
            return;
        }
        queue.messages.push_back(message);
        self.wake(queue);
    }

    /// Closes the connection with this code behind the queued messages, or at once if its handshake
    /// is not done. The first call counts.
    pub(super) fn end(&self, code: CloseCode, reason: &'static str) {
        if !self.is_open.get() {
            self.transport.lose_connection();
            return;
        }
        let mut queue = self.queue.borrow_mut();
        if queue.end.is_some() {
            return;
        }
        queue.end = Some(CloseFrame { code, reason: reason.into() });
        self.wake(queue);
        self.begin_closing();
    }

    /// Gives the closing handshake its limit.
    pub(super) fn begin_closing(&self) {
        if self.deadline.borrow().is_none() {
            self.set_deadline(self.closing_limit);
        }
    }

    /// Notes that the peer is alive.
    pub(super) fn hear(&self) {
        self.is_heard.set(true);
    }

    /// Sends a ping, unless nothing was received since the last one. Then the peer is gone.
    pub(super) fn ping(&self) {
        if self.is_heard.replace(false) {
            self.tell(Message::Ping(Default::default()));
        } else {
            self.end(CloseCode::Error, "no answer to a ping");
        }
    }

    /// Returns the next thing to send, or keeps the task's waker until there is one.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Next> {
        let mut queue = self.queue.borrow_mut();
        if let Some(message) = queue.messages.pop_front() {
            queue.bytes -= message.len() + MESSAGE_OVERHEAD_BYTES;
            return Poll::Ready(Next::Message(message));
        }
        if let Some(end) = &queue.end {
            return Poll::Ready(Next::End(end.clone()));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Returns `true` if nothing is queued.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.borrow().messages.is_empty()
    }

    fn wake(&self, mut queue: RefMut<'_, Queue>) {
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn set_deadline(&self, limit: Duration) {
        let late = self.transport.clone();
        let call = self.transport.timers().call_later(limit, move || late.abort_connection());
        self.deadline.replace(Some(call));
    }

    fn clear_deadline(&self) {
        if let Some(call) = self.deadline.take() {
            // It may have aborted the connection already.
            let _ = call.cancel();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.clear_deadline();
    }
}
