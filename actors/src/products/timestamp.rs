//! Timestamps as the catalogue stores them: ISO 8601 in UTC with milliseconds, so that text order is time order.
//! No calendar crate: one direction of one calendar is fifteen lines.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the present moment.
pub(super) fn now() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    iso8601(since_epoch.as_secs(), since_epoch.subsec_millis())
}

/// Spells a moment given as seconds since 1970 and milliseconds.
pub(super) fn iso8601(unix_secs: u64, millis: u32) -> String {
    let (year, month, day) = civil_date(unix_secs / 86_400);
    let (hour, minute, second) = (unix_secs / 3600 % 24, unix_secs / 60 % 60, unix_secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Turns days since 1970 into year, month and day (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::iso8601;

    #[test]
    fn a_moment_is_spelled_in_utc() {
        let check = |unix_secs, expected: &str| assert_eq!(iso8601(unix_secs, 7), expected);
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(1_767_225_599, "2025-12-31T23:59:59.007Z");
        check(1_785_196_800, "2026-07-28T00:00:00.007Z");
    }
}
