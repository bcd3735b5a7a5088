//! The interfaces: every trait that you implement, or that what you are handed implements (Twisted:
//! `twisted.internet.interfaces`). Read this page first; `use ropewalk::interfaces::*` brings them all into scope.
//!
//! A socket is ready, and this happens: the **reactor** finds the **factory** of the port (or of the client's connection),
//! asks its `build_protocol` for a **protocol**, and joins it to a **transport**. From then on the protocol hears what
//! happens, and tells the transport what to do.
//!
//! | You write | you are handed | it is called by |
//! |---|---|---|
//! | [`Protocol`] | a [`Transport`](crate::Transport) in every callback | the reactor, for one connection |
//! | [`Factory`], or a closure ([`for_protocol`](crate::for_protocol)) | the peer's [`Address`](crate::Address) | the reactor, for each connection |
//! | a [`Producer`] | the [`Transport`](crate::Transport) that it produces for | the reactor, at the end of a turn |
//! | callbacks of a [`Deferred`](crate::Deferred) | a result, or a [`Failure`](crate::Failure) | whoever has the result |
//! | an endpoint of your own ([`ServerEndpoint`], [`ClientEndpoint`]) | a factory | whoever listens or connects |
//!
//! | You use | for | Twisted's name |
//! |---|---|---|
//! | [`Reactor`](crate::Reactor) | the loop: run, stop, listen, connect, jobs in threads | `IReactorCore`, `IReactorTCP`, `IReactorInThreads` |
//! | [`BackendKind`](crate::BackendKind) | which backend a reactor is on | `twisted.internet.epollreactor` and its like |
//! | [`Clock`] | timers: the reactor is one, a test's [`testing::VirtualClock`](crate::testing::VirtualClock) another | `IReactorTime` |
//! | [`DelayedCall`](crate::DelayedCall) | one timer | `IDelayedCall` |
//! | [`LoopingCall`](crate::task::LoopingCall) | a function that is called at intervals | `LoopingCall` |
//! | [`Cooperator`](crate::task::Cooperator) | long work in small steps | `Cooperator` |
//! | [`Remote`](crate::Remote) | the reactor, from other threads | `IReactorFromThreads`, `threadable.isInIOThread` |
//! | [`ThreadPool`](crate::ThreadPool) | jobs in threads of their own, beside the reactor's | `ThreadPool`, `deferToThreadPool` |
//! | [`SystemEvent`](crate::SystemEvent) | startup, shutdown, and events of the program's own | `addSystemEventTrigger`, `fireSystemEvent` |
//! | [`Port`](crate::Port) | a listening port | `IListeningPort` |
//! | [`Connection`](crate::Connection) | a protocol and its transport, from outside | what a client endpoint's Deferred fires with |
//! | [`Connections`](crate::Connections) | the open connections of a factory | the set that a factory keeps by hand |
//! | [`Transport`](crate::Transport) | one end of a connection | `ITransport`, `ITCPTransport`, `ITLSTransport`, `IUNIXTransport`, `IHalfCloseableDescriptor` |
//! | [`QueueLimit`](crate::transport::QueueLimit) | a bound on the bytes that wait for a peer which does not read | |
//! | [`ListenOptions`](crate::ListenOptions), [`ConnectOptions`](crate::ConnectOptions) | options of ports and of attempts to connect | arguments of `listenTCP`, `connectTCP` |
//! | [`ClientTls`](crate::tls::ClientTls), [`ServerTls`](crate::tls::ServerTls) | what TLS needs to know, for [`start_tls`](crate::Transport::start_tls) and endpoints | `optionsForClientTLS`, `CertificateOptions` |
//! | [`server_from_string`](crate::endpoints::server_from_string), [`client_from_string`](crate::endpoints::client_from_string) | endpoints from strings | `serverFromString`, `clientFromString` |
//! | [`EndpointRegistry`](crate::endpoints::EndpointRegistry) | types of endpoints of your own in those strings | `IStreamServerEndpointStringParser`, `IStreamClientEndpointStringParserWithReactor` |
//! | [`HostnameEndpoint`](crate::endpoints::HostnameEndpoint) | connecting to a name | `HostnameEndpoint` |
//! | [`Resolver`](crate::reactor::Resolver) | looking names up in another way | `IHostnameResolver` |
//! | [`ServerEndpointExt`], [`ClientEndpointExt`] | `listen` and `connect` of endpoints | `IStreamServerEndpoint.listen`, `IStreamClientEndpoint.connect` |
//! | [`Context`] | a message in front of the failure of a `Result` | |
//! | [`Outcome`] | what a callback of a Deferred may return | a value, an exception, or a Deferred |
//!
//! | Twisted | here |
//! |---|---|
//! | `IProtocol` | [`Protocol`] |
//! | `IHalfCloseableProtocol` | [`Protocol::half_close`], [`Protocol::read_connection_lost`], [`Protocol::write_connection_lost`] |
//! | `IHandshakeListener` | [`Protocol::handshake_completed`] |
//! | `INegotiated`, `ISSLTransport` | [`Transport::tls_session`](crate::Transport::tls_session) |
//! | `IFileDescriptorReceiver` | [`Protocol::file_descriptor_received`] |
//! | `IProtocolFactory` | [`Factory`] |
//! | `IStreamServerEndpoint`, `IStreamClientEndpoint` | [`ServerEndpoint`], [`ClientEndpoint`] |
//! | `IReactorTime` | [`Clock`] |

pub use crate::deferred::Outcome;
pub use crate::endpoints::{ClientEndpoint, ClientEndpointExt, ServerEndpoint, ServerEndpointExt};
pub use crate::failure::Context;
pub use crate::protocol::{Factory, Protocol};
pub use crate::time::Clock;
pub use crate::transport::Producer;
