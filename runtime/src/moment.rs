//! The present as records and answers spell it.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

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

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment in milliseconds since 1970, as RFC 3339 in UTC to the millisecond.
#[must_use]
pub fn of_ms(ms: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| ms.to_string())
}

/// The moment so many days before now, as RFC 3339 in UTC.
///
/// # Panics
/// When that is before the year 0.
#[must_use]
pub fn days_ago(days: u16) -> String {
    (OffsetDateTime::now_utc() - Duration::days(days.into()))
        .format(&Rfc3339)
        .expect("a moment of our time has a date")
}

/// Now, in whole seconds since 1970.
#[must_use]
pub fn now_secs() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default()
}

/// A time that is spelled as RFC 3339; `None` for any other text.
#[must_use]
pub fn read(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(Into::into)
}
