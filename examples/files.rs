//! A file server whose clients can resume: they name the byte to begin with.
//!
//! ```sh
//! cargo run --example files -- /usr/share/doc &
//! printf 'GET 0 bash/copyright\nGET 1000 bash/copyright\n' | nc localhost 7000
//! ```
//!
//! | request, a line | answer |
//! |---|---|
//! | `GET OFFSET NAME` | `OK LENGTH`, and so many bytes: the file from the offset on |
//! | any that can't be served | `ERROR` and the reason |
//!
//! Requests can be pipelined, and are answered in order. Names are those of files below the folder,
//! also by symbolic links.
//!
//! The arguments are the folder (default: the present one), where to listen (default
//! `tcp:7000:maxConnections=1000:receiveTimeout=60:queueLimit=1048576`), and the seconds after
//! which a peer that takes nothing of a file is cut off (20). On SIGTERM the server stops
//! listening, closes idle connections, and gives the downloads ten seconds to end.
//!
//! `pause_producing` in the middle of a chunk keeps the requests behind the first one. They are
//! delivered on `resume_producing`, when its file is sent.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{StreamServerEndpointService, run_service};
use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::protocols::{FileSender, LineReceiver};
use ropewalk::{Result, Transport, bail, for_protocol};

const LONGEST_LINE_BYTES: usize = 4096;
pub(crate) const DEFAULT_ENDPOINT: &str = "tcp:7000:maxConnections=1000:receiveTimeout=60:queueLimit=1048576";

/// Time that the last downloads have to end after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(10);

struct Download {
    folder: Rc<Path>,
    stall_limit: Duration,
    lines: LineReceiver,
}

impl Download {
    /// Opens the file of a request. Returns its bytes from the offset on, and their number.
    fn open(&self, line: &[u8]) -> Result<(impl Read + use<>, u64)> {
        let words: Vec<&str> = str::from_utf8(line)?.trim_end().splitn(3, ' ').collect();
        let ["GET", offset, name] = words[..] else { bail!("a request is: GET OFFSET NAME") };
        let offset = offset.parse().context("the offset")?;
        let path = fs::canonicalize(self.folder.join(name)).ok();
        let path = path.filter(|path| path.starts_with(&self.folder) && path.is_file()).ok_or("no such file")?;
        let mut file = File::open(path)?;
        let length = file.metadata()?.len().checked_sub(offset).ok_or("the offset is behind the end")?;
        file.seek(SeekFrom::Start(offset))?;
        Ok((file.take(length), length))
    }
}

impl LineProtocol for Download {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
        let (bytes, length) = match self.open(line) {
            Ok(opened) => opened,
            Err(failure) => {
                self.lines.send_line(transport, format!("ERROR {failure}").as_bytes());
                return Ok(());
            }
        };
        self.lines.send_line(transport, format!("OK {length}").as_bytes());
        transport.pause_producing();
        let client = transport.clone();
        let sending = FileSender::new(bytes).stall_limit(self.stall_limit).begin(transport);
        let sent = sending.add_callback(move |sent| match sent == length {
            true => client.resume_producing(),
            // The file became shorter meanwhile.
            false => client.lose_connection(),
        });
        sent.or_log("a download");
        Ok(())
    }
}

impl Protocol for Download {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let argument = |place: usize, default: &str| env::args().nth(place).unwrap_or_else(|| default.to_owned());
        let folder: Rc<Path> = fs::canonicalize(argument(1, ".")).context("the folder")?.into();
        let endpoint = server_from_string(reactor, &argument(2, DEFAULT_ENDPOINT))?;
        let stall_limit = Duration::from_secs(argument(3, "20").parse().context("the seconds")?);
        let lines = || LineReceiver::newline().max_length(LONGEST_LINE_BYTES);
        let downloads = for_protocol(move |_| Download { folder: folder.clone(), stall_limit, lines: lines() });
        let service = StreamServerEndpointService::new(endpoint, downloads).drain(reactor, FAREWELL);
        let stopped = run_service(reactor, service.clone());
        service.host().inspect(|host| println!("listening on {host}"));
        Ok(stopped)
    })
}
