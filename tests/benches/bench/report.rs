//! What a run has measured, and how it is shown.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use serde::Serialize;

use crate::{
    args::{Options, What},
    load::Sample,
    messages::{CALL_BYTES, NOTIFICATIONS},
    role::TOOLS,
};

/// What a call through the bridge may cost, in terms of bare axum and raw NATS together.
const CALL_AIM: f64 = 1.4;
/// What the checks of a call may cost, in microseconds of CPU.
const GUARD_AIM: u32 = 10;
/// What a list may cost, in terms of bare axum.
const LIST_AIM: f64 = 2.0;
const MIB: f64 = 1024.0 * 1024.0;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) what: What,
    pub(crate) callers: usize,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    seconds: f64,
    rounds: u32,
    threads: Option<usize>,
    endpoint: String,
    cells: Vec<(What, usize, Vec<Sample>)>,
    pub(crate) memory: Option<Memory>,
    /// How much of the machine's processors other programs took during the run, from 0 to 1.
    pub(crate) others: Option<f64>,
}

/// What each process holds after so many calls.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Memory {
    calls: Vec<u64>,
    bytes: BTreeMap<&'static str, Vec<u64>>,
}

impl Memory {
    pub(crate) fn add(&mut self, calls: u64, held: Vec<(&'static str, u64)>) {
        self.calls.push(calls);
        for (name, bytes) in held {
            self.bytes.entry(name).or_default().push(bytes);
        }
    }
}

impl Results {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            seconds: options.seconds,
            rounds: options.rounds,
            threads: options.threads,
            endpoint: format!("{:?}", options.endpoint).to_lowercase(),
            cells: Vec::new(),
            memory: None,
            others: None,
        }
    }

    pub(crate) fn add(&mut self, cell: Cell, sample: Sample) {
        let known = self
            .cells
            .iter_mut()
            .find(|(what, callers, _)| *what == cell.what && *callers == cell.callers);
        match known {
            Some((_, _, samples)) => samples.push(sample),
            None => self.cells.push((cell.what, cell.callers, vec![sample])),
        }
    }

    /// The median over the rounds of the p99 beside clients that never read, in terms of that without them.
    fn p99_beside_the_deaf(&self) -> Option<f64> {
        let of = |what| self.cells.iter().find(|(measured, _, _)| *measured == what);
        let ((_, _, alone), (_, _, beside)) = (of(What::Crowd)?, of(What::BesideDeaf)?);
        median(
            beside
                .iter()
                .zip(alone)
                .map(|(beside, alone)| beside.p99_us / alone.p99_us),
        )
    }

    fn samples(&self, what: What, callers: usize) -> &[Sample] {
        let found = self.cells.iter().find(|(w, c, _)| *w == what && *c == callers);
        found.map_or(&[], |(_, _, samples)| samples)
    }

    /// The median over the rounds of what a round makes of its samples; `None` when one of them was not measured.
    fn median_over<const N: usize>(
        &self,
        whats: [What; N],
        callers: usize,
        of: impl Fn([f64; N]) -> f64,
    ) -> Option<f64> {
        let samples = whats.map(|what| self.samples(what, callers));
        let rounds = samples.iter().map(|samples| samples.len()).min()?;
        let values = (0..rounds).map(|round| of(samples.map(|samples| samples[round].total_us())));
        median(values)
    }
}

/// Everything as text.
pub(crate) fn text(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, results);
    out
}

fn write_all(out: &mut String, results: &Results) -> fmt::Result {
    writeln!(
        out,
        "A call of {CALL_BYTES} bytes, modern era, keep-alive, loopback; medians of {} rounds of {} s, taken in turns.",
        results.rounds, results.seconds
    )?;
    writeln!(
        out,
        "CPU is user and system time in µs for each call; the load generator is left out.\n"
    )?;
    writeln!(
        out,
        "{:>7}  {:<34} {:>9} {:>9} {:>9} {:>9}   CPU of each process",
        "callers", "what", "calls/s", "p50 µs", "p99 µs", "CPU µs"
    )?;
    let mut last = 0;
    for (what, callers, samples) in &results.cells {
        if std::mem::replace(&mut last, *callers) != *callers && last != 0 {
            writeln!(out)?;
        }
        write_row(out, *what, *callers, samples)?;
    }
    writeln!(out)?;
    write_ratios(out, results)?;
    if let Some(memory) = &results.memory {
        write_memory(out, memory)?;
    }
    if let Some(others) = results.others {
        writeln!(
            out,
            "\nOther programs took {:.0} % of the machine during this run.",
            others * 100.0
        )?;
    }
    Ok(())
}

fn write_row(out: &mut String, what: What, callers: usize, samples: &[Sample]) -> fmt::Result {
    let of = |pick: fn(&Sample) -> f64| median(samples.iter().map(pick)).unwrap_or_default();
    write!(
        out,
        "{callers:>7}  {:<34} {:>9.0} {:>9.0} {:>9.0} {:>9.1}  ",
        name(what),
        of(Sample::rate),
        of(|sample| sample.p50_us),
        of(|sample| sample.p99_us),
        of(Sample::total_us)
    )?;
    for process in samples
        .first()
        .into_iter()
        .flat_map(|sample| sample.cpu_us.keys())
    {
        let values = samples
            .iter()
            .filter_map(|sample| sample.cpu_us.get(process).copied());
        write!(out, " {process} {:.1}", median(values).unwrap_or_default())?;
    }
    writeln!(out)
}

fn name(what: What) -> String {
    match what {
        What::Raw => "raw NATS".to_owned(),
        What::Bus => "tool on the bus".to_owned(),
        What::Http => "tool through the HTTP bridge".to_owned(),
        What::Guarded => "the same with key, limit and policy".to_owned(),
        What::Rmcp => "same rmcp handler, bare axum".to_owned(),
        What::Bytes => "same bytes, bare axum".to_owned(),
        What::List => format!("list of {TOOLS} tools, HTTP bridge"),
        What::ListBytes => "same list's bytes, bare axum".to_owned(),
        What::Progress => format!("{NOTIFICATIONS} notifications, HTTP bridge"),
        What::Crowd => "tool through the HTTP bridge".to_owned(),
        What::BesideDeaf => "the same beside 500 that never read".to_owned(),
        What::Memory => "memory".to_owned(),
    }
}

fn write_ratios(out: &mut String, results: &Results) -> fmt::Result {
    let mut callers: Vec<usize> = results.cells.iter().map(|(_, callers, _)| *callers).collect();
    callers.sort_unstable();
    callers.dedup();
    for callers in callers {
        let more = |[with, without]: [f64; 2]| with - without;
        if let Some(cost) = results.median_over([What::Guarded, What::Http], callers, more) {
            writeln!(
                out,
                "Key, limit and policy together cost {cost:.1} µs of CPU a call at {callers} callers (aim: at most {GUARD_AIM})."
            )?;
        }
        let floor = |[bridge, bytes, raw]: [f64; 3]| bridge / (bytes + raw);
        if let Some(ratio) = results.median_over([What::Http, What::Bytes, What::Raw], callers, floor) {
            let aim = if callers >= 16 {
                format!(" (aim: at most {CALL_AIM})")
            } else {
                String::new()
            };
            writeln!(
                out,
                "A call through the bridge costs {ratio:.2} of bare axum and raw NATS together at {callers} callers{aim}."
            )?;
        }
        if let Some(ratio) = results.median_over([What::Bus, What::Raw], callers, |[bus, raw]| bus / raw) {
            writeln!(
                out,
                "A call on the bus costs {ratio:.2} of raw NATS at {callers} callers."
            )?;
        }
        if let Some(ratio) =
            results.median_over([What::List, What::ListBytes], callers, |[list, bare]| list / bare)
        {
            writeln!(
                out,
                "A list of {TOOLS} tools costs {ratio:.2} of bare axum (aim: at most {LIST_AIM})."
            )?;
        }
    }
    if let Some(ratio) = results.p99_beside_the_deaf() {
        writeln!(
            out,
            "Beside 500 clients that never read, the p99 of 500 that do is {ratio:.2} of what it is without them."
        )?;
    }
    if results.cells.iter().any(|(what, _, _)| *what == What::Progress) {
        writeln!(
            out,
            "All {NOTIFICATIONS} notifications came in order before each result."
        )?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "no process holds 2^53 bytes")]
fn write_memory(out: &mut String, memory: &Memory) -> fmt::Result {
    write!(out, "\nResident memory in MiB\n{:<14}", "after calls")?;
    for calls in &memory.calls {
        write!(out, "{calls:>10}")?;
    }
    writeln!(out, "{:>34}", "growth after the first fifth")?;
    for (process, held) in &memory.bytes {
        write!(out, "{process:<14}")?;
        for bytes in held {
            write!(out, "{:>10.1}", *bytes as f64 / MIB)?;
        }
        if let (Some(first), Some(last)) = (held.get(1), held.last()) {
            let grown = *last as f64 - *first as f64;
            let calls = memory.calls.last().unwrap_or(&0) - memory.calls.get(1).unwrap_or(&0);
            write!(
                out,
                "{:>17.2} MiB, {:.2} B a call",
                grown / MIB,
                grown / (calls.max(1) as f64)
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], upper)
    } else {
        upper
    })
}
