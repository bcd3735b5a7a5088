//! `examples/jobs.rs` on tokio: the same program, so that their lines can be compared. A client
//! that does not read is not read either, and misses progress.
//!
//! Arguments: where to listen (`127.0.0.1:7000`), and the seconds that a stop waits for answers
//! (10).

use std::cell::Cell;
use std::env;
use std::error::Error;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{select, try_join};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use tokio::time::{interval, sleep, timeout};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const LONGEST_LINE_BYTES: usize = 100;
const LARGEST_LIMIT: u32 = 100_000_000;
const THREADS: usize = 2;
const MOST_WAITING: usize = 100;
const QUEUED_LINES: usize = 1024;
const IDLE_LIMIT: Duration = Duration::from_secs(3600);
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The jobs of all clients.
struct Jobs {
    /// Permits for jobs that wait or run, and for those that run.
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    accepted: Cell<u64>,
    done: Cell<u64>,
}

impl Jobs {
    fn new() -> Self {
        let [places, threads] = [MOST_WAITING + THREADS, THREADS].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { places, threads, accepted: Cell::new(0), done: Cell::new(0) }
    }

    fn status(&self) -> String {
        let running = THREADS - self.threads.available_permits();
        // A thread gives its permits back at any time.
        let waiting = (MOST_WAITING + THREADS - self.places.available_permits()).saturating_sub(running);
        format!("{waiting} waiting, {running} running, {} done", self.done.get())
    }

    /// Prints the status at intervals.
    async fn report(self: Rc<Self>) {
        let mut reports = interval(REPORT_INTERVAL);
        loop {
            reports.tick().await;
            println!("{}", self.status());
        }
    }
}

struct Client {
    jobs: Rc<Jobs>,
    answers: Sender<String>,
    /// The jobs without an answer. It is closed when no more are taken.
    open: TaskTracker,
    /// Cancelled when the connection ends.
    gone: CancellationToken,
}

impl Client {
    async fn line_received(&self, line: &str) -> Result<(), SendError<String>> {
        let limit = line.strip_prefix("primes ").map(|limit| limit.parse().unwrap_or(u32::MAX));
        let answer = match (line, limit) {
            ("status", _) => self.jobs.status(),
            ("quit", _) => {
                self.open.close();
                return Ok(());
            }
            (_, None) => "commands: primes LIMIT, status, quit".to_owned(),
            (_, Some(limit)) if limit > LARGEST_LIMIT => format!("a limit is a number up to {LARGEST_LIMIT}"),
            _ if self.open.is_closed() => "this connection takes no more jobs".to_owned(),
            (_, Some(limit)) => match Arc::clone(&self.jobs.places).try_acquire_owned() {
                Ok(place) => return self.begin(limit, place).await,
                Err(_) => "too many jobs wait; try again".to_owned(),
            },
        };
        self.answers.send(answer + "\n").await
    }

    async fn begin(&self, limit: u32, place: OwnedSemaphorePermit) -> Result<(), SendError<String>> {
        let (jobs, open, answers, gone) =
            (Rc::clone(&self.jobs), self.open.token(), self.answers.clone(), self.gone.clone());
        let number = jobs.accepted.get() + 1;
        jobs.accepted.set(number);
        answers.send(format!("job {number} is accepted\n")).await?;
        let (progress, is_gone) = (answers.clone(), gone.clone());
        let counting = async move {
            let Ok(thread) = Arc::clone(&jobs.threads).acquire_owned().await else { return };
            let counted = spawn_blocking(move || {
                let _permits = (thread, place);
                // A client whose queue is full misses it.
                let progress = |percent| drop(progress.try_send(format!("job {number}: {percent}%\n")));
                count_primes(limit, || !is_gone.is_cancelled(), progress)
            });
            let answer = match counted.await {
                Ok(Some(count)) => format!("job {number}: {count}\n"),
                Ok(None) => return,
                Err(error) => format!("job {number}: it failed: {error}\n"),
            };
            jobs.done.set(jobs.done.get() + 1);
            // The client may be gone.
            drop(answers.send(answer).await);
        };
        spawn_local(async move {
            let _open = open;
            gone.run_until_cancelled(counting).await;
        });
        Ok(())
    }
}

/// Counts the primes below a limit, in a thread. `None` if the client is gone.
fn count_primes(limit: u32, is_wanted: impl Fn() -> bool, progress: impl Fn(u32)) -> Option<u32> {
    let (tenth, mut count) = (limit.div_ceil(10), 0);
    for number in 2..limit {
        if number % 1000 == 2 && !is_wanted() {
            return None;
        }
        if number % tenth == 0 {
            progress(number / tenth * 10);
        }
        count +=
            u32::from((2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0));
    }
    Some(count)
}

/// Serves a client until it leaves, or until all its jobs are answered behind `quit` or the stop.
async fn serve(stream: &mut TcpStream, jobs: Rc<Jobs>, stop: CancellationToken) -> Result<()> {
    let (reader, mut writer) = stream.split();
    let (answers, mut queue) = channel(QUEUED_LINES);
    let (open, gone) = (TaskTracker::new(), CancellationToken::new());
    let _ends_jobs = gone.clone().drop_guard();
    let client = Client { jobs, answers, open: open.clone(), gone };
    let reading = async move {
        let mut lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LONGEST_LINE_BYTES));
        while let Some(line) = timeout(IDLE_LIMIT, lines.next()).await? {
            client.line_received(line?.trim()).await?;
        }
        Err("the client has left".into())
    };
    let answered = async move {
        if stop.run_until_cancelled(open.wait()).await.is_none() {
            open.close();
            open.wait().await;
        }
        Ok(())
    };
    let dialogue = async { select(pin!(reading), pin!(answered)).await.factor_first().0 };
    let writing = async {
        while let Some(line) = queue.recv().await {
            timeout(IDLE_LIMIT, writer.write_all(line.as_bytes())).await??;
        }
        Ok(())
    };
    try_join(dialogue, writing).await.map(drop)
}

async fn run() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let drain = Duration::from_secs(arguments.next().map_or(Ok(10), |seconds| seconds.parse())?);
    let (jobs, clients) = (Rc::new(Jobs::new()), TaskTracker::new());
    let (stop, cut_off) = (CancellationToken::new(), CancellationToken::new());
    let (mut terminated, stopping) = (signal(SignalKind::terminate())?, stop.clone());
    spawn_local(async move {
        terminated.recv().await;
        stopping.cancel();
    });
    spawn_local(Rc::clone(&jobs).report());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((mut stream, _)) = accepted.inspect_err(|error| eprintln!("cannot accept: {error}")) else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        let (jobs, stop, cut_off) = (Rc::clone(&jobs), stop.clone(), cut_off.clone());
        clients.spawn_local(async move {
            match cut_off.run_until_cancelled(serve(&mut stream, jobs, stop)).await {
                // A client that leaves is no error of the service.
                Some(served) => drop(served),
                None => drop(stream.set_zero_linger()),
            }
        });
    }
    drop(listener);
    clients.close();
    if timeout(drain, clients.wait()).await.is_err() {
        cut_off.cancel();
        clients.wait().await;
    }
    Ok(())
}

fn main() -> Result<()> {
    LocalSet::new().block_on(&Builder::new_current_thread().enable_all().build()?, run())
}
