//! The protocol side of a connection: a [`Protocol`] for each connection, and a [`Factory`] that
//! builds them (Twisted: `IProtocol`, `IProtocolFactory`, `IHalfCloseableProtocol`). [`Connection`]
//! reaches a protocol and its transport from outside of the callbacks.
//!
//! A protocol never touches the network: it gets bytes and a [`Transport`].

mod bound;
mod connection;
mod connections;
mod factory;
mod joint;
mod preamble;

use std::any::Any;
use std::os::fd::OwnedFd;

pub(crate) use connection::find;
pub use connection::{AnyConnection, Connection};
pub use connections::{Connections, ConnectionsIter, Tracked, TrackedFactory};
pub(crate) use factory::FactoryGuard;
pub use factory::{BoxedFactory, Factory, IntoProtocol, SharedFactory, for_protocol};
pub(crate) use joint::ErasedJoint;
pub(crate) use preamble::{Preamble, PreambleRead};

use crate::failure::{Failure, Result};
use crate::transport::Transport;

/// Handles the events of one connection (Twisted: `IProtocol`,
/// `twisted.internet.protocol.Protocol`).
///
/// The order of the callbacks is fixed: `connection_made` once; `data_received` any number of
/// times; `connection_lost` once, last. Every callback runs to completion on the reactor's thread.
/// None is entered while another callback of the same protocol runs.
///
/// A callback that returns `Err` or panics closes its own connection. Bytes that it wrote are sent
/// as far as the socket takes them at once, no more data is delivered, and `connection_lost` gets
/// that failure. All other connections go on.
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
/// A callback borrows the protocol and the transport for the call. Code that runs later, such as a
/// timer or a callback of a Deferred, needs a clone of the transport. With the borrowed one the
/// compiler reports that "borrowed data escapes outside of method":
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
    /// Called when the connection is established (Twisted: `connectionMade`). Write a greeting
    /// here, if your protocol has one.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Called with received bytes (Twisted: `dataReceived`). The stream has no message boundaries:
    /// one message may arrive in many pieces, and many messages in one piece. The slice is borrowed
    /// for the call.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()>;

    /// Called when a TLS handshake is done (Twisted: `IHandshakeListener.handshakeCompleted`). The
    /// peer's identity has been verified, as far as the configuration asks for it, and
    /// [`Transport::tls_session`] has the negotiated parameters. Called after `connection_made`,
    /// and before any data that came over TLS.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Called when the peer at the other end of a UNIX socket sends a descriptor (Twisted:
    /// `IFileDescriptorReceiver.fileDescriptorReceived`). The descriptor comes before the bytes
    /// that it was sent with. It is closed when it is dropped, and is not inherited by programs
    /// that are started. The default implementation closes it.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        let _ = transport;
        drop(descriptor);
        Ok(())
    }

    /// Returns the wrapped protocol, if this one is a wrapper that passes its callbacks on
    /// (Twisted: `ProtocolWrapper.wrappedProtocol`). It lets the wrapped protocol reach itself
    /// through [`Transport::connection`].
    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        None
    }

    /// Returns the name of this type, as logs and snapshots show it. A wrapper returns the name of
    /// the wrapped type, so that a program finds its own types there. The text is for people: it
    /// may change with the compiler.
    ///
    /// ```
    /// # use ropewalk::{Protocol, Result, Transport};
    /// struct Orders;
    ///
    /// impl Protocol for Orders {
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// assert!(Orders::protocol_name().ends_with("Orders"));
    /// ```
    fn protocol_name() -> &'static str
    where
        Self: Sized,
    {
        std::any::type_name::<Self>()
    }

    /// Called when more bytes are queued than the transport's limit allows
    /// ([`QueueLimit::tell`](crate::transport::QueueLimit::tell)): the peer takes less than is
    /// written. It is called once, at the end of a turn, and again only after the queue has come
    /// down to half the limit. (Twisted has no such callback.)
    ///
    /// The default implementation aborts the connection, with
    /// [`ConnectionClosed::QueueLimit`](crate::error::ConnectionClosed::QueueLimit) as the reason.
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn queue_limit_reached(&mut self, transport: &Transport) -> Result<()> {
        transport.abort_over_limit();
        Ok(())
    }

    /// Called when the connection is over (Twisted: `connectionLost`). The reason is a
    /// [`ConnectionClosed`](crate::error::ConnectionClosed), or the failure of one of this
    /// protocol's callbacks. The protocol is dropped afterwards.
    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        let _ = (transport, reason);
    }

    /// Returns `true` if this protocol handles half-closes (Twisted: whether it provides
    /// `IHalfCloseableProtocol`). Called once, before `connection_made`.
    ///
    /// If `false`, the peer's end of stream ends the connection, once all written bytes have been
    /// sent. If `true`, [`read_connection_lost`](Self::read_connection_lost) is called instead and
    /// writing goes on. The connection then lasts until `lose_connection`, or until both directions
    /// have ended.
    fn half_close(&self) -> bool {
        false
    }

    /// Called when the peer has sent its last byte (Twisted: `readConnectionLost`). Only with
    /// [`half_close`](Self::half_close).
    ///
    /// # Errors
    /// An `Err` closes the connection; see the trait.
    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Called when the write direction was shut, after `lose_write_connection` and once all written
    /// bytes were sent (Twisted: `writeConnectionLost`). Only with
    /// [`half_close`](Self::half_close).
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

    /// Erases the type of a protocol. The protocol may be unsized, as the one in a
    /// `Box<dyn Protocol>` is.
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

/// Writes callbacks of a wrapper that only call the wrapped protocol:
/// `{ |self| the protocol; the callbacks }`.
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

/// Lets a factory choose the type of its protocols at run time: a boxed protocol is a protocol.
impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        Some((**self).erase())
    }

    forward_callbacks! { |self| (**self);
        connection_made, data_received, handshake_completed, file_descriptor_received, half_close, read_connection_lost,
        write_connection_lost, queue_limit_reached, connection_lost
    }
}
