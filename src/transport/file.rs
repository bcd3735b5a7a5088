//! [`FilePart`]: a part of a file that waits in a queue. The system sends it from its own cache, so
//! its bytes never pass through this process.
//!
//! A stream takes parts of files if its bytes leave as they are: over TCP, without a layer, a rate
//! or a log of its bytes ([`Transport::write_file`]). A part is sent from the position of the open
//! file, which moves, as a read moves it. So a sender may read the rest at any time.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::Transport;

/// An open file whose bytes the system can send.
#[derive(Debug, Clone)]
pub(crate) struct SystemFile(Rc<OwnedFd>);

/// A part of a file in a queue: so many bytes from the position of the file.
#[derive(Debug)]
pub(crate) struct FilePart {
    file: SystemFile,
    left: usize,
    report: FileReport,
}

/// The outcome of a part, for its sender.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileReport(Rc<Cell<Option<FileCut>>>);

/// A part of which not all bytes were sent, although the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileCut {
    /// Number of bytes that were not sent.
    pub(crate) missing: usize,
    /// The system does not send from this file, or failed to read it: it is to be read. Otherwise
    /// the file has become shorter.
    pub(crate) is_refused: bool,
}

impl SystemFile {
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self(Rc::new(file))
    }
}

impl FilePart {
    /// Makes a part of `count` bytes; at least one.
    pub(crate) fn new(file: &SystemFile, count: usize) -> (Self, FileReport) {
        let report = FileReport::default();
        (Self { file: file.clone(), left: count, report: report.clone() }, report)
    }

    /// Number of bytes that are not sent yet; at least one.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Returns the file, for a send from its position.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.0.as_fd()
    }

    /// Records sent bytes: fewer than are left.
    pub(super) fn advance(&mut self, count: usize) {
        self.left -= count;
    }

    /// Gives up the bytes that are left, and returns their number: they leave the queue unsent.
    pub(crate) fn cut(&self, is_refused: bool) -> usize {
        self.report.0.set(Some(FileCut { missing: self.left, is_refused }));
        self.left
    }
}

impl FileReport {
    /// Takes the notice that the part was cut. `None`: it was sent as a whole, or waits.
    pub(crate) fn take(&self) -> Option<FileCut> {
        self.0.take()
    }
}

impl Transport {
    /// Returns the file of a descriptor, if the system can send its bytes over this connection.
    ///
    /// # Errors
    /// `Unsupported`: this is no regular file, or no TCP connection of a system that can. Others:
    /// the system's.
    pub(crate) fn system_file(&self, file: BorrowedFd<'_>) -> io::Result<SystemFile> {
        Ok(SystemFile::new(self.driver()?.system_file(self.0.id, file)?))
    }

    /// Number of bytes between the position of a file and its end.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn bytes_left(&self, file: &SystemFile) -> io::Result<u64> {
        self.driver()?.bytes_left(file.0.as_fd())
    }

    /// Queues the next `count` bytes of a file. `None`: this stream's bytes do not leave as they
    /// are, so they are to be read and written.
    pub(crate) fn write_file(&self, file: &SystemFile, count: usize) -> Option<FileReport> {
        let mut stream = self.0.stream.borrow_mut();
        if !stream.takes_files() {
            return None;
        }
        let (part, report) = FilePart::new(file, count);
        if stream.accepts_writes() {
            if let Some(observer) = self.0.context.observer() {
                observer.file_written(self.0.id, count);
            }
            stream.push_file(part, self.pool());
            self.mark_stream_dirty(&mut stream);
        }
        Some(report)
    }

    /// Returns `true` if parts of files are sent as they are, as far as this stream knows.
    pub(crate) fn takes_files(&self) -> bool {
        self.0.stream.borrow().takes_files()
    }
}
