//! The interfaces: the traits that you implement, and the traits of the types that you are handed
//! (Twisted: `twisted.internet.interfaces`). Read this page first. `use ropewalk::interfaces::*`
//! brings all of the traits into scope.
//!
//! When a socket is ready, the **reactor** finds the **factory** of the port, or of the client's
//! connection. It calls the factory's `build_protocol` to get a **protocol**, and joins the
//! protocol to a **transport**. From then on the reactor calls the protocol for each event of the
//! connection, and the protocol calls the transport to act on it.
//!
//! # Traits to implement
//!
//! | You write | you are handed | it is called by |
//! |---|---|---|
//! | [`Protocol`] | a [`Transport`] in every callback | the reactor, for one connection |
//! | [`Factory`], or a closure ([`for_protocol`]) | the peer's [`Address`] | the reactor, for each connection |
//! | a [`Producer`] | the [`Transport`] that it produces for | the reactor, at the end of a turn |
//! | a [`Watcher`], or closures ([`WatchCallbacks`]) | a [`WatchHandle`] | the reactor, for a ready descriptor |
//! | [`LineProtocol`], [`NetstringProtocol`], [`IntNStringProtocol`], [`FramedProtocol`] | messages | the protocol's own `data_received` |
//! | callbacks of a [`Deferred`] | a result, or a [`Failure`] | the code that fires the Deferred |
//! | a [`ServerEndpoint`] or [`ClientEndpoint`] | a factory | the code that listens or connects |
//! | a [`Service`] | | its parent, or [`run_service`] |
//!
//! # Types to use
//!
//! | You use | for | Twisted's name |
//! |---|---|---|
//! | [`Reactor`] | the loop: run, stop, listen, connect, jobs in threads | `IReactorCore`, `IReactorTCP`, `IReactorInThreads` |
//! | [`BackendKind`] | the backend of a reactor | `twisted.internet.epollreactor` and its like |
//! | [`Clock`] | timers, of the reactor or of a test's `testing::VirtualClock` | `IReactorTime` |
//! | [`DelayedCall`] | one timer | `IDelayedCall` |
//! | [`LoopingCall`] | a function that is called at intervals | `LoopingCall` |
//! | [`Cooperator`] | long work in small steps | `Cooperator` |
//! | [`Remote`] | the reactor, from other threads | `IReactorFromThreads`, `threadable.isInIOThread` |
//! | [`RemoteConnection`] | a connection, from other threads | `callFromThread` with a method of a protocol |
//! | [`Snapshot`] | the connections, ports and timers of a reactor, seen from outside | `getReaders` |
//! | [`ReactorGroup`] | reactors on several threads behind the same ports | |
//! | [`ThreadPool`] | jobs in threads of their own, beside the reactor's | `ThreadPool`, `deferToThreadPool` |
//! | [`Watch`] | a descriptor of a C library or another crate | `IReactorFDSet` |
//! | [`SystemEvent`] | startup, shutdown, and the program's own events | `addSystemEventTrigger`, `fireSystemEvent` |
//! | [`Port`] | a listening port | `IListeningPort` |
//! | [`Connection`] | a protocol and its transport, from outside | the result of a client endpoint's Deferred |
//! | [`Connections`] | the open connections of a factory | the set that a factory keeps by hand |
//! | [`Transport`] | one end of a connection | see below |
//! | [`DatagramTransport`] | a datagram port | `IUDPTransport`, `IMulticastTransport`, `IUNIXDatagramTransport` |
//! | [`ProcessTransport`] | a child process | `IProcessTransport` |
//! | [`LineReceiver`], [`NetstringReceiver`], [`IntNStringReceiver`] | messages in a stream of bytes | `LineReceiver` and its like |
//! | [`FrameReceiver`] | messages of your own form | |
//! | [`ForwardFactory`] | connections that are passed on to another endpoint | `portforward.ProxyFactory` |
//! | [`QueueLimit`] | a bound on the bytes queued for a peer that does not read | |
//! | [`ListenOptions`], [`ConnectOptions`] | options of ports and of attempts to connect | arguments of `listenTCP`, `connectTCP` |
//! | [`ClientTls`] | a client's configuration of TLS | `optionsForClientTLS` |
//! | [`ServerTls`] | a server's configuration of TLS | `CertificateOptions` |
//! | [`server_from_string`] | a server endpoint from a string | `serverFromString` |
//! | [`client_from_string`] | a client endpoint from a string | `clientFromString` |
//! | [`EndpointRegistry`] | your own types of endpoints in those strings | see below |
//! | [`HostnameEndpoint`] | connecting to a name | `HostnameEndpoint` |
//! | [`StandardIo`], [`StandardIoEndpoint`] | standard input and output as a connection | `StandardIO`, `StandardIOEndpoint` |
//! | [`ProcessEndpoint`] | a program's standard input and output as a connection | `ProcessEndpoint` |
//! | [`HaproxyServerEndpoint`] | listening behind a proxy that names its clients | `proxyEndpoint` |
//! | [`AdoptedStreamServerEndpoint`] | listening on a socket from elsewhere | `AdoptedStreamServerEndpoint` |
//! | [`Resolver`] | another way to look up names | `IHostnameResolver` |
//! | [`ServerEndpointExt`] | `listen` of an endpoint | `IStreamServerEndpoint.listen` |
//! | [`ClientEndpointExt`] | `connect` of an endpoint | `IStreamClientEndpoint.connect` |
//! | [`ClientService`], [`Backoff`] | one connection, made again when it is lost, with delays | `ClientService`, `backoffPolicy` |
//! | [`MultiService`] | services that start and stop as one | `MultiService` |
//! | [`Context`] | a message in front of the failure of a `Result` | |
//! | [`Outcome`] | the types that a Deferred's callback may return | a value, an exception, or a Deferred |
//!
//! The configuration of TLS is for [`start_tls`] and for endpoints. Twisted's names for
//! [`Transport`] are `ITransport`, `ITCPTransport`, `ITLSTransport`, `IUNIXTransport` and
//! `IHalfCloseableDescriptor`. Its names for [`EndpointRegistry`] are
//! `IStreamServerEndpointStringParser` and `IStreamClientEndpointStringParserWithReactor`.
//!
//! # From Twisted's interfaces
//!
//! | Twisted | here |
//! |---|---|
//! | `IProtocol` | [`Protocol`] |
//! | `IHalfCloseableProtocol` | [`half_close`], [`read_connection_lost`], [`write_connection_lost`] |
//! | `IHandshakeListener` | [`Protocol::handshake_completed`] |
//! | `INegotiated`, `ISSLTransport` | [`Transport::tls_session`] |
//! | `IFileDescriptorReceiver` | [`Protocol::file_descriptor_received`] |
//! | `IProtocolFactory` | [`Factory`] |
//! | `IService` | [`Service`] |
//! | `IStreamServerEndpoint`, `IStreamClientEndpoint` | [`ServerEndpoint`], [`ClientEndpoint`] |
//! | `IReactorTime` | [`Clock`] |
//! | `IReadDescriptor`, `IWriteDescriptor` | [`Watcher`] |
//!
//! [`Address`]: crate::Address
//! [`AdoptedStreamServerEndpoint`]: crate::endpoints::AdoptedStreamServerEndpoint
//! [`BackendKind`]: crate::BackendKind
//! [`Backoff`]: crate::application::Backoff
//! [`ClientService`]: crate::application::ClientService
//! [`ConnectOptions`]: crate::ConnectOptions
//! [`ClientTls`]: crate::tls::ClientTls
//! [`Connection`]: crate::Connection
//! [`Connections`]: crate::Connections
//! [`Cooperator`]: crate::task::Cooperator
//! [`DatagramTransport`]: crate::DatagramTransport
//! [`ProcessTransport`]: crate::ProcessTransport
//! [`Deferred`]: crate::Deferred
//! [`DelayedCall`]: crate::DelayedCall
//! [`EndpointRegistry`]: crate::endpoints::EndpointRegistry
//! [`Failure`]: crate::Failure
//! [`ForwardFactory`]: crate::protocols::ForwardFactory
//! [`FrameReceiver`]: crate::protocols::FrameReceiver
//! [`HaproxyServerEndpoint`]: crate::endpoints::HaproxyServerEndpoint
//! [`HostnameEndpoint`]: crate::endpoints::HostnameEndpoint
//! [`ListenOptions`]: crate::ListenOptions
//! [`IntNStringReceiver`]: crate::protocols::IntNStringReceiver
//! [`LineReceiver`]: crate::protocols::LineReceiver
//! [`LoopingCall`]: crate::task::LoopingCall
//! [`MultiService`]: crate::application::MultiService
//! [`NetstringReceiver`]: crate::protocols::NetstringReceiver
//! [`Port`]: crate::Port
//! [`ProcessEndpoint`]: crate::endpoints::ProcessEndpoint
//! [`QueueLimit`]: crate::transport::QueueLimit
//! [`Reactor`]: crate::Reactor
//! [`ReactorGroup`]: crate::reactor::ReactorGroup
//! [`Remote`]: crate::Remote
//! [`RemoteConnection`]: crate::reactor::RemoteConnection
//! [`Resolver`]: crate::reactor::Resolver
//! [`ServerTls`]: crate::tls::ServerTls
//! [`Snapshot`]: crate::reactor::Snapshot
//! [`StandardIo`]: crate::reactor::StandardIo
//! [`StandardIoEndpoint`]: crate::endpoints::StandardIoEndpoint
//! [`SystemEvent`]: crate::SystemEvent
//! [`ThreadPool`]: crate::ThreadPool
//! [`Transport`]: crate::Transport
//! [`Transport::tls_session`]: crate::Transport::tls_session
//! [`Watch`]: crate::reactor::Watch
//! [`WatchCallbacks`]: crate::reactor::WatchCallbacks
//! [`WatchHandle`]: crate::reactor::WatchHandle
//! [`client_from_string`]: crate::endpoints::client_from_string
//! [`for_protocol`]: crate::for_protocol
//! [`half_close`]: Protocol::half_close
//! [`read_connection_lost`]: Protocol::read_connection_lost
//! [`run_service`]: crate::application::run_service
//! [`server_from_string`]: crate::endpoints::server_from_string
//! [`start_tls`]: crate::Transport::start_tls
//! [`write_connection_lost`]: Protocol::write_connection_lost

pub use crate::application::Service;
pub use crate::datagram::DatagramProtocol;
pub use crate::deferred::Outcome;
pub use crate::endpoints::{ClientEndpoint, ClientEndpointExt, ServerEndpoint, ServerEndpointExt};
pub use crate::failure::Context;
pub use crate::process::ProcessProtocol;
pub use crate::protocol::{Factory, Protocol};
pub use crate::protocols::{FramedProtocol, IntNStringProtocol, LineProtocol, NetstringProtocol};
pub use crate::reactor::Watcher;
pub use crate::time::Clock;
pub use crate::transport::Producer;
