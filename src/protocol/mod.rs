//! What a user writes: a [`Protocol`] for each connection, and a [`Factory`] that makes them (Twisted: `IProtocol`,
//! `IProtocolFactory`, `IHalfCloseableProtocol`). And [`Connection`], which reaches both ends of the joint from outside.
//!
//! Protocols never meet the network: they are handed bytes and a [`Transport`].

mod connection;
mod connections;
mod factory;
mod joint;

use std::any::Any;
use std::os::fd::OwnedFd;

pub use connection::{AnyConnection, Connection};
pub use connections::{Connections, ConnectionsIter, Tracked, TrackedFactory};
pub(crate) use factory::FactoryGuard;
pub use factory::{BoxedFactory, Factory, IntoProtocol, SharedFactory, for_protocol};
pub(crate) use joint::ErasedJoint;

use crate::failure::{Failure, Result};
use crate::transport::Transport;

/// What is done with one connection (Twisted: `IProtocol`, `twisted.internet.protocol.Protocol`).
///
/// The order is fixed: `connection_made` once; `data_received` any number of times; `connection_lost` once, last.
/// Every callback runs to completion on the reactor's thread, and none is entered while another of the same protocol runs.
///
/// A callback that returns `Err`, or panics, closes its own connection: what it wrote is sent as far as the socket takes
/// it at once, no more data is delivered, and `connection_lost` is given that failure. All other connections go on.
///
/// ```
/// use ropewalk::{Failure, Protocol, Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         println!("{} is here", transport.peer());
///         Ok(())
///     }
///
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
///
///     fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
///         println!("{} left: {reason}", transport.peer());
///     }
/// }
/// ```
///
/// A callback borrows the protocol and the transport for the call. What runs later, a timer or a callback of a Deferred, takes a
/// clone of the transport; with the borrowed one the compiler says that "borrowed data escapes outside of method":
///
/// ```
/// use std::time::Duration;
/// use ropewalk::interfaces::*;
/// use ropewalk::{Result, Transport};
///
/// struct Hasty;
///
/// impl Protocol for Hasty {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         let kept = transport.clone();
///         transport.timers().call_later(Duration::from_secs(5), move || kept.lose_connection());
///         Ok(())
///     }
///
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a protocol",
    note = "write `impl Protocol for ..` with a `data_received`",
    note = "a factory returns protocols by value: `|_| Echo`, or `|_| Some(Echo)`",
    note = "of a factory, an endpoint makes connections: `endpoint.connect(factory)`"
)]
pub trait Protocol: Any + Erase {
    /// The connection is there (Twisted: `connectionMade`). Write a greeting here, if your protocol has one.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Bytes came (Twisted: `dataReceived`). How they are cut says nothing: one message may come in many pieces, and many
    /// in one. The slice is lent for the call.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()>;

    /// A TLS handshake is done (Twisted: `IHandshakeListener.handshakeCompleted`): who the peer is has been verified, as far as was
    /// asked for, and [`Transport::tls_session`] says what was agreed on. Comes after `connection_made`, and before any data that
    /// came over TLS.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// A peer at the other end of a UNIX socket sent a descriptor (Twisted: `IFileDescriptorReceiver.fileDescriptorReceived`). It
    /// comes before the bytes that it was sent with, is closed when it is dropped, and is not inherited by programs that are
    /// started. Unless this is implemented, what peers send is closed.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        let _ = transport;
        drop(descriptor);
        Ok(())
    }

    /// The protocol that this one wraps and passes its callbacks on to, if it is a wrapper (Twisted: `ProtocolWrapper.wrappedProtocol`):
    /// so that the one inside reaches itself through [`Transport::connection`].
    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        None
    }

    /// More bytes are queued than the transport's limit allows ([`QueueLimit::tell`](crate::transport::QueueLimit::tell)): the peer takes
    /// less than is written. Called at the end of a turn, once, and again after the queue has come down to half the limit. (Twisted
    /// has no such callback.)
    ///
    /// Unless this is implemented, the connection is aborted, with
    /// [`ConnectionClosed::QueueLimit`](crate::error::ConnectionClosed::QueueLimit) as the reason.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn queue_limit_reached(&mut self, transport: &Transport) -> Result<()> {
        transport.abort_over_limit();
        Ok(())
    }

    /// The connection is over (Twisted: `connectionLost`). The reason is a
    /// [`ConnectionClosed`](crate::error::ConnectionClosed), or the failure of one of this protocol's callbacks. The
    /// protocol is dropped afterwards.
    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        let _ = (transport, reason);
    }

    /// Whether this protocol wants to hear of half-closes (Twisted: whether it provides `IHalfCloseableProtocol`). Asked
    /// once, before `connection_made`.
    ///
    /// Without it, the peer's end of stream ends the connection, once what was written has been sent. With it,
    /// [`read_connection_lost`](Self::read_connection_lost) is called instead, writing goes on, and the connection lasts
    /// until `lose_connection`, or until both directions have ended.
    fn half_close(&self) -> bool {
        false
    }

    /// The peer has sent its last byte (Twisted: `readConnectionLost`). Only with [`half_close`](Self::half_close).
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Our direction was shut after `lose_write_connection` and everything written was sent (Twisted:
    /// `writeConnectionLost`). Only with [`half_close`](Self::half_close).
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn write_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }
}

mod erase {
    use super::Protocol;

    /// Forgets the type of a protocol, which a `Box` may have forgotten already.
    #[expect(unnameable_types, reason = "every protocol has it, and nothing else may")]
    pub trait Erase {
        fn erase(&mut self) -> &mut dyn Protocol;
    }

    impl<P: Protocol> Erase for P {
        fn erase(&mut self) -> &mut dyn Protocol {
            self
        }
    }
}
use erase::Erase;

/// Writes callbacks of a wrapper that do nothing but call the protocol inside: `{ |self| the protocol; the callbacks }`.
macro_rules! forward_callbacks {
    (|$self:ident| $inner:expr; connection_made) => {
        fn connection_made(&mut $self, transport: &Transport) -> Result<()> {
            $inner.connection_made(transport)
        }
    };
    (|$self:ident| $inner:expr; data_received) => {
        fn data_received(&mut $self, transport: &Transport, data: &[u8]) -> Result<()> {
            $inner.data_received(transport, data)
        }
    };
    (|$self:ident| $inner:expr; handshake_completed) => {
        fn handshake_completed(&mut $self, transport: &Transport) -> Result<()> {
            $inner.handshake_completed(transport)
        }
    };
    (|$self:ident| $inner:expr; file_descriptor_received) => {
        fn file_descriptor_received(&mut $self, transport: &Transport, descriptor: OwnedFd) -> Result<()> {
            $inner.file_descriptor_received(transport, descriptor)
        }
    };
    (|$self:ident| $inner:expr; half_close) => {
        fn half_close(&$self) -> bool {
            $inner.half_close()
        }
    };
    (|$self:ident| $inner:expr; read_connection_lost) => {
        fn read_connection_lost(&mut $self, transport: &Transport) -> Result<()> {
            $inner.read_connection_lost(transport)
        }
    };
    (|$self:ident| $inner:expr; write_connection_lost) => {
        fn write_connection_lost(&mut $self, transport: &Transport) -> Result<()> {
            $inner.write_connection_lost(transport)
        }
    };
    (|$self:ident| $inner:expr; queue_limit_reached) => {
        fn queue_limit_reached(&mut $self, transport: &Transport) -> Result<()> {
            $inner.queue_limit_reached(transport)
        }
    };
    (|$self:ident| $inner:expr; connection_lost) => {
        fn connection_lost(&mut $self, transport: &Transport, reason: &Failure) {
            $inner.connection_lost(transport, reason);
        }
    };
    (|$self:ident| $inner:expr; $first:ident, $($rest:ident),+) => {
        $crate::protocol::forward_callbacks! { |$self| $inner; $first }
        $crate::protocol::forward_callbacks! { |$self| $inner; $($rest),+ }
    };
}
pub(crate) use forward_callbacks;

/// A boxed protocol is one, for factories that choose at run time.
impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        Some((**self).erase())
    }

    forward_callbacks! { |self| (**self);
        connection_made, data_received, handshake_completed, file_descriptor_received, half_close, read_connection_lost,
        write_connection_lost, queue_limit_reached, connection_lost
    }
}
