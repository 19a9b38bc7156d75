//! Finds processes by a mark in their environment, which everything that they start inherits.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long a killed process may take until the system has cleared it away.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// A word that no other process has in its environment.
pub struct Mark(String);

impl Default for Mark {
    fn default() -> Self {
        Self::new()
    }
}

impl Mark {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(format!("mark-{}-{count}", std::process::id()))
    }

    /// The word to put into a variable of any name.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.0
    }

    /// The command lines of the processes that carry it, with their ids.
    #[must_use]
    pub fn processes(&self) -> Vec<(u32, String)> {
        with_environment(&self.0)
    }

    /// Waits for the system to clear away those that were killed just now.
    ///
    /// # Panics
    /// When one goes on.
    pub async fn expect_gone(&self) {
        expect_none_with_environment(&self.0).await;
    }
}

/// Waits for the system to clear away processes that were killed just now, by the value of a variable.
///
/// # Panics
/// When one goes on.
pub async fn expect_none_with_environment(value: &str) {
    let limit = Instant::now() + GONE_WITHIN;
    loop {
        let left = with_environment(value);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < limit, "still there: {left:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that have a text as the value of a variable. A process that has ended and was not waited for has none.
///
/// # Panics
/// When there is no `/proc`.
#[must_use]
pub fn with_environment(value: &str) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("a system that shows its processes in /proc");
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // It may end while it is looked at.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let carries = |pair: &[u8]| pair.split(|byte| *byte == b'=').nth(1) == Some(value.as_bytes());
        if environment.split(|byte| *byte == 0).any(carries) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((id, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}
