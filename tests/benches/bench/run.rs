//! The order of a run: takes turns between what is compared, so that what the machine does beside it falls on all alike.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    args::{Options, What},
    child,
    load::{Extent, Sample},
    platform::Platform,
    proc::{self, Machine},
    report::{self, Cell, Memory, Results},
    role::Role,
};

/// What is measured at every number of callers.
const CALLS: [What; 6] = [
    What::Raw,
    What::Bus,
    What::Http,
    What::Guarded,
    What::Rmcp,
    What::Bytes,
];
/// What is measured at one number of callers.
const OTHERS: [What; 3] = [What::List, What::ListBytes, What::Progress];
const OTHERS_CALLERS: usize = 16;
/// What is measured with as many callers as there are clients that never read.
const CROWDS: [What; 2] = [What::Crowd, What::BesideDeaf];
const CROWD_CALLERS: usize = 500;
/// How long a load runs before it is measured, in seconds.
const WARM_UP: f64 = 0.25;
/// How long a load may take beyond its time.
const SLACK: Duration = Duration::from_secs(60);
/// In how many steps `memory` makes its calls; the first one fills caches and pools.
const MEMORY_STEPS: u64 = 5;
const MEMORY_CALLERS: usize = 16;
/// The slowest that `memory` may be, in calls a second.
const MEMORY_FLOOR: u64 = 500;

#[expect(clippy::print_stdout, reason = "the table is what a benchmark is run for")]
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    ensure!(
        !options.callers.contains(&0) && options.rounds > 0 && options.seconds > 0.0,
        "--callers, --rounds and --seconds must be more than 0"
    );
    let machine = Machine::look()?;
    let platform = Platform::start(&options).await?;
    let measured = measure(&platform, &options).await;
    platform.stop().await;
    let mut results = measured?;
    results.others = Some(machine.taken_by_others()?);
    print!("{}", report::text(&results));
    if let Some(file) = &options.json {
        let json = serde_json::to_vec_pretty(&results)?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn measure(platform: &Platform, options: &Options) -> anyhow::Result<Results> {
    let mut results = Results::new(options);
    let mut groups: Vec<(usize, Vec<What>)> = options
        .callers
        .iter()
        .map(|callers| (*callers, CALLS.to_vec()))
        .collect();
    groups.push((OTHERS_CALLERS, OTHERS.to_vec()));
    groups.push((CROWD_CALLERS, CROWDS.to_vec()));
    for (callers, group) in groups {
        for round in 0..options.rounds {
            for what in group.iter().copied().filter(|what| options.wants(*what)) {
                say(&format!(
                    "round {} of {}: {what:?}, {callers} callers",
                    round + 1,
                    options.rounds
                ));
                let sample = timed(platform, what, callers, options.seconds).await?;
                results.add(Cell { what, callers }, sample);
            }
        }
    }
    if options.wants(What::Memory) {
        results.memory = Some(memory(platform, options.memory_calls).await?);
    }
    say("");
    Ok(results)
}

async fn timed(platform: &Platform, what: What, callers: usize, seconds: f64) -> anyhow::Result<Sample> {
    let extent = Extent::Seconds {
        warm_up: WARM_UP,
        measured: seconds,
    };
    let role = Role::Load(platform.order(what, callers, extent));
    child::finish(&role, Duration::from_secs_f64(WARM_UP + seconds) + SLACK).await
}

async fn memory(platform: &Platform, calls: u64) -> anyhow::Result<Memory> {
    let mut memory = Memory::default();
    let step = (calls / MEMORY_STEPS).max(1);
    memory.take(0, platform)?;
    for at in 1..=MEMORY_STEPS {
        say(&format!("memory: {} of {calls} calls", (at - 1) * step));
        let role = Role::Load(platform.order(What::Memory, MEMORY_CALLERS, Extent::Calls(step)));
        let limit = Duration::from_secs(step / MEMORY_FLOOR) + SLACK;
        let _: Sample = child::finish(&role, limit).await?;
        memory.take(at * step, platform)?;
    }
    Ok(memory)
}

impl Memory {
    fn take(&mut self, calls: u64, platform: &Platform) -> anyhow::Result<()> {
        let mut held = Vec::new();
        for (name, pid) in platform.pids() {
            held.push((name, proc::resident_bytes(pid)?));
        }
        self.add(calls, held);
        Ok(())
    }
}

/// Shows on a terminal how far the run is.
fn say(what: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[2K{what}");
        let _ = terminal.flush();
    }
}
