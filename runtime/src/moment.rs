//! The present as records and answers spell it.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, as RFC 3339 in UTC.
///
/// # Panics
/// When the clock is at a year that has more than four digits.
#[must_use]
pub fn now() -> String {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .expect("the present has a date")
}

/// Now, in whole seconds since 1970.
#[must_use]
pub fn now_secs() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}
