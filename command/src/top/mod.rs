//! `ropewalk top`: the connections of a running reactor, from the UNIX socket of its status
//! service. A terminal is rewritten at each interval. Any other output gets one view after another.

mod report;
mod view;

use std::cell::RefCell;
use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::address::UnixAddress;
use ropewalk::endpoints::{ClientEndpointExt, UnixClientEndpoint};
use ropewalk::reactor::StandardIo;
use ropewalk::{Deferred, Failure, Protocol, Reactor, Result, Transport, for_protocol};
use rustix::termios::tcgetwinsize;

use self::report::{Rates, Refusal, Report};
use crate::ending::Ending;
use crate::options::TopOptions;
use crate::program::{self, CommandError};

/// Longest line of a service. A connection takes about 300 bytes: room for 200,000 of them.
const LINE_BYTES: usize = 64 * 1024 * 1024;

/// Moves to the top left corner; clears the rest of the line; clears the lines below.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";

pub(crate) fn run(options: &TopOptions) -> Result<ExitCode, CommandError> {
    let address = UnixAddress::path(&options.socket).map_err(Failure::new)?;
    let reactor = Reactor::new()?;
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
        // Nothing is read: keys and the lines of a script are for the next program.
        let console = StandardIo::new(reactor).input(File::open("/dev/null")?);
        let console = console.join(Console { screen: Rc::clone(&screen) })?;
        screen.ending.set_console(console.transport());
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
        let Some(console) = self.ending.console() else { return Ok(()) };
        if console.queued_bytes() > 0 {
            return Ok(());
        }
        if self.mode.is_json {
            console.write(line);
            console.write(b"\n");
        } else {
            console.write(self.view(&report).as_bytes());
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

/// Standard output. Its input is empty.
struct Console {
    screen: Rc<Screen>,
}

impl Protocol for Console {
    fn data_received(&mut self, _console: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    /// The end of the input is not that of the output.
    fn half_close(&self) -> bool {
        true
    }

    fn connection_lost(&mut self, _console: &Transport, reason: &Failure) {
        self.screen.ending.console_lost(reason);
    }
}
