//! W3C Trace Context: the two values that tie a call's parts together across processes.
//!
//! Source: <https://www.w3.org/TR/trace-context/>. Only the carrying lives here; new span ids come from outside.

use serde::{Deserialize, Serialize};

/// A `traceparent` that has been checked, and the `tracestate` that came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `00-<32 hex>-<16 hex>-<2 hex>`, lower case.
    pub traceparent: String,
    /// The vendors' list, carried and never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Accepts a `traceparent` of version 00 with non-zero ids; anything else is `None`, as the standard asks.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = traceparent.trim().split('-').collect();
        let [version, trace, span, flags] = parts.as_slice() else {
            return None;
        };
        let lower_hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        let valid = *version == "00"
            && lower_hex(trace, 32)
            && lower_hex(span, 16)
            && lower_hex(flags, 2)
            && !zero(trace)
            && !zero(span);
        valid.then(|| Self {
            traceparent: traceparent.trim().to_owned(),
            tracestate: tracestate.filter(|s| !s.is_empty()).map(str::to_owned),
        })
    }

    /// Starts a trace from random material; the caller decides whether it is sampled.
    #[must_use]
    pub fn root(trace_id: u128, span_id: u64, sampled: Sampled) -> Self {
        let (trace_id, span_id) = (trace_id.max(1), span_id.max(1));
        let flags = match sampled {
            Sampled::Yes => "01",
            Sampled::No => "00",
        };
        Self {
            traceparent: format!("00-{trace_id:032x}-{span_id:016x}-{flags}"),
            tracestate: None,
        }
    }

    /// The same trace with another span as the parent.
    #[must_use]
    pub fn child(&self, span_id: u64) -> Self {
        let flags = &self.traceparent[53..];
        Self {
            traceparent: format!("00-{}-{:016x}-{flags}", self.trace_id(), span_id.max(1)),
            tracestate: self.tracestate.clone(),
        }
    }

    /// The 32 hex digits that all parts of one trace share.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.traceparent.get(3..35).unwrap_or_default()
    }
}

/// Whether a trace is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// Recorded.
    Yes,
    /// Carried only.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = TraceContext::parse(good, Some("a=1")).expect("good");
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(
            context.child(7).traceparent,
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01"
        );
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-01",
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }
}
