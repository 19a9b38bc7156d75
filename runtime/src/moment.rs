//! The present as records and answers spell it.

use std::time::SystemTime;

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

/// A time that is spelled as RFC 3339; `None` for any other text.
#[must_use]
pub fn read(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(Into::into)
}
