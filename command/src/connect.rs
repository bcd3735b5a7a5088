//! `ropewalk connect`: a connection, joined to standard input and output.
//!
//! | event | effect |
//! |---|---|
//! | the end of standard input | the write direction of the connection is shut, behind all bytes |
//! | the peer's end | the connection closes, once the bytes that were read before are sent |
//! | the end of the connection | the command ends, once all received bytes are written |
//! | standard output is closed (`EPIPE`) | the command ends well: its reader has enough |
//! | an error of standard input or output | the connection is aborted, and the command fails |

use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::endpoints::{ClientEndpointExt, client_from_string};
use ropewalk::reactor::StandardIo;
use ropewalk::transport::Streaming;
use ropewalk::{Deferred, Failure, Protocol, Reactor, Result, Transport, for_protocol};

use crate::ending::Ending;
use crate::options::ConnectOptions;
use crate::program::{self, CommandError};

pub(crate) fn run(options: &ConnectOptions) -> Result<ExitCode, CommandError> {
    let reactor = Reactor::new()?;
    let endpoint = client_from_string(&reactor, &options.description)?;
    let on = reactor.clone();
    let signal = program::run(&reactor, move || -> Result<Deferred<()>> {
        let (ending, ended) = Ending::new();
        let ending = Rc::new(ending);
        let joined = move |_| Joined { reactor: on.clone(), ending: Rc::clone(&ending) };
        Ok(endpoint.connect(for_protocol(joined)).add_callback(|_connection| ended))
    })?;
    Ok(program::code_of(signal))
}

/// The protocol of the connection.
struct Joined {
    reactor: Reactor,
    ending: Rc<Ending>,
}

impl Protocol for Joined {
    /// Joins the console. Each side is read no faster than the other takes the bytes.
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.ending.set_transport(transport);
        let console = StandardIo::new(&self.reactor).join(Console { ending: Rc::clone(&self.ending) })?;
        let console = console.transport();
        self.ending.set_console(console);
        transport.register_producer(console.as_producer(), Streaming::Push)?;
        console.register_producer(transport.as_producer(), Streaming::Push)?;
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        if let Some(console) = self.ending.console() {
            console.write(data);
        }
        Ok(())
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        transport.unregister_producer();
        transport.lose_connection();
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.ending.lost(reason);
    }
}

/// The protocol of standard input and output.
struct Console {
    ending: Rc<Ending>,
}

impl Protocol for Console {
    fn data_received(&mut self, _console: &Transport, data: &[u8]) -> Result<()> {
        if let Some(transport) = self.ending.transport() {
            transport.write(data);
        }
        Ok(())
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, _console: &Transport) -> Result<()> {
        if let Some(transport) = self.ending.transport() {
            transport.unregister_producer();
            transport.lose_write_connection();
        }
        Ok(())
    }

    fn connection_lost(&mut self, _console: &Transport, reason: &Failure) {
        self.ending.console_lost(reason);
    }
}
