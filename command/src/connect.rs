//! `ropewalk connect`: a connection, joined to standard input and output.
//!
//! | event | effect |
//! |---|---|
//! | the end of standard input | the write direction of the connection is shut, behind all bytes |
//! | the peer's end | the connection closes, once the bytes that were read before are sent |
//! | the end of the connection | the command ends, once all received bytes are written |
//! | standard output is closed (`EPIPE`) | the command ends well: its reader has enough |
//! | an error of standard input or output | the connection is aborted, and the command fails |

use std::cell::OnceCell;
use std::io::{stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::endpoints::{ClientEndpointExt, client_from_string};
use ropewalk::transport::{Producer, Streaming};
use ropewalk::{Deferred, Failure, Protocol, Reactor, Result, Transport, for_protocol};

use crate::ending::Ending;
use crate::options::ConnectOptions;
use crate::program::{self, CommandError};
use crate::stdio::{Input, InputEvent, Output, OutputEvent};

/// Received bytes that may wait for standard output. Above that the peer has to wait. 256 KiB: four
/// reads of a connection.
const UNWRITTEN_BYTES: usize = 256 * 1024;

/// Time that the end of the command waits for a thread that writes to a stopped terminal.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &ConnectOptions) -> Result<ExitCode, CommandError> {
    let reactor = Reactor::builder().shutdown_timeout(Some(SHUTDOWN_LIMIT)).build()?;
    let endpoint = client_from_string(&reactor, &options.description)?;
    let on = reactor.clone();
    let signal = program::run(&reactor, move || -> Result<Deferred<()>> {
        let (session, ended) = Session::new(&on)?;
        let connected = endpoint.connect(for_protocol(move |_| Joined { session: Rc::clone(&session) }));
        Ok(connected.add_callback(|_connection| ended))
    })?;
    Ok(program::code_of(signal))
}

/// The parts of a joined connection that know one another.
struct Session {
    reactor: Reactor,
    ending: Ending,
    input: OnceCell<Input>,
}

impl Session {
    fn new(reactor: &Reactor) -> Result<(Rc<Self>, Deferred<()>)> {
        let (ending, ended) = Ending::new();
        let session = Rc::new(Self { reactor: reactor.clone(), ending, input: OnceCell::new() });
        let told = Rc::downgrade(&session);
        let output = Output::new(reactor, stdout().as_fd().try_clone_to_owned()?, move |event| {
            if let Some(session) = told.upgrade() {
                session.wrote(event);
            }
        })?;
        session.ending.set_output(output);
        // The output may have to write when the connection, which has the session, is gone.
        let kept = Rc::clone(&session);
        let ended = ended.add_both(move |result| {
            drop(kept);
            result
        });
        Ok((session, ended))
    }

    /// Begins to read standard input, for a connection that was made.
    fn begin(self: &Rc<Self>, transport: &Transport) -> Result<()> {
        self.ending.set_transport(transport);
        let told = Rc::downgrade(self);
        let input = Input::new(&self.reactor, stdin().as_fd().try_clone_to_owned()?, move |event| {
            if let Some(session) = told.upgrade() {
                session.read(event);
            }
        })?;
        // The input reads no faster than the peer takes the bytes.
        transport.register_producer(Pausing(input.clone()), Streaming::Push)?;
        self.input.get_or_init(|| input);
        Ok(())
    }

    /// Handles an event of standard input.
    fn read(&self, event: InputEvent<'_>) {
        let Some(transport) = self.ending.transport() else { return };
        match event {
            InputEvent::Data(data) => transport.write(data),
            InputEvent::End => {
                transport.unregister_producer();
                transport.lose_write_connection();
            }
            InputEvent::Failed(failure) => self.ending.fail(failure.context("standard input")),
        }
    }

    /// Handles an event of standard output.
    fn wrote(&self, event: OutputEvent) {
        match event {
            OutputEvent::Drained => {
                if let Some(transport) = self.ending.transport() {
                    transport.resume_producing();
                }
                self.ending.finish();
            }
            OutputEvent::Failed(failure) => self.ending.output_failed(failure),
        }
    }

    fn stop_input(&self) {
        if let Some(input) = self.input.get() {
            input.stop();
        }
    }
}

/// The protocol of the connection.
struct Joined {
    session: Rc<Session>,
}

impl Protocol for Joined {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.session.begin(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        if let Some(output) = self.session.ending.output() {
            output.write(data);
            if output.queued_bytes() > UNWRITTEN_BYTES {
                transport.pause_producing();
            }
        }
        Ok(())
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.session.stop_input();
        transport.unregister_producer();
        transport.lose_connection();
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.session.stop_input();
        self.session.ending.lost(reason);
    }
}

/// Standard input as the producer of the connection.
struct Pausing(Input);

impl Producer for Pausing {
    fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
        self.0.resume();
        Ok(())
    }

    fn pause_producing(&mut self, _consumer: &Transport) -> Result<()> {
        self.0.pause();
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {
        self.0.stop();
    }
}
