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
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name stands in brackets, and may hold anything.
    let after = stat.rsplit_once(')').context("stat has a name in brackets")?.1;
    let fields: Vec<u32> = after
        .split_whitespace()
        .map(|f| f.parse().unwrap_or_default())
        .collect();
    let ticks = fields.get(11).copied().unwrap_or_default() + fields.get(12).copied().unwrap_or_default();
    Ok(TICK * ticks)
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone, or this system has no /proc"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("status tells the resident memory")? * 1024)
}
