//! Descriptors that this process has inherited from the process that started it (Twisted:
//! `twisted.python.systemd.ListenFDs`): those that a service manager has passed, and any other by
//! its number.
//!
//! The table of descriptors belongs to the process, so this file has a static, as `signals.rs`
//! does. It records which inherited descriptors are still free, and hands each out once.
//!
//! | variable | says |
//! |---|---|
//! | `LISTEN_PID` | the process that the descriptors are for |
//! | `LISTEN_FDS` | their count, from descriptor 3 on |
//! | `LISTEN_FDNAMES` | their names, separated by colons |
//!
//! The variables are read once. They stay in the environment, because no program with threads can
//! change that soundly, and `std::env::remove_var` is `unsafe` for that reason. Child programs are
//! kept from using them in two ways: `LISTEN_PID` does not name a child, and all passed descriptors
//! are close-on-exec from the first look on.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::FdFlags;
use rustix::process::getpid;

use crate::error::InheritedError;

/// The first descriptor that a service manager passes (`SD_LISTEN_FDS_START`).
const FIRST_PASSED: RawFd = 3;

/// A descriptor that this process has inherited. [`take`](Self::take) gives it out once.
///
/// ```
/// use ropewalk::error::InheritedError;
/// use ropewalk::reactor::InheritedDescriptor;
///
/// # #[allow(clippy::disallowed_methods)]
/// match InheritedDescriptor::Name("web".to_owned()).take() {
///     Ok(descriptor) => println!("systemd listens for us: {descriptor:?}"),
///     Err(InheritedError::NonePassed) => println!("started by hand"),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InheritedDescriptor {
    /// The descriptor of this number, from 3 on.
    Number(RawFd),
    /// One of the descriptors that a service manager passed, counted from 0 (Twisted:
    /// `inheritedDescriptors`).
    Index(usize),
    /// One of those with this name, and the first that is free (Twisted:
    /// `inheritedNamedDescriptors`).
    Name(String),
}

impl InheritedDescriptor {
    /// Takes the descriptor, which is close-on-exec from now on, and the caller's to close. From
    /// any thread.
    ///
    /// A descriptor counts as inherited if it is not close-on-exec: those that Rust's libraries
    /// open are. So a number that this process has opened itself is refused, unless other code has
    /// cleared that flag. Do not name the descriptor of such code here.
    ///
    /// # Errors
    /// [`InheritedError`]: there is no such descriptor, it was taken before, or the environment is
    /// not as a service manager makes it.
    pub fn take(&self) -> Result<OwnedFd, InheritedError> {
        inherited().take(self)
    }
}

/// Gives a descriptor back that was taken, and not used.
pub(crate) fn give_back(descriptor: OwnedFd) {
    let mut inherited = inherited();
    inherited.taken.remove(&descriptor.as_raw_fd());
    inherited.free.insert(descriptor.as_raw_fd(), descriptor);
}

/// The descriptors that a service manager has passed to this process (Twisted: `ListenFDs`).
///
/// A process that was not started by a service manager has none, and
/// [`of_process`](Self::of_process) says so with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenFds {
    count: usize,
    names: Option<Vec<String>>,
}

impl ListenFds {
    /// Returns the passed descriptors, from the environment at the time of the first call (Twisted:
    /// `ListenFDs.fromEnvironment`). That call makes all of them close-on-exec. An endpoint
    /// `systemd:` makes it when it listens. A program that starts other programs before that makes
    /// it first.
    ///
    /// # Errors
    /// [`InheritedError`]: none were passed, or they are for another process; the variables are not
    /// numbers, or there are more or fewer names than descriptors; one of them is not open, or was
    /// opened by this process.
    pub fn of_process() -> Result<Self, InheritedError> {
        inherited().passed()
    }

    /// Returns the number of descriptors, taken ones included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns `true` if the service manager has passed no descriptor.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the names, in the order of the descriptors. `None` if they have none, as those of
    /// systemd before version 227.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Reads the variables. No list grows with a number in them.
    fn parse(own: i32, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, InheritedError> {
        let (Some(pid), Some(count)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else {
            return Err(InheritedError::NonePassed);
        };
        let pid = number("LISTEN_PID", &pid)?;
        if pid != own {
            return Err(InheritedError::OtherProcess { pid });
        }
        let count = number("LISTEN_FDS", &count)?.min(RawFd::MAX - FIRST_PASSED) as usize;
        let Some(names) = variable("LISTEN_FDNAMES") else { return Ok(Self { count, names: None }) };
        let names = match names.to_str() {
            // One empty name and no name at all are the same text.
            Some("") if count == 0 => Vec::new(),
            Some(names) => names.split(':').map(str::to_owned).collect(),
            None => Vec::new(),
        };
        if names.len() != count {
            return Err(InheritedError::NamesMismatch { names: names.len(), count });
        }
        Ok(Self { count, names: Some(names) })
    }

    /// Returns the numbers that a name or an index stands for.
    fn numbers(&self, wanted: &InheritedDescriptor) -> Result<Vec<RawFd>, InheritedError> {
        let count = self.count;
        match wanted {
            InheritedDescriptor::Number(number) => Ok(vec![*number]),
            InheritedDescriptor::Index(index) if *index < count => Ok(vec![FIRST_PASSED + *index as RawFd]),
            InheritedDescriptor::Index(index) => Err(InheritedError::NoSuchIndex { index: *index, count }),
            InheritedDescriptor::Name(name) => {
                let names = self.names.as_ref().ok_or(InheritedError::NoNames)?;
                let named = (FIRST_PASSED..).zip(names).filter(|(_, other)| *other == name);
                let numbers: Vec<RawFd> = named.map(|(number, _)| number).collect();
                if numbers.is_empty() {
                    return Err(InheritedError::NoSuchName { name: name.clone(), known: names.clone() });
                }
                Ok(numbers)
            }
        }
    }
}

/// Reads a whole number from 0 on, in digits, as a service manager writes it.
fn number(variable: &'static str, value: &OsString) -> Result<i32, InheritedError> {
    let digits = value.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let bad = || InheritedError::BadNumber { variable, value: value.to_string_lossy().into_owned() };
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(bad)
}

/// The inherited descriptors of this process.
struct Inherited {
    /// The passed ones, once they were looked at.
    passed: Option<Result<ListenFds, InheritedError>>,
    /// Owned descriptors that are free.
    free: BTreeMap<RawFd, OwnedFd>,
    /// The numbers that were given out.
    taken: BTreeSet<RawFd>,
}

static INHERITED: Mutex<Inherited> =
    Mutex::new(Inherited { passed: None, free: BTreeMap::new(), taken: BTreeSet::new() });

fn inherited() -> MutexGuard<'static, Inherited> {
    // Each change of the lists is one step, so that a panic leaves them whole.
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inherited {
    fn passed(&mut self) -> Result<ListenFds, InheritedError> {
        if let Some(passed) = &self.passed {
            return passed.clone();
        }
        let own = getpid().as_raw_nonzero().get();
        let read = ListenFds::parse(own, |name| std::env::var_os(name));
        let passed = read.and_then(|passed| self.own_passed(passed));
        self.passed = Some(passed.clone());
        passed
    }

    /// Takes ownership of all passed descriptors, or of none.
    fn own_passed(&mut self, passed: ListenFds) -> Result<ListenFds, InheritedError> {
        let numbers = FIRST_PASSED..FIRST_PASSED + passed.count as RawFd;
        let is_known = |number: &RawFd| self.taken.contains(number) || self.free.contains_key(number);
        // An absurd count ends at the first number that is not open.
        for number in numbers.clone().filter(|number| !is_known(number)) {
            check(number)?;
        }
        for number in numbers {
            if !self.taken.contains(&number) && !self.free.contains_key(&number) {
                self.free.insert(number, own(number)?);
            }
        }
        Ok(passed)
    }

    fn take(&mut self, wanted: &InheritedDescriptor) -> Result<OwnedFd, InheritedError> {
        if let InheritedDescriptor::Number(number) = wanted {
            return self.take_number(*number);
        }
        let numbers = self.passed()?.numbers(wanted)?;
        let first_free = numbers.iter().copied().find(|number| self.free.contains_key(number));
        let number = first_free.unwrap_or(numbers[0]);
        let descriptor = self.free.remove(&number).ok_or(InheritedError::Taken { number })?;
        self.taken.insert(number);
        Ok(descriptor)
    }

    fn take_number(&mut self, number: RawFd) -> Result<OwnedFd, InheritedError> {
        if (0..FIRST_PASSED).contains(&number) {
            return Err(InheritedError::StandardStream { number });
        }
        if self.taken.contains(&number) {
            return Err(InheritedError::Taken { number });
        }
        let descriptor = match self.free.remove(&number) {
            Some(descriptor) => descriptor,
            None => own(number)?,
        };
        self.taken.insert(number);
        Ok(descriptor)
    }
}

/// Checks that a number is open, and was inherited.
fn check(number: RawFd) -> Result<(), InheritedError> {
    // The standard library has no place for a negative number.
    if number < 0 {
        return Err(InheritedError::NotOpen { number });
    }
    // SAFETY: the number is not -1. The call asks for flags: it neither uses nor closes the open
    // file, whatever owns the number, and fails if there is none.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    match rustix::io::fcntl_getfd(descriptor) {
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => Err(InheritedError::NotInherited { number }),
        Ok(_) => Ok(()),
        Err(_) => Err(InheritedError::NotOpen { number }),
    }
}

/// Takes ownership of an inherited descriptor, which is close-on-exec from now on.
fn own(number: RawFd) -> Result<OwnedFd, InheritedError> {
    check(number)?;
    // SAFETY: the number is open and was not opened by Rust's libraries, which set close-on-exec.
    // The parent of this process has given it to us, and says so by its number or by the
    // environment. `Inherited`, behind its lock, gives out each number once: later calls find it in
    // one of its lists, or close-on-exec.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC) {
        Ok(()) => Ok(descriptor),
        Err(_) => Err(InheritedError::NotOpen { number }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<ListenFds, InheritedError> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
        ListenFds::parse(42, find)
    }

    fn bad(variable: &'static str, value: &str) -> Result<ListenFds, InheritedError> {
        Err(InheritedError::BadNumber { variable, value: value.to_owned() })
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_variables_of_a_service_manager() {
        let pid = ("LISTEN_PID", "42");
        assert_eq!(parse(&[]), Err(InheritedError::NonePassed));
        assert_eq!(parse(&[("LISTEN_FDS", "1")]), Err(InheritedError::NonePassed));
        assert_eq!(parse(&[pid]), Err(InheritedError::NonePassed));
        assert_eq!(parse(&[("LISTEN_PID", "41"), ("LISTEN_FDS", "1")]), Err(InheritedError::OtherProcess { pid: 41 }));
        for absurd in ["", "-1", "+1", " 1", "1 ", "one", "99999999999999999999"] {
            assert_eq!(parse(&[pid, ("LISTEN_FDS", absurd)]), bad("LISTEN_FDS", absurd));
            assert_eq!(parse(&[("LISTEN_PID", absurd), ("LISTEN_FDS", "1")]), bad("LISTEN_PID", absurd));
        }
        let two = ("LISTEN_FDS", "2");
        assert_eq!(parse(&[pid, two]), Ok(ListenFds { count: 2, names: None }));
        let named = parse(&[pid, two, ("LISTEN_FDNAMES", "web:")]).unwrap();
        assert_eq!(named.names(), Some(&owned(&["web", ""])[..]));
        for (names, count) in [("web", 1), ("a:b:c", 3), ("", 1)] {
            let expected = InheritedError::NamesMismatch { names: count, count: 2 };
            assert_eq!(parse(&[pid, two, ("LISTEN_FDNAMES", names)]), Err(expected), "{names}");
        }
        let none = parse(&[pid, ("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")]).unwrap();
        assert!(none.is_empty() && none.names() == Some(&[]));
        assert_eq!(parse(&[pid, ("LISTEN_FDS", "2147483647")]).unwrap().len(), i32::MAX as usize - 3);
    }

    #[test]
    fn indices_and_names() {
        let passed = ListenFds { count: 3, names: Some(owned(&["web", "admin", "web"])) };
        assert_eq!(passed.numbers(&InheritedDescriptor::Index(2)), Ok(vec![5]));
        let beyond = InheritedError::NoSuchIndex { index: 3, count: 3 };
        assert_eq!(passed.numbers(&InheritedDescriptor::Index(3)), Err(beyond));
        assert_eq!(passed.numbers(&InheritedDescriptor::Name("web".to_owned())), Ok(vec![3, 5]));
        let unknown = InheritedError::NoSuchName { name: "w".to_owned(), known: owned(&["web", "admin", "web"]) };
        assert_eq!(passed.numbers(&InheritedDescriptor::Name("w".to_owned())), Err(unknown));
        let unnamed = ListenFds { count: 3, names: None };
        assert_eq!(unnamed.numbers(&InheritedDescriptor::Name("web".to_owned())), Err(InheritedError::NoNames));
    }

    /// A count beyond the open descriptors, a number of ours, a standard stream.
    #[test]
    fn numbers_that_were_not_inherited() {
        let mut inherited = Inherited { passed: None, free: BTreeMap::new(), taken: BTreeSet::new() };
        let absurd = ListenFds { count: i32::MAX as usize - 3, names: None };
        assert!(inherited.own_passed(absurd).is_err() && inherited.free.is_empty());
        let ours = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        let number = ours.as_raw_fd();
        let mut take = |number| inherited.take(&InheritedDescriptor::Number(number)).map(|_| ());
        assert_eq!(take(number), Err(InheritedError::NotInherited { number }));
        assert_eq!(take(1), Err(InheritedError::StandardStream { number: 1 }));
        for number in [-1, i32::MAX] {
            assert_eq!(take(number), Err(InheritedError::NotOpen { number }));
        }
    }

    /// An inherited descriptor is given out once, close-on-exec, and again if it comes back.
    #[test]
    fn a_number_is_taken_once() {
        let mut inherited = Inherited { passed: None, free: BTreeMap::new(), taken: BTreeSet::new() };
        let ours = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        rustix::io::fcntl_setfd(&ours, FdFlags::empty()).unwrap();
        let number = std::os::fd::IntoRawFd::into_raw_fd(ours);
        let wanted = InheritedDescriptor::Number(number);
        let taken = inherited.take(&wanted).unwrap();
        assert_eq!(taken.as_raw_fd(), number);
        assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(inherited.take(&wanted).map(|_| ()), Err(InheritedError::Taken { number }));
    }
}
