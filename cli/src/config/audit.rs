//! How it is kept what was refused: the section `[audit]`.

use std::time::Duration;

use anyhow::bail;
use runtime::audit::AuditOptions;
use serde::Deserialize;

const DAY: u64 = 24 * 60 * 60;
/// Less could not even hold the batches of a busy minute.
const LEAST_BYTES: i64 = 1024 * 1024;

/// What the section says.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditSection {
    max_age_days: Option<u64>,
    max_bytes: Option<i64>,
    singles_per_minute: Option<u32>,
}

impl AuditSection {
    /// The section as the runtime takes it.
    pub(super) fn options(&self) -> anyhow::Result<AuditOptions> {
        let usual = AuditOptions::default();
        if self.max_age_days.is_some_and(|days| days == 0 || days > 36_500) {
            bail!("audit.max_age_days must be 1 to 36500");
        }
        if self.max_bytes.is_some_and(|bytes| bytes < LEAST_BYTES) {
            bail!("audit.max_bytes must be {LEAST_BYTES} (1 MiB) or more");
        }
        if self.singles_per_minute == Some(0) {
            bail!("audit.singles_per_minute is 0, so that nothing would be told one by one; use 1 or more");
        }
        Ok(AuditOptions {
            singles_per_minute: self.singles_per_minute.unwrap_or(usual.singles_per_minute),
            max_age: self
                .max_age_days
                .map_or(usual.max_age, |days| Duration::from_secs(days * DAY)),
            max_bytes: self.max_bytes.unwrap_or(usual.max_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{expect_refusal, load};

    #[test]
    fn what_cannot_work_is_named_with_what_would() {
        for (line, words) in [
            ("max_age_days = 0", ["audit.max_age_days", "1", "36500"]),
            ("max_bytes = 7", ["audit.max_bytes", "1 MiB", "or more"]),
            (
                "singles_per_minute = 0",
                ["audit.singles_per_minute", "0", "1 or more"],
            ),
        ] {
            expect_refusal(&format!("[audit]\n{line}"), words);
        }
        let config = load("[audit]\nmax_age_days = 2\nsingles_per_minute = 5").expect("loads");
        assert_eq!(
            (config.audit.max_age.as_secs(), config.audit.singles_per_minute),
            (172_800, 5)
        );
    }
}
