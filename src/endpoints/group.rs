//! The ports of a [`ReactorGroup`](crate::reactor::ReactorGroup): endpoints that each of its
//! reactors makes for itself.

use super::{ServerEndpoint, server_from_string};
use crate::failure::Result;
use crate::protocol::{BoxedFactory, Factory};
use crate::reactor::{GroupBuilder, Member, Reactor};

impl GroupBuilder {
    /// Adds a port, from the description of a server endpoint, as for
    /// [`server_from_string`]. `factory` is called on the thread of each member, and makes the
    /// factory that builds this member's protocols.
    ///
    /// Each reactor reads the description for itself: the files of certificates, too. Port 0 is
    /// resolved once. By default every type of endpoint that listens at once can be shared:
    /// `tcp:`, `unix:`, `tls:`, `fd:` and `systemd:`. See
    /// [`PortSharing`](crate::reactor::PortSharing).
    ///
    /// ```
    /// use ropewalk::reactor::ReactorGroup;
    /// use ropewalk::for_protocol;
    /// # use ropewalk::{Protocol, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// let builder = ReactorGroup::builder()
    ///     .listen("tcp:8888", |_member| Ok(for_protocol(|_peer| Echo)))
    ///     .listen("unix:/run/echo.sock", |_member| Ok(for_protocol(|_peer| Echo)));
    /// # drop(builder);
    /// ```
    ///
    /// Errors of the description are those of the start
    /// ([`GroupError::Listen`](crate::error::GroupError::Listen)).
    pub fn listen<F: Factory>(
        self,
        description: &str,
        factory: impl Fn(&Member) -> Result<F> + Send + Sync + 'static,
    ) -> Self {
        let text = description.to_owned();
        self.listen_on(description, move |reactor| Ok(server_from_string(reactor, &text)?), factory)
    }

    /// Adds a port, from a function that makes the endpoint for a reactor: for endpoints of a
    /// registry, or that are made without a description. It is called for the group's own reactor
    /// as well. `name` is for errors.
    ///
    /// The endpoint has to listen on the reactor that it is given, before it returns.
    ///
    /// ```
    /// use ropewalk::endpoints::TcpServerEndpoint;
    /// use ropewalk::reactor::{Member, ReactorGroup};
    /// use ropewalk::{ListenOptions, Reactor, Result, for_protocol};
    /// # use ropewalk::{Protocol, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// fn endpoint(reactor: &Reactor) -> Result<TcpServerEndpoint> {
    ///     let options = ListenOptions::new().backlog(1024);
    ///     Ok(TcpServerEndpoint::bind_to(reactor, "127.0.0.1:0".parse()?).options(options))
    /// }
    ///
    /// let echoes = |_: &Member| Ok(for_protocol(|_peer| Echo));
    /// let builder = ReactorGroup::builder().listen_on("the echo port", endpoint, echoes);
    /// # drop(builder);
    /// ```
    pub fn listen_on<E: ServerEndpoint, F: Factory>(
        self,
        name: &str,
        endpoint: impl Fn(&Reactor) -> Result<E> + Send + Sync + 'static,
        factory: impl Fn(&Member) -> Result<F> + Send + Sync + 'static,
    ) -> Self {
        self.add_port(
            name.to_owned(),
            move |reactor, factory| Ok(endpoint(reactor)?.listen_boxed(factory)),
            move |member| Ok(BoxedFactory::new(factory(member)?)),
        )
    }
}
