//! `ropewalk top`: the connections of a running reactor, from the UNIX socket of its status
//! service. A terminal is rewritten at each interval. Any other output gets one view after another.

mod report;
mod view;

use std::cell::RefCell;
use std::io::{IsTerminal, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::address::UnixAddress;
use ropewalk::endpoints::{ClientEndpointExt, UnixClientEndpoint};
use ropewalk::{Deferred, Failure, Protocol, Reactor, Result, Transport, for_protocol};
use rustix::termios::tcgetwinsize;

use self::report::{Rates, Refusal, Report};
use crate::ending::Ending;
use crate::options::TopOptions;
use crate::program::{self, CommandError};
use crate::stdio::{Output, OutputEvent};

/// Longest line of a service. A connection takes about 300 bytes: room for 200,000 of them.
const LINE_BYTES: usize = 64 * 1024 * 1024;

/// Time that the end of the command waits for a thread that writes to a stopped terminal.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Moves to the top left corner; clears the rest of the line; clears the lines below.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

pub(crate) fn run(options: &TopOptions) -> Result<ExitCode, CommandError> {
    let address = UnixAddress::path(&options.socket).map_err(Failure::new)?;
    let reactor = Reactor::builder().shutdown_timeout(Some(SHUTDOWN_LIMIT)).build()?;
    let mode = Mode {
        is_once: options.once,
        is_json: options.json,
        is_terminal: stdout().is_terminal() && !options.once && !options.json,
        interval: options.interval,
    };
    let on = reactor.clone();
    let signal = program::run(&reactor, move || -> Result<Deferred<()>> {
        let (screen, ended) = Screen::new(&on, mode)?;
        let connecting = UnixClientEndpoint::new(&on, address)
            .connect(for_protocol(move |_| Watching { screen: Rc::clone(&screen), line: Vec::new() }));
        Ok(connecting.add_callback(|_connection| ended))
    })?;
    Ok(program::code_of(signal))
}

/// The form of the output.
#[derive(Debug, Clone, Copy)]
struct Mode {
    is_once: bool,
    is_json: bool,
    is_terminal: bool,
    interval: Duration,
}

/// The output of the views, and the end of the command.
struct Screen {
    mode: Mode,
    ending: Ending,
    /// The report before, for the rates.
    before: RefCell<Option<Report>>,
}

impl Screen {
    fn new(reactor: &Reactor, mode: Mode) -> Result<(Rc<Self>, Deferred<()>)> {
        let (ending, ended) = Ending::new();
        let screen = Rc::new(Self { mode, ending, before: RefCell::default() });
        let told = Rc::downgrade(&screen);
        let output = Output::new(reactor, stdout().as_fd().try_clone_to_owned()?, move |event| {
            let Some(screen) = told.upgrade() else { return };
            match event {
                OutputEvent::Drained => screen.ending.finish(),
                OutputEvent::Failed(failure) => screen.ending.output_failed(failure),
            }
        })?;
        screen.ending.set_output(output);
        // The output may have to write when the connection, which has the screen, is gone.
        let kept = Rc::clone(&screen);
        let ended = ended.add_both(move |result| {
            drop(kept);
            result
        });
        Ok((screen, ended))
    }

    /// Shows a line of the service. A slow output misses it.
    fn received(&self, line: &[u8]) -> Result<()> {
        let report: Report = match serde_json::from_slice(line) {
            Ok(report) => report,
            Err(error) => {
                let refusal = serde_json::from_slice(line);
                return Err(refusal.map_or_else(|_| error.into(), |Refusal { error }| Failure::message(error)));
            }
        };
        let Some(output) = self.ending.output() else { return Ok(()) };
        if output.queued_bytes() > 0 {
            return Ok(());
        }
        if self.mode.is_json {
            output.write(line);
            output.write(b"\n");
        } else {
            output.write(self.view(&report).as_bytes());
            self.before.replace(Some(report));
        }
        Ok(())
    }

    fn view(&self, report: &Report) -> String {
        let before = self.before.borrow();
        let rates = before.as_ref().map_or_else(Rates::default, |before| Rates::between(before, report));
        let lines = view::lines(report, &rates);
        if !self.mode.is_terminal {
            return lines.join("\n") + if self.mode.is_once { "\n" } else { "\n\n" };
        }
        let (rows, columns) = terminal_size();
        let lines = view::fit(lines, rows, columns);
        let shown: Vec<String> = lines.iter().map(|line| format!("{line}{CLEAR_LINE}")).collect();
        format!("{HOME}{}{CLEAR_BELOW}", shown.join("\r\n"))
    }
}

/// Returns the rows and the columns of the terminal. One that does not tell them has 24 and 80.
fn terminal_size() -> (usize, usize) {
    let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()))
}

/// The connection to the status service.
struct Watching {
    screen: Rc<Screen>,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl Protocol for Watching {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.screen.ending.set_transport(transport);
        if !self.screen.mode.is_once {
            transport.write(format!("{}\n", self.screen.mode.interval.as_secs_f64()).as_bytes());
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > LINE_BYTES {
                return Err(Failure::message(format!("a line has more than {LINE_BYTES} bytes")));
            }
            if let Some(line) = self.line.strip_suffix(b"\n") {
                self.screen.received(line)?;
                self.line.clear();
                if self.screen.mode.is_once {
                    transport.lose_connection();
                    break;
                }
            }
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.screen.ending.lost(reason);
    }
}
