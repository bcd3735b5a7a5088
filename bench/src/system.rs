//! What is asked of the system: cores, descriptors, and what a process has used.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::results::Machine;

/// Which of the cores that we may use a process is pinned to.
#[derive(Debug, Clone, Copy)]
pub enum Core {
    /// The first.
    Server,
    /// The last: another one, unless there is one only.
    Load,
}

/// Pins this thread, and whatever it starts.
///
/// # Errors
/// What the system says.
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

/// Has the system kill this process when the thread that started it ends, however that comes about.
///
/// # Errors
/// What the system says.
pub fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Raises the number of descriptors to the hard limit, and says how many that are.
///
/// # Errors
/// What the system says.
pub fn raise_descriptor_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Nanoseconds that all threads of a process have run. Exact while the process sleeps.
///
/// # Errors
/// There is no such process.
pub fn cpu_time(process: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let said = fs::read_to_string(task?.path().join("schedstat"))?;
        let ran = said.split_whitespace().next().ok_or("schedstat is empty")?;
        total += ran.parse::<u64>()?;
    }
    Ok(total)
}

/// Bytes of memory that are the process's own and were written to: what its sockets take in the kernel is not among them.
///
/// # Errors
/// There is no such process.
pub fn private_memory(process: u32) -> Result<u64> {
    let said = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = said.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).ok_or("no line Private_Dirty")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

/// How many descriptors a process has open.
///
/// # Errors
/// There is no such process.
pub fn descriptors(process: u32) -> Result<u64> {
    Ok(fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd"))?.count() as u64)
}

/// An address of the loopback network, by its number from 0 on. It is none that anybody listens at.
pub fn loopback(number: u32, port: u64) -> SocketAddr {
    let [_, high, middle, low] = (number + (1 << 16) + 1).to_be_bytes();
    SocketAddr::from(([127, high, middle, low], port as u16))
}

/// The machine that this runs on.
///
/// # Errors
/// The system does not say.
pub fn machine(versions: Vec<(String, String)>, descriptors: u64) -> Result<Machine> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    Ok(Machine { processor: processor()?, cores, kernel, date: today()?, descriptors, versions, ..Machine::default() })
}

/// The model of the processor.
///
/// # Errors
/// The system does not say.
pub fn processor() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(model.map_or("unknown", |(_, model)| model).to_owned())
}

/// The day, in UTC.
///
/// # Errors
/// The clock is before 1970.
pub fn today() -> Result<String> {
    Ok(day(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 86_400))
}

/// The time of all cores since the system began, and this process's part of it, in ticks of 10 ms.
#[derive(Debug, Clone, Copy)]
pub struct CoreTime {
    all: u64,
    busy: u64,
    own: u64,
}

impl CoreTime {
    /// Until now.
    ///
    /// # Errors
    /// The system does not say.
    pub fn now() -> Result<Self> {
        let (system, own) = (fs::read_to_string("/proc/stat")?, fs::read_to_string("/proc/self/stat")?);
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in these.
        let cores = numbers(system.lines().next().ok_or("stat is empty")?.split_whitespace().skip(1).take(8))?;
        let [_, _, _, idle, waiting, ..] = cores[..] else { return Err("stat has too few numbers".into()) };
        // Behind the name in parentheses: of the process and of the children that it has waited for, in user space and in the kernel.
        let (_, fields) = own.rsplit_once(") ").ok_or("stat has no name")?;
        let own = numbers(fields.split_whitespace().skip(11).take(4))?.iter().sum();
        let all = cores.iter().sum();
        Ok(Self { all, busy: all - idle - waiting, own })
    }

    /// The part of the cores' time since then that others took: not this process, nor children that have ended since.
    ///
    /// # Errors
    /// The system does not say.
    pub fn taken_by_others(self) -> Result<f64> {
        let Self { all, busy, own } = Self::now()?;
        let others = (busy - self.busy).saturating_sub(own - self.own);
        Ok(others as f64 / (all - self.all).max(1) as f64)
    }
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<u64>> {
    words.map(|word| Ok(word.parse()?)).collect()
}

/// The day so many days after 1 January 1970, in the Gregorian calendar.
fn day(days: u64) -> String {
    // Years begin in March here, so that the day that comes in leap years is their last.
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

    /// This process's own time is not counted as that of others.
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

    /// Days of leap years, and of those that are none.
    #[test]
    fn days() {
        assert_eq!(
            [0, 11_016, 11_017, 19_782, 20_784].map(day),
            ["1970-01-01", "2000-02-29", "2000-03-01", "2024-02-29", "2026-11-27"]
        );
    }
}
