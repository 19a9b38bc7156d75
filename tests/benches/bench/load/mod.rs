//! Makes calls without a pause from many callers at once, and measures them and the processes that serve them.

mod bus;
mod deaf;
mod http;
mod raw;
mod window;

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::proc;
use window::Window;

pub(crate) use deaf::Deaf;
pub(crate) use http::post_once;
pub(crate) use raw::RAW_SUBJECT;

/// What to measure, and how.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// What is called.
    pub(crate) target: Target,
    /// How many calls are under way at once.
    pub(crate) callers: usize,
    /// Who is connected beside them.
    pub(crate) beside: Vec<Deaf>,
    /// For how long.
    pub(crate) extent: Extent,
    /// The processes that serve the calls, by name. The name of this one stands among them if it is not mere load.
    pub(crate) processes: BTreeMap<String, Option<u32>>,
}

/// What is called.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Target {
    /// Raw NATS.
    Raw {
        /// Where NATS is.
        nats: String,
        /// What is sent.
        request: String,
    },
    /// A tool on the bus.
    Bus {
        /// Where the bus is.
        nats: String,
    },
    /// Anything that takes a POST.
    Http {
        /// Where it is.
        address: String,
        /// The whole request.
        request: String,
        /// Whether the answer is a stream with notifications in order before the result.
        in_order: Option<u32>,
    },
}

/// How long a measurement goes on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Extent {
    /// For a time, after a time that is not measured.
    Seconds {
        /// What is not measured.
        warm_up: f64,
        /// What is.
        measured: f64,
    },
    /// For a number of calls.
    Calls(u64),
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// How many calls ended in time.
    pub(crate) calls: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The median latency in µs.
    pub(crate) p50_us: f64,
    /// The latency in µs that one of a hundred calls exceeds.
    pub(crate) p99_us: f64,
    /// User and system time of each process for each call, in µs.
    pub(crate) cpu_us: BTreeMap<String, f64>,
}

impl Sample {
    /// How many calls a second there were.
    #[expect(clippy::cast_precision_loss, reason = "no run makes 2^53 calls")]
    pub(crate) fn rate(&self) -> f64 {
        self.calls as f64 / self.seconds
    }

    /// User and system time of all processes for each call, in µs.
    pub(crate) fn total_us(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

/// Callers at work; each gives the latencies that it has measured, in nanoseconds.
type Callers = JoinSet<anyhow::Result<Vec<u64>>>;

pub(crate) async fn run(order: Order) -> anyhow::Result<()> {
    let window = Arc::new(match order.extent {
        Extent::Seconds { .. } => Window::shut(),
        Extent::Calls(calls) => Window::of_calls(calls),
    });
    let _deaf = deaf::connect(&order.beside).await?;
    let mut callers = match order.target {
        Target::Raw { nats, request } => raw::start(&window, order.callers, &nats, request).await?,
        Target::Bus { nats } => bus::start(&window, order.callers, &nats).await?,
        Target::Http {
            address,
            request,
            in_order,
        } => http::start(&window, order.callers, &address, &request, in_order).await?,
    };
    let (before, after) = match order.extent {
        Extent::Seconds { warm_up, measured } => {
            tokio::time::sleep(Duration::from_secs_f64(warm_up)).await;
            let before = Reading::take(&order.processes)?;
            window.open();
            tokio::time::sleep(Duration::from_secs_f64(measured)).await;
            window.close();
            (before, Reading::take(&order.processes)?)
        }
        Extent::Calls(_) => {
            let before = Reading::take(&order.processes)?;
            window.used_up().await;
            (before, Reading::take(&order.processes)?)
        }
    };
    let mut latencies = Vec::new();
    while let Some(ended) = callers.join_next().await {
        latencies.extend(ended??);
    }
    let sample = before.to(&after, latencies)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(&sample)?)?;
    Ok(output.flush()?)
}

/// The clock, and what each process has used so far.
struct Reading {
    at: Instant,
    cpu: BTreeMap<String, Duration>,
}

impl Reading {
    fn take(processes: &BTreeMap<String, Option<u32>>) -> anyhow::Result<Self> {
        let mut cpu = BTreeMap::new();
        for (name, pid) in processes {
            cpu.insert(
                name.clone(),
                proc::cpu_time(pid.unwrap_or_else(std::process::id))?,
            );
        }
        Ok(Self {
            at: Instant::now(),
            cpu,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "no run makes 2^53 calls")]
    fn to(&self, after: &Self, mut latencies: Vec<u64>) -> anyhow::Result<Sample> {
        latencies.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a length"
            )]
            let place = (latencies.len() as f64 * share) as usize;
            let nanos = latencies.get(place).copied();
            nanos
                .map(|nanos| nanos as f64 / 1e3)
                .context("not one call ended in time")
        };
        let per_call = |name: &String, used: &Duration| {
            let used = *used - self.cpu.get(name).copied().unwrap_or_default();
            used.as_secs_f64() * 1e6 / latencies.len() as f64
        };
        Ok(Sample {
            calls: latencies.len() as u64,
            seconds: (after.at - self.at).as_secs_f64(),
            p50_us: at(0.5)?,
            p99_us: at(0.99)?,
            cpu_us: after
                .cpu
                .iter()
                .map(|(name, used)| (name.clone(), per_call(name, used)))
                .collect(),
        })
    }
}
