//! What the kernel says of a process: how long it has run on a processor, and how much memory it holds.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// A tick of `/proc/<pid>/stat`; the kernel shows a hundred a second whatever it counts by itself.
const TICK: Duration = Duration::from_millis(10);

/// The user and system time of a process so far, over all threads that live.
///
/// `schedstat` counts in nanoseconds; where the kernel has none, `stat` counts in ticks.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .with_context(|| format!("process {pid} is gone, or this system has no /proc"))?;
    for task in tasks.flatten() {
        // A thread may have ended in between.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            return ticks(pid);
        };
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        total += Duration::from_nanos(nanos.context("schedstat begins with a number")?);
    }
    if total.is_zero() {
        return ticks(pid);
    }
    Ok(total)
}

fn ticks(pid: u32) -> anyhow::Result<Duration> {
    let [user, system, ..] = times(&pid.to_string())?;
    Ok(TICK * (user + system))
}

/// User and system time of a process, and of those children of it that have ended, in ticks.
fn times(pid: &str) -> anyhow::Result<[u32; 4]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name stands in brackets, and may hold anything.
    let after = stat.rsplit_once(')').context("stat has a name in brackets")?.1;
    let mut fields = after
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse().unwrap_or_default());
    Ok(std::array::from_fn(|_| fields.next().unwrap_or_default()))
}

/// The whole machine at a moment, to tell later what others did.
pub(crate) struct Machine {
    busy: u64,
    all: u64,
}

impl Machine {
    /// Looks at the machine.
    pub(crate) fn look() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|f| f.parse().ok())
            .collect();
        let all = ticks.iter().sum::<u64>();
        // The fourth and the fifth count the time in which there was nothing to do.
        let idle = ticks.iter().skip(3).take(2).sum::<u64>();
        Ok(Self {
            busy: all - idle,
            all,
        })
    }

    /// The share of the machine that others have taken since, once every process that this one started has ended.
    #[expect(clippy::cast_precision_loss, reason = "no run lasts 2^53 ticks")]
    pub(crate) fn taken_by_others(&self) -> anyhow::Result<f64> {
        let now = Self::look()?;
        let own: u32 = times("self")?.iter().sum();
        let others = (now.busy - self.busy).saturating_sub(u64::from(own));
        Ok(others as f64 / (now.all - self.all).max(1) as f64)
    }
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone, or this system has no /proc"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("status tells the resident memory")? * 1024)
}
