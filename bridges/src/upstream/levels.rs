//! From which level on a legacy server writes log lines: the most verbose that any call on its connection wants.
//!
//! A modern server is told with each request. A legacy one has one level for all that is said over a connection, so it is set for
//! whoever wants most, and each call gets only the lines that it asked for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus_schema::mcp::{meta, method};
use serde_json::value::RawValue;
use tokio::{sync::Mutex as AsyncMutex, time::timeout};
use tracing::debug;

use super::link::Link;

/// How long a call waits for the server to take its level.
const SET_LIMIT: Duration = Duration::from_secs(5);

/// The weight of a log line; a greater one is graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogLevel(usize);

impl LogLevel {
    const NAMES: [&str; 8] = [
        "debug",
        "info",
        "notice",
        "warning",
        "error",
        "critical",
        "alert",
        "emergency",
    ];

    pub(super) fn of(raw: &RawValue) -> Option<Self> {
        let name = meta::as_text(raw)?;
        Self::NAMES.iter().position(|known| *known == name).map(Self)
    }

    fn name(self) -> &'static str {
        Self::NAMES[self.0]
    }
}

/// The levels that the calls of one connection want.
#[derive(Default)]
pub(super) struct Levels {
    /// How many calls want each. Held only to count.
    wanted: Arc<Mutex<[u32; LogLevel::NAMES.len()]>>,
    /// What the server was told last. Held while it is told, so that it hears of one level after the other.
    told: AsyncMutex<Option<LogLevel>>,
    /// Whether the server lets its level be set.
    taken: AtomicBool,
    /// The server knows nothing any more of what it was told.
    forgotten: AtomicBool,
}

/// One call's wish; taken back when this is dropped.
pub(super) struct Wish {
    wanted: Arc<Mutex<[u32; LogLevel::NAMES.len()]>>,
    level: LogLevel,
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)[self.level.0] -= 1;
    }
}

impl Levels {
    /// The server says that it has log levels.
    pub(super) fn open(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    pub(super) fn are_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// Notes what a call wants, and tells the server if that changes what anybody needs.
    pub(super) async fn want(&self, link: &Arc<Link>, level: LogLevel) -> Wish {
        let wish = self.note(level);
        if timeout(SET_LIMIT, self.tell(link)).await.is_err() {
            debug!(server.id = %link.server, "the server does not say whether it has taken a log level");
        }
        wish
    }

    /// What the server was told is worth nothing any more.
    pub(super) fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    fn note(&self, level: LogLevel) -> Wish {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)[level.0] += 1;
        Wish {
            wanted: Arc::clone(&self.wanted),
            level,
        }
    }

    fn most_verbose(&self) -> Option<LogLevel> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().position(|calls| *calls > 0).map(LogLevel)
    }

    async fn tell(&self, link: &Arc<Link>) {
        let mut told = self.told.lock().await;
        if self.forgotten.swap(false, Ordering::Relaxed) {
            *told = None;
        }
        let needed = self.most_verbose();
        let Some(level) = needed.filter(|_| needed != *told) else {
            return;
        };
        // Said once, whether or not the answer is waited for.
        *told = needed;
        let params = serde_json::json!({ "level": level.name() });
        if let Err(error) = link.ask(method::SET_LEVEL, &params).await {
            debug!(%error, server.id = %link.server, "the server takes no log level");
            self.taken.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_verbose_wish_counts_for_as_long_as_it_is_held() {
        let levels = Levels::default();
        let level =
            |name: &str| LogLevel::of(&RawValue::from_string(format!("\"{name}\"")).unwrap()).unwrap();
        assert_eq!(levels.most_verbose(), None);
        let warning = levels.note(level("warning"));
        let debug = levels.note(level("debug"));
        let again = levels.note(level("debug"));
        assert_eq!(levels.most_verbose(), Some(level("debug")));
        drop(debug);
        assert_eq!(levels.most_verbose(), Some(level("debug")));
        drop(again);
        assert_eq!(levels.most_verbose(), Some(level("warning")));
        drop(warning);
        assert_eq!(levels.most_verbose(), None);
    }
}
