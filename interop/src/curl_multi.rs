//! [`Transfers`]: libcurl's multi interface, driven by a reactor.
//!
//! libcurl opens and closes its sockets itself. It says what to wait for with two callbacks, and is
//! told of events by `curl_multi_socket_action`:
//!
//! | libcurl | reactor |
//! |---|---|
//! | `CURLMOPT_SOCKETFUNCTION`: wait for these directions of a socket, or for none | a watch, its interest, its end |
//! | `CURLMOPT_TIMERFUNCTION`: call in so much time, or not at all | a timer |
//! | `curl_multi_socket_action` | the callbacks of the watch and of the timer |
//!
//! libcurl makes the callbacks from inside of its own functions, so they only note a request. It is
//! carried out when that function has returned. By then libcurl may have closed a socket, and may
//! have opened another of the same number: the watch of a raw descriptor allows for both.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use curl::easy::{Easy2, Handler, WriteError};
use curl::multi::{Easy2Handle, Events, Multi, Socket};
use ropewalk::deferred::Promise;
use ropewalk::error::WatchError;
use ropewalk::reactor::{Descriptor, Interest, Watch, WatchHandle, Watcher};
use ropewalk::{Clock, Deferred, DelayedCall, Failure, Reactor, Result};

/// Fetches files over libcurl, any number at once, on the thread of a reactor.
#[derive(Clone)]
pub struct Transfers(Rc<TransfersInner>);

struct TransfersInner {
    reactor: Reactor,
    multi: Multi,
    /// The requests that libcurl has made since they were last carried out.
    requests: Receiver<CurlRequest>,
    watches: RefCell<BTreeMap<Socket, Watch>>,
    timer: RefCell<Option<DelayedCall>>,
    running: RefCell<BTreeMap<usize, Transfer>>,
    started: Cell<usize>,
}

/// A request of libcurl.
enum CurlRequest {
    Wait(Socket, Interest),
    Forget(Socket),
    Timer(Option<Duration>),
}

struct Transfer {
    handle: Easy2Handle<Body>,
    promise: Promise<Vec<u8>>,
}

impl Transfers {
    /// Makes an object without transfers.
    ///
    /// # Errors
    /// libcurl's.
    pub fn new(reactor: &Reactor) -> Result<Self> {
        let (requests, received) = mpsc::channel();
        let mut multi = Multi::new();
        let sockets = requests.clone();
        // The receiver lives as long as `multi`, which makes these calls.
        multi.socket_function(move |socket, events, _token| {
            let mut interest = Interest::NONE;
            if events.input() {
                interest |= Interest::READ;
            }
            if events.output() {
                interest |= Interest::WRITE;
            }
            let request =
                if events.remove() { CurlRequest::Forget(socket) } else { CurlRequest::Wait(socket, interest) };
            drop(sockets.send(request));
        })?;
        multi.timer_function(move |after| requests.send(CurlRequest::Timer(after)).is_ok())?;
        Ok(Self(Rc::new(TransfersInner {
            reactor: reactor.clone(),
            multi,
            requests: received,
            watches: RefCell::default(),
            timer: RefCell::default(),
            running: RefCell::default(),
            started: Cell::new(0),
        })))
    }

    /// Fetches a file. The Deferred gets its bytes, or fails with libcurl's error; an answer of an
    /// HTTP server from 400 on is one.
    ///
    /// # Errors
    /// libcurl's, if the transfer can't begin.
    pub fn fetch(&self, url: &str) -> Result<Deferred<Vec<u8>>> {
        let mut easy = Easy2::new(Body::default());
        easy.url(url)?;
        easy.fail_on_error(true)?;
        // A signal of the process is no business of a library's.
        easy.signal(false)?;
        let inner = &self.0;
        let token = inner.started.get();
        inner.started.set(token + 1);
        let mut handle = inner.multi.add2(easy)?;
        handle.set_token(token)?;
        let (promise, fetched) = Promise::new();
        inner.running.borrow_mut().insert(token, Transfer { handle, promise });
        inner.carry_out_requests()?;
        Ok(fetched)
    }

    /// Returns the number of transfers under way.
    pub fn running(&self) -> usize {
        self.0.running.borrow().len()
    }

    /// Returns the number of sockets that libcurl waits for.
    pub fn watched(&self) -> usize {
        self.0.watches.borrow().len()
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfers").field("running", &self.running()).finish_non_exhaustive()
    }
}

impl TransfersInner {
    /// Tells libcurl of an event: of a socket, or of its timer.
    fn act(self: &Rc<Self>, event: Option<(Socket, &Events)>) -> Result<()> {
        match event {
            Some((socket, events)) => self.multi.action(socket, events)?,
            None => self.multi.timeout()?,
        };
        self.carry_out_requests()?;
        self.finish_transfers()
    }

    fn carry_out_requests(self: &Rc<Self>) -> Result<()> {
        for request in self.requests.try_iter() {
            match request {
                CurlRequest::Wait(socket, interest) => self.wait_for(socket, interest)?,
                CurlRequest::Forget(socket) => drop(self.watches.borrow_mut().remove(&socket)),
                CurlRequest::Timer(after) => self.set_timer(after),
            }
        }
        Ok(())
    }

    fn wait_for(self: &Rc<Self>, socket: Socket, interest: Interest) -> Result<(), WatchError> {
        if let Some(watch) = self.watches.borrow().get(&socket).filter(|watch| watch.is_active()) {
            return watch.set_interest(interest);
        }
        let watcher = CurlWatcher(Rc::downgrade(self));
        let watch = self.reactor.watch(Descriptor::raw(socket), interest, watcher)?;
        self.watches.borrow_mut().insert(socket, watch);
        Ok(())
    }

    fn set_timer(self: &Rc<Self>, after: Option<Duration>) {
        let inner = Rc::downgrade(self);
        let timer = after.map(|after| {
            self.reactor.call_later(after, move || {
                if let Some(inner) = inner.upgrade()
                    && let Err(failure) = inner.act(None)
                {
                    inner.fail_all(&failure);
                }
            })
        });
        if let Some(earlier) = self.timer.replace(timer) {
            // It may have run.
            let _ = earlier.cancel();
        }
    }

    /// Gives the results of finished transfers to their Deferreds, when libcurl has returned.
    fn finish_transfers(&self) -> Result<()> {
        let mut finished = Vec::new();
        self.multi.messages(|message| {
            if let (Ok(token), Some(result)) = (message.token(), message.result()) {
                finished.push((token, result));
            }
        });
        for (token, result) in finished {
            let transfer = self.running.borrow_mut().remove(&token);
            let Some(Transfer { handle, promise }) = transfer else { continue };
            let mut easy = self.multi.remove2(handle)?;
            match result {
                Ok(()) => promise.callback(std::mem::take(&mut easy.get_mut().0))?,
                Err(error) => promise.errback(error)?,
            }
        }
        Ok(())
    }

    /// Fails all transfers: libcurl itself has failed.
    fn fail_all(&self, failure: &Failure) {
        let running = std::mem::take(&mut *self.running.borrow_mut());
        for Transfer { handle, promise } in running.into_values() {
            drop(self.multi.remove2(handle));
            drop(promise.errback(failure.clone()));
        }
    }
}

/// The callbacks of one of libcurl's sockets.
struct CurlWatcher(Weak<TransfersInner>);

impl CurlWatcher {
    fn act(&self, watch: &WatchHandle, events: &mut Events) -> Result<()> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        if watch.is_hung_up() {
            events.error(true);
        }
        inner.act(Some((watch.raw_fd(), events))).inspect_err(|failure| inner.fail_all(failure))
    }
}

impl Watcher for CurlWatcher {
    fn do_read(&mut self, watch: &WatchHandle) -> Result<()> {
        self.act(watch, Events::new().input(true))
    }

    fn do_write(&mut self, watch: &WatchHandle) -> Result<()> {
        self.act(watch, Events::new().output(true))
    }

    fn connection_lost(&mut self, reason: &Failure) {
        if let Some(inner) = self.0.upgrade() {
            inner.fail_all(reason);
        }
    }
}

/// The received bytes of a transfer.
#[derive(Debug, Default)]
struct Body(Vec<u8>);

impl Handler for Body {
    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        self.0.extend_from_slice(data);
        Ok(data.len())
    }
}
