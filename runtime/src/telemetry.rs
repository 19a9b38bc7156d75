//! Meters and logs of one process.
//!
//! Meters carry the names of the OpenTelemetry semantic conventions for MCP
//! (<https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/>) and are read in the Prometheus text format.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::IsTerminal as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{Token, audit::Kind, principal::DEFAULT_TENANT};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::watch::Described;

/// The bounds that the semantic conventions recommend, in seconds.
const DURATION_BOUNDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
];
/// What is logged when nobody says otherwise. rmcp tells of every request and whole messages at `info`.
const DEFAULT_FILTER: &str = "info,rmcp=warn,async_nats=warn,sqlx=warn,ractor=warn";

/// How a call ended at its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With an answer, which may be an error.
    Answered,
    /// Its caller did not wait any more.
    Cancelled,
}

/// A server as meters name it.
#[derive(Clone, Copy, Debug)]
pub struct Metered<'a> {
    /// Whose it is. Meters name every tenant but `default`.
    pub tenant: &'a str,
    /// Its id.
    pub server: &'a str,
}

impl<'a> Metered<'a> {
    fn labels(self) -> Vec<KeyValue> {
        // Room for what is said beside it of a call.
        let mut labels = Vec::with_capacity(6);
        labels.push(KeyValue::new("server.id", self.server.to_owned()));
        if self.tenant != DEFAULT_TENANT {
            labels.push(KeyValue::new("tenant", self.tenant.to_owned()));
        }
        labels
    }

    fn labels_with(self, more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        let mut labels = self.labels();
        labels.extend(more);
        labels
    }

    /// What no other server has; no tenant's token has a `/`.
    fn key(self) -> Cow<'a, str> {
        match self.tenant {
            DEFAULT_TENANT => Cow::Borrowed(self.server),
            tenant => Cow::Owned(format!("{}/{}", Token::encode(tenant), self.server)),
        }
    }
}

/// What is measured of a call at its end.
pub(crate) struct CallEnd<'a> {
    pub(crate) server: Metered<'a>,
    pub(crate) described: &'a Described,
    pub(crate) duration: Duration,
    pub(crate) ended: Ended,
    pub(crate) code: Option<i64>,
}

/// What one server's calls add up to, for the services protocol.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) busy: u64,
    pub(crate) busy_time_ns: u64,
}

#[derive(Default)]
struct LiveTotals {
    /// How meters name the server.
    labels: Vec<KeyValue>,
    in_flight: AtomicU64,
    calls: AtomicU64,
    errors: AtomicU64,
    busy: AtomicU64,
    busy_time_ns: AtomicU64,
}

/// What each server's calls add up to, by [`Metered::key`].
type AllTotals = Arc<Mutex<HashMap<String, Arc<LiveTotals>>>>;

/// The meters of one process.
#[derive(Clone)]
pub struct Metrics(Arc<Meters>);

struct Meters {
    registry: Registry,
    /// Keeps the meters alive; dropping it would end them.
    _provider: SdkMeterProvider,
    server_duration: Histogram<f64>,
    client_duration: Histogram<f64>,
    busy: Counter<u64>,
    refused: Counter<u64>,
    kept_away: Counter<u64>,
    restarts: Counter<u64>,
    deprecated: Counter<u64>,
    by_version: Counter<u64>,
    mirrored: Counter<u64>,
    limited: Counter<u64>,
    guardrails: Counter<u64>,
    audited: Counter<u64>,
    audit_lost: Counter<u64>,
    /// Held only to look up or insert.
    totals: AllTotals,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .build()
            .expect("a fresh registry takes the exporter");
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("trunkline");
        let seconds = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build()
        };
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        let totals = AllTotals::default();
        observe_in_flight(&meter, &totals);
        Self(Arc::new(Meters {
            server_duration: seconds("mcp.server.operation.duration", "How long hosts worked on calls"),
            client_duration: seconds("mcp.client.operation.duration", "How long doors waited for calls"),
            busy: counter(
                "trunkline.calls.busy",
                "Calls answered busy, as all slots were taken",
            ),
            refused: counter(
                "trunkline.calls.refused",
                "Requests refused for a reply subject that is no caller's inbox",
            ),
            kept_away: counter(
                "trunkline.calls.circuit_open",
                "Calls kept from a server, as those before them failed",
            ),
            restarts: counter(
                "trunkline.part.restarts",
                "Restarts of servers and bridges after a failure",
            ),
            deprecated: counter(
                "trunkline.tools.deprecated_calls",
                "Calls to tools that are marked as deprecated",
            ),
            by_version: counter(
                "trunkline.calls.by_version",
                "Calls to servers whose versions have shares",
            ),
            mirrored: counter(
                "trunkline.calls.mirrored",
                "Copies of calls that went to a version on trial",
            ),
            limited: counter("trunkline.limits.calls", "Calls that limits have counted"),
            guardrails: counter("trunkline.guardrails", "What guardrails have come to"),
            audited: counter("trunkline.audit.refusals", "Refusals, of which there is a record"),
            audit_lost: counter("trunkline.audit.lost", "Records that were lost"),
            totals,
            registry,
            _provider: provider,
        }))
    }

    /// Writes all meters in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.registry.gather(), &mut text) {
            tracing::warn!(%error, "could not write the meters");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Counts what a door waited for one call.
    pub fn asked(
        &self,
        server: Metered<'_>,
        method: &str,
        door: &'static str,
        duration: Duration,
        error: Option<i64>,
    ) {
        let mut attributes = server.labels_with([
            KeyValue::new("mcp.method.name", method.to_owned()),
            KeyValue::new("door", door),
        ]);
        attributes.extend(error.map(|code| KeyValue::new("error.type", code.to_string())));
        self.0.client_duration.record(duration.as_secs_f64(), &attributes);
    }

    /// Counts a restart of a supervised part.
    pub fn restarted(&self, part: &str) {
        self.0.restarts.add(1, &[KeyValue::new("part", part.to_owned())]);
    }

    pub(crate) fn deprecated(&self, server: Metered<'_>, tool: &str) {
        let attributes = server.labels_with([KeyValue::new("gen_ai.tool.name", tool.to_owned())]);
        self.0.deprecated.add(1, &attributes);
    }

    /// A call has ended that was for one version of a server.
    pub(crate) fn called_version(&self, server: Metered<'_>, version: &str, went: &'static str) {
        self.0.by_version.add(1, &of_version(server, version, went));
    }

    /// A copy of a call has ended, or was not made.
    pub(crate) fn mirrored(&self, server: Metered<'_>, version: &str, went: &'static str) {
        self.0.mirrored.add(1, &of_version(server, version, went));
    }

    /// A limit has counted a call. `went` says whether it was allowed.
    pub(crate) fn limited(&self, limit: &str, went: &'static str) {
        let attributes = [
            KeyValue::new("limit", limit.to_owned()),
            KeyValue::new("went", went),
        ];
        self.0.limited.add(1, &attributes);
    }

    /// A guardrail has found something, has refused a call, or its hook has answered.
    pub(crate) fn guardrail(&self, step: &str, went: &'static str) {
        let attributes = [
            KeyValue::new("step", step.to_owned()),
            KeyValue::new("went", went),
        ];
        self.0.guardrails.add(1, &attributes);
    }

    /// Something was refused, and is put on record.
    pub(crate) fn audited(&self, kind: Kind) {
        self.0.audited.add(1, &[KeyValue::new("kind", kind.as_str())]);
    }

    pub(crate) fn audit_lost(&self, records: u64) {
        self.0.audit_lost.add(records, &[]);
    }

    pub(crate) fn handled(&self, end: &CallEnd<'_>) {
        let mut attributes = end.server.labels_with([
            KeyValue::new("mcp.method.name", end.described.method.clone()),
            KeyValue::new("mcp.protocol.version", end.described.protocol_version.clone()),
        ]);
        // Resource URIs are without number; tools and prompts are few.
        // A name that no tool has comes back as wrong parameters, and is anybody's invention.
        let known = end.code != Some(bus_schema::mcp::error::INVALID_PARAMS);
        if known && end.described.method == bus_schema::mcp::method::TOOLS_CALL {
            attributes.extend(
                end.described
                    .name
                    .clone()
                    .map(|name| KeyValue::new("gen_ai.tool.name", name)),
            );
        }
        let error = match end.ended {
            Ended::Answered => end.code.map(|code| code.to_string()),
            Ended::Cancelled => Some("cancelled".to_owned()),
        };
        let failed = error.is_some();
        attributes.extend(error.map(|kind| KeyValue::new("error.type", kind)));
        self.0
            .server_duration
            .record(end.duration.as_secs_f64(), &attributes);
        let totals = self.live_totals(end.server);
        totals.calls.fetch_add(1, Ordering::Relaxed);
        totals.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        let nanos = u64::try_from(end.duration.as_nanos()).unwrap_or(u64::MAX);
        totals.busy_time_ns.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Counts a call as running until the guard is dropped.
    pub(crate) fn in_flight(&self, server: Metered<'_>) -> InFlight {
        let totals = self.live_totals(server);
        totals.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(totals)
    }

    pub(crate) fn busy(&self, server: Metered<'_>) {
        self.0.busy.add(1, &server.labels());
        self.live_totals(server).busy.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, server: Metered<'_>) {
        self.0.refused.add(1, &server.labels());
    }

    /// Counts a call that was kept from a server. `went` says where it went instead.
    pub(crate) fn kept_away(&self, server: Metered<'_>, went: &'static str) {
        let attributes = server.labels_with([KeyValue::new("went", went)]);
        self.0.kept_away.add(1, &attributes);
    }

    pub(crate) fn totals(&self, server: Metered<'_>) -> Totals {
        let live = self.live_totals(server);
        Totals {
            calls: live.calls.load(Ordering::Relaxed),
            errors: live.errors.load(Ordering::Relaxed),
            busy: live.busy.load(Ordering::Relaxed),
            busy_time_ns: live.busy_time_ns.load(Ordering::Relaxed),
        }
    }

    fn live_totals(&self, server: Metered<'_>) -> Arc<LiveTotals> {
        let key = server.key();
        let mut totals = self.0.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = totals.get(&*key) {
            return Arc::clone(found);
        }
        let new = LiveTotals {
            labels: server.labels(),
            ..LiveTotals::default()
        };
        Arc::clone(totals.entry(key.into_owned()).or_insert(Arc::new(new)))
    }
}

/// Counts a call as running for as long as it lives.
pub(crate) struct InFlight(Arc<LiveTotals>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// What speaks to the broker: at its most talkative it tells of each message with all that is in it, arguments and links of users too. That
/// is told only when somebody names it.
const BUS_LIBRARY: &str = "async_nats";

/// Starts logging to standard error. `filter` is in the syntax of `tracing_subscriber::EnvFilter`, such as `debug` or `info,runtime=debug`.
///
/// # Errors
/// A text that says what is wrong with the filter.
pub fn start_logging(filter: Option<&str>, format: LogFormat) -> Result<(), String> {
    let filter = filter.unwrap_or(DEFAULT_FILTER);
    let names_bus = filter.contains(BUS_LIBRARY);
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter `{filter}`: {error}"))?;
    // Where nothing is so talkative, nothing has to be looked at.
    let looks = !names_bus && filter.max_level_hint() == Some(LevelFilter::TRACE);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(looks.then(|| filter_fn(holds_no_message)));
    let started = match format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
            registry
                .with(layer.with_ansi(std::io::stderr().is_terminal()))
                .try_init()
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .try_init(),
    };
    started.map_err(|error| error.to_string())
}

fn holds_no_message(about: &Metadata<'_>) -> bool {
    *about.level() != Level::TRACE || !about.target().starts_with(BUS_LIBRARY)
}

/// Read when somebody asks: two counts a call would cost more than all the other meters.
fn observe_in_flight(meter: &Meter, totals: &AllTotals) {
    let totals = Arc::clone(totals);
    meter
        .u64_observable_gauge("trunkline.calls.in_flight")
        .with_description("Calls that hosts work on")
        .with_callback(move |observer| {
            for totals in totals.lock().unwrap_or_else(PoisonError::into_inner).values() {
                observer.observe(totals.in_flight.load(Ordering::Relaxed), &totals.labels);
            }
        })
        .build();
}

fn of_version(server: Metered<'_>, version: &str, went: &'static str) -> Vec<KeyValue> {
    server.labels_with([
        KeyValue::new("server.version", version.to_owned()),
        KeyValue::new("went", went),
    ])
}
