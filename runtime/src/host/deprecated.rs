//! Tools that go: an older form stands beside its successor for a while, says so, and its calls are counted.
//!
//! A server marks such a tool with the `_meta` key `io.trunkline/deprecated`, whose value is an object with any of `since` (the version
//! from which on it is deprecated), `use` (the tool to call instead) and `removed` (the version or date by which it goes), or just
//! `true`. The host makes a sentence of that, which the tool's description then begins with. Each call to it counts as
//! `trunkline.tools.deprecated_calls`, and the log names the tool once a minute at most.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

/// The `_meta` key of the mark.
pub(crate) const KEY: &str = "io.trunkline/deprecated";
/// How often the log names the same tool.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// What a mark says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mark {
    since: Option<String>,
    #[serde(rename = "use")]
    instead: Option<String>,
    removed: Option<String>,
}

/// Reads the mark in a tool's `_meta`, if there is one.
pub(super) fn mark(meta: &RawValue) -> Option<Mark> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow, default, rename = "io.trunkline/deprecated")]
        mark: Option<&'a RawValue>,
    }
    let mark = serde_json::from_str::<Peek<'_>>(meta.get()).ok()?.mark?;
    match mark.get() {
        "false" | "null" => None,
        // A mark with words that cannot be used is a mark all the same.
        text => Some(serde_json::from_str(text).unwrap_or_default()),
    }
}

/// Whether a tool is marked.
pub(crate) fn is_marked(tool: &Value) -> bool {
    let mark = tool.get("_meta").and_then(|meta| meta.get(KEY));
    mark.is_some_and(|mark| !matches!(mark, Value::Null | Value::Bool(false)))
}

impl Mark {
    /// The sentence that a description begins with.
    pub(super) fn sentence(&self) -> String {
        let mut sentence = "Deprecated".to_owned();
        if let Some(since) = &self.since {
            sentence += &format!(" since {since}");
        }
        if let Some(instead) = &self.instead {
            sentence += &format!(": use `{instead}` instead");
        }
        sentence.push('.');
        if let Some(removed) = &self.removed {
            sentence += &format!(" It is to be removed by {removed}.");
        }
        sentence
    }
}

/// When the log named each tool last, and how many calls have come since. Tools that are not marked are never here.
#[derive(Default)]
pub(super) struct Calls(Mutex<HashMap<String, (Instant, u64)>>);

impl Calls {
    /// Counts a call; gives how many the log has to tell of, when it is time to.
    pub(super) fn count(&self, tool: &str) -> Option<u64> {
        // Held only to count.
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let Some((told, untold)) = calls.get_mut(tool) else {
            calls.insert(tool.to_owned(), (now, 0));
            return Some(1);
        };
        *untold += 1;
        if now.duration_since(*told) < LOG_EVERY {
            return None;
        }
        *told = now;
        Some(std::mem::take(untold))
    }
}

/// The names of the tools that are marked.
pub(super) fn names(tools: &[Value]) -> HashSet<String> {
    tools
        .iter()
        .filter(|tool| is_marked(tool))
        .filter_map(|tool| tool.get("name")?.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_becomes_a_plain_sentence() {
        for (text, expected) in [
            (
                r#"{"since":"1.4","use":"search","removed":"2027-01-01"}"#,
                "Deprecated since 1.4: use `search` instead. It is to be removed by 2027-01-01.",
            ),
            (r#"{"use":"search"}"#, "Deprecated: use `search` instead."),
            (r#"{"since":"1.4"}"#, "Deprecated since 1.4."),
            ("{}", "Deprecated."),
            ("true", "Deprecated."),
            (r#"{"since":7}"#, "Deprecated."),
        ] {
            let meta = RawValue::from_string(format!(r#"{{"{KEY}":{text}}}"#)).unwrap();
            assert_eq!(mark(&meta).expect(text).sentence(), expected);
        }
        for unmarked in ["false", "null"] {
            let meta = RawValue::from_string(format!(r#"{{"{KEY}":{unmarked}}}"#)).unwrap();
            assert!(mark(&meta).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_names_a_tool_once_a_minute_and_misses_no_call() {
        let calls = Calls::default();
        assert_eq!((calls.count("a"), calls.count("b")), (Some(1), Some(1)));
        for _ in 0..5 {
            assert_eq!(calls.count("a"), None);
        }
        tokio::time::advance(LOG_EVERY).await;
        assert_eq!((calls.count("a"), calls.count("b")), (Some(6), Some(1)));
        assert_eq!(calls.count("a"), None);
    }
}
