//! What the platform must know of a child process to run it, and the time limits that hold for every one.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use bus_schema::ServerId;

use crate::secrets::Source;

use bus_schema::task::TaskKnob;
pub use bus_schema::upstream::{BreakerKnob, EraKnob, RetryKnob};

/// A server that is a command line. Not `Debug`, as `env` may hold secrets.
#[derive(Clone)]
pub struct ChildOptions {
    /// Its id on the bus.
    pub id: ServerId,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What is added to the environment that the platform itself runs in.
    pub env: BTreeMap<String, String>,
    /// What is added beside, and secret. A child whose secrets have changed is started again.
    pub secret_env: BTreeMap<String, Source>,
    /// Where it runs; the platform's own folder if absent.
    pub cwd: Option<PathBuf>,
    /// The era that it speaks.
    pub era: EraKnob,
    /// Labels to find it by.
    pub tags: Vec<String>,
    /// How many calls run at once; beyond, callers hear "busy".
    pub max_in_flight: u32,
    /// The longest that calls of single tools may take, by their names.
    pub tool_timeouts: HashMap<String, Duration>,
    /// The longest that any call may take.
    pub call_timeout: Option<Duration>,
    /// When calls are stopped because they keep failing.
    pub breaker: BreakerKnob,
    /// How often calls are made that were lost.
    pub retry: RetryKnob,
    /// Which of its calls become tasks of the platform.
    pub tasks: TaskKnob,
    /// For callers that it may ask for input.
    pub asking: AskingOptions,
}

/// What holds for callers that a legacy server may ask for input: each has connections of its own, and so processes or sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskingOptions {
    /// How long a call waits for the input that its caller was asked for.
    pub input_ttl: Duration,
    /// How many such connections a server may have, beside the one that all others share.
    pub max_children: usize,
    /// How long one stays open that nobody uses.
    pub idle: Duration,
}

impl Default for AskingOptions {
    fn default() -> Self {
        Self {
            input_ttl: Duration::from_secs(600),
            max_children: 8,
            idle: Duration::from_secs(300),
        }
    }
}

/// How many of them one caller may have.
const MAX_PER_CALLER: usize = 4;

/// How many lanes there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneLimits {
    pub(super) total: usize,
    pub(super) per_key: usize,
    pub(super) idle: Duration,
}

impl From<AskingOptions> for LaneLimits {
    fn from(options: AskingOptions) -> Self {
        Self {
            total: options.max_children,
            per_key: options.max_children.min(MAX_PER_CALLER),
            idle: options.idle,
        }
    }
}

/// How long a child may take over what only it can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From its start to the end of the handshake; `npx` may have to fetch a package first.
    pub(super) handshake: Duration,
    /// For an answer to the modern question, before the legacy one is put.
    pub(super) probe: Duration,
    /// For room in the queue towards its stdin.
    pub(super) unread: Duration,
    /// For its end once its stdin is closed.
    pub(super) end: Duration,
    /// For its end once it has got SIGTERM.
    pub(super) terminate: Duration,
}

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
const PROBE_LIMIT: Duration = Duration::from_secs(3);
const UNREAD_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(2);
const TERMINATE_LIMIT: Duration = Duration::from_secs(3);

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE_LIMIT,
            probe: PROBE_LIMIT,
            unread: UNREAD_LIMIT,
            end: END_LIMIT,
            terminate: TERMINATE_LIMIT,
        }
    }
}
