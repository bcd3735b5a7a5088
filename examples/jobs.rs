//! A service of jobs: clients send lines, threads do the work, and SIGTERM lets the answers out.
//!
//! ```sh
//! cargo run --example jobs &
//! nc localhost 7000
//! ```
//!
//! | line | answer |
//! |---|---|
//! | `primes 100000` | `job 1 is accepted`, its progress, and `job 1: 9592` |
//! | `status` | the numbers of jobs that wait, that run, and that are done |
//! | `quit` | the connection closes behind the answers to its jobs |
//!
//! The result of a job is the number of primes below its limit.
//!
//! Arguments:
//!
//! 1. where to listen (default: port 7000 of this machine, with limits of queues and of silence);
//! 2. the seconds that a stop waits for answers (10).
//!
//! On SIGTERM the port and idle connections are closed at once. Jobs that clients wait for are
//! done, and their answers are sent. At the end of the time, connections that are left are cut off.
//!
//! A job ends with its connection: its future is bound to it, and its thread looks whether the
//! future is still there.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ropewalk::application::{MultiService, StreamServerEndpointService, TimerService, run_service};
use ropewalk::deferred::{Cancelled, Spawner};
use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::protocols::LineReceiver;
use ropewalk::reactor::ThreadPool;
use ropewalk::{Reactor, Result, Transport, bail, for_protocol};

const DEFAULT_ENDPOINT: &str = "tcp:7000:interface=127.0.0.1:queueLimit=1048576:receiveTimeout=3600";
const LONGEST_LINE_BYTES: usize = 100;
const LARGEST_LIMIT: u32 = 100_000_000;
const THREADS: usize = 2;
const MOST_WAITING: usize = 100;
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The jobs of all clients. Clones are the same jobs.
#[derive(Clone)]
pub(crate) struct Jobs {
    pool: ThreadPool,
    spawner: Spawner,
    accepted: Rc<Cell<u64>>,
    done: Rc<Cell<u64>>,
}

impl Jobs {
    pub(crate) fn new(reactor: &Reactor) -> Self {
        let (pool, spawner) = (reactor.thread_pool("jobs", THREADS), reactor.spawner().clone());
        Self { pool, spawner, accepted: Rc::default(), done: Rc::default() }
    }

    pub(crate) fn status(&self) -> String {
        let pool = self.pool.statistics();
        format!("{} waiting, {} running, {} done", pool.queued, pool.working, self.done.get())
    }

    /// Makes the periodic job: `print` gets the status at intervals.
    pub(crate) fn reports(&self, clock: &impl Clock, print: impl Fn(String) + 'static) -> TimerService {
        let jobs = self.clone();
        TimerService::new(clock, REPORT_INTERVAL, move || print(jobs.status()))
    }
}

struct Client {
    jobs: Jobs,
    lines: LineReceiver,
    /// Number of jobs without an answer.
    open: usize,
    /// The connection closes when no job is open.
    is_last: bool,
}

impl Client {
    fn begin(&mut self, transport: &Transport, limit: u32) {
        self.open += 1;
        self.jobs.accepted.set(self.jobs.accepted.get() + 1);
        let number = self.jobs.accepted.get();
        self.lines.send_line(transport, format!("job {number} is accepted").as_bytes());

        let (client, wanted) = (transport.connection::<Self>(), Arc::new(()));
        let (remote, still_wanted) = (client.remote(), Arc::downgrade(&wanted));
        let progress = move |percent| {
            let line = format!("job {number}: {percent}%");
            let say = |client: &mut Self, transport: &Transport, line: String| {
                client.lines.send_line(transport, line.as_bytes());
                Ok(())
            };
            // A client that is gone needs no progress.
            remote.send(line, say, drop);
        };
        let counted =
            self.jobs.pool.defer_to_thread(move || count_primes(limit, || still_wanted.strong_count() > 0, progress));
        let answered = self.jobs.spawner.spawn_for(transport, async move {
            let _wanted = wanted;
            let answer =
                counted.await.map_or_else(|failure| format!("it failed: {failure}"), |count| count.to_string());
            client.later(move |client, transport| client.answer(transport, number, &answer)).await
        });
        // The end of the connection cancels it.
        answered.add_errback(|failure| failure.trap::<Cancelled>().map(drop)).or_log("a job");
    }

    fn answer(&mut self, transport: &Transport, number: u64, answer: &str) {
        self.lines.send_line(transport, format!("job {number}: {answer}").as_bytes());
        self.jobs.done.set(self.jobs.done.get() + 1);
        self.open -= 1;
        self.close_if_done(transport);
    }

    fn finish(&mut self, transport: &Transport) {
        self.is_last = true;
        self.close_if_done(transport);
    }

    fn close_if_done(&self, transport: &Transport) {
        if self.is_last && self.open == 0 {
            transport.lose_connection();
        }
    }
}

impl LineProtocol for Client {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
        let line = String::from_utf8_lossy(line);
        let limit = line.trim().strip_prefix("primes ").map(|limit| limit.parse().unwrap_or(u32::MAX));
        let say = |text: &str| self.lines.send_line(transport, text.as_bytes());
        match (line.trim(), limit) {
            ("status", _) => say(&self.jobs.status()),
            ("quit", _) => self.finish(transport),
            (_, None) => say("commands: primes LIMIT, status, quit"),
            (_, Some(limit)) if limit > LARGEST_LIMIT => say(&format!("a limit is a number up to {LARGEST_LIMIT}")),
            _ if self.is_last => say("this connection takes no more jobs"),
            _ if self.jobs.pool.statistics().queued >= MOST_WAITING => say("too many jobs wait; try again"),
            (_, Some(limit)) => self.begin(transport, limit),
        }
        Ok(())
    }
}

impl Protocol for Client {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }
}

/// Counts the primes below a limit, in a thread.
fn count_primes(limit: u32, is_wanted: impl Fn() -> bool, progress: impl Fn(u32)) -> Result<u32> {
    let (tenth, mut count) = (limit.div_ceil(10), 0);
    for number in 2..limit {
        if number % 1000 == 2 && !is_wanted() {
            bail!("the client is gone");
        }
        if number % tenth == 0 {
            progress(number / tenth * 10);
        }
        count +=
            u32::from((2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0));
    }
    Ok(count)
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let mut arguments = std::env::args().skip(1);
        let description = arguments.next().unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let drain = Duration::from_secs(arguments.next().map_or(Ok(10), |seconds| seconds.parse())?);
        let jobs = Jobs::new(reactor);
        let reports = jobs.reports(reactor, |status| println!("{status}"));
        let lines = || LineReceiver::newline().max_length(LONGEST_LINE_BYTES);
        let clients = for_protocol(move |_| Client { jobs: jobs.clone(), lines: lines(), open: 0, is_last: false });
        let port = StreamServerEndpointService::new(server_from_string(reactor, &description)?, clients);
        let port = port.drain_with(reactor, drain, |client| client.later(Client::finish).or_log("draining"));
        let program = MultiService::new();
        program.add_service(reports);
        program.add_service(port.clone());
        let running = run_service(reactor, program);
        if let Some(host) = port.host() {
            println!("listening on {host}");
        }
        Ok(running)
    })
}
