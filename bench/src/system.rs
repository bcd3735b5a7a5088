//! Queries of the operating system: cores, descriptors, CPU time and memory of a process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::results::Machine;

/// Core to which a process is pinned, among those allowed.
#[derive(Debug, Clone, Copy)]
pub enum Core {
    /// The first core.
    Server,
    /// The last core. It differs from the first unless only one is allowed.
    Load,
}

/// Pins this thread and the threads and processes that it starts.
///
/// # Errors
/// Returns the error of the system call.
pub fn pin(core: Core) -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let chosen = match core {
        Core::Server => cores.next(),
        Core::Load => cores.next_back(),
    };
    let mut set = CpuSet::new();
    set.set(chosen.ok_or("no core is allowed")?);
    Ok(sched_setaffinity(None, &set)?)
}

/// Asks the kernel to kill this process when the thread that started it ends, however it ends.
///
/// # Errors
/// Returns the error of the system call.
pub fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Raises the descriptor limit to the hard limit. Returns that limit.
///
/// # Errors
/// Returns the error of the system call.
pub fn raise_descriptor_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Returns the CPU time of all threads of a process in nanoseconds. Exact while the process sleeps.
///
/// # Errors
/// Fails if there is no such process.
pub fn cpu_time(process: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let ran = text.split_whitespace().next().ok_or("schedstat is empty")?;
        total += ran.parse::<u64>()?;
    }
    Ok(total)
}

/// Returns the bytes of private memory that a process has written to. Kernel memory of its sockets
/// is not included.
///
/// # Errors
/// Fails if there is no such process.
pub fn private_memory(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).ok_or("no line Private_Dirty")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

/// Returns the number of open descriptors of a process.
///
/// # Errors
/// Fails if there is no such process.
pub fn descriptors(process: u32) -> Result<u64> {
    Ok(fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd"))?.count() as u64)
}

/// Returns an address of the loopback network by its number, which begins at 0. No server listens
/// on these addresses.
pub fn loopback(number: u32, port: u64) -> SocketAddr {
    let [_, high, middle, low] = (number + (1 << 16) + 1).to_be_bytes();
    SocketAddr::from(([127, high, middle, low], port as u16))
}

/// Returns a description of this machine.
///
/// # Errors
/// Fails if the information cannot be read.
pub fn machine(versions: Vec<(String, String)>, descriptors: u64) -> Result<Machine> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    Ok(Machine { processor: processor()?, cores, kernel, date: today()?, descriptors, versions, ..Machine::default() })
}

/// Returns the model of the processor.
///
/// # Errors
/// Fails if the information cannot be read.
pub fn processor() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(model.map_or("unknown", |(_, model)| model).to_owned())
}

/// Returns the date in UTC.
///
/// # Errors
/// Fails if the clock is before 1970.
pub fn today() -> Result<String> {
    Ok(day(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400))
}

/// Time of all cores since boot, and the part of this process, in ticks of 10 ms.
#[derive(Debug, Clone, Copy)]
pub struct CoreTime {
    all: u64,
    busy: u64,
    own: u64,
}

impl CoreTime {
    /// Reads the times up to now.
    ///
    /// # Errors
    /// Fails if the information cannot be read.
    pub fn now() -> Result<Self> {
        let (system, own) = (fs::read_to_string("/proc/stat")?, fs::read_to_string("/proc/self/stat")?);
        // user, nice, system, idle, iowait, irq, softirq, steal; the later columns are contained in
        // these.
        let cores = numbers(system.lines().next().ok_or("stat is empty")?.split_whitespace().skip(1).take(8))?;
        let [_, _, _, idle, waiting, ..] = cores[..] else { return Err("stat has too few numbers".into()) };
        // After the name in parentheses: user and system time of the process, and of the children
        // that it has waited for.
        let (_, fields) = own.rsplit_once(") ").ok_or("stat has no name")?;
        let own = numbers(fields.split_whitespace().skip(11).take(4))?.iter().sum();
        let all = cores.iter().sum();
        Ok(Self { all, busy: all - idle - waiting, own })
    }

    /// Returns the fraction of the cores' time since `self` that others took. This process and its
    /// children that have ended since are excluded.
    ///
    /// # Errors
    /// Fails if the information cannot be read.
    pub fn taken_by_others(self) -> Result<f64> {
        let Self { all, busy, own } = Self::now()?;
        let others = (busy - self.busy).saturating_sub(own - self.own);
        Ok(others as f64 / (all - self.all).max(1) as f64)
    }
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<u64>> {
    words.map(|word| Ok(word.parse()?)).collect()
}

/// Formats the date `days` days after 1 January 1970, in the Gregorian calendar.
fn day(days: u64) -> String {
    // Years begin in March here, so that the leap day is the last day of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + u64::from(month < 3))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// The CPU time of this process does not count as that of others.
    #[test]
    fn own_time_is_not_that_of_others() {
        let (before, begun) = (CoreTime::now().unwrap(), Instant::now());
        while CoreTime::now().unwrap().own < before.own + 20 {
            assert!(begun.elapsed() < Duration::from_secs(60), "200 ms of work are counted");
        }
        let now = CoreTime::now().unwrap();
        assert!(now.busy - before.busy >= 15 && now.busy <= now.all);
        let (others, all) = (before.taken_by_others().unwrap(), (CoreTime::now().unwrap().all - before.all) as f64);
        assert!((0.0..=1.0 - 15.0 / all).contains(&others), "{others} of {all}");
    }

    /// Dates of leap years and of common years.
    #[test]
    fn days() {
        assert_eq!(
            [0, 11_016, 11_017, 19_782, 20_784].map(day),
            ["1970-01-01", "2000-02-29", "2000-03-01", "2024-02-29", "2026-11-27"]
        );
    }
}
