//! Moments of rows, and the ranges of them that an export may be limited to.

use serde::{Deserialize, Serialize};
use time::{Date, Duration, OffsetDateTime, UtcDateTime, format_description::well_known::Rfc3339};

use super::error::ExportError;

/// A moment as files have it: ISO 8601 in UTC to the millisecond, so that the order of texts is that of time.
#[must_use]
pub fn iso8601(unix_ms: i64) -> String {
    let moment = UtcDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .unwrap_or(UtcDateTime::UNIX_EPOCH);
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    let (hour, minute, second) = moment.as_hms();
    let millis = moment.millisecond();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads a moment as [`iso8601`] spells it, or any other spelling of RFC 3339.
#[must_use]
pub fn read_iso8601(text: &str) -> Option<i64> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// The rows of which dates are wanted, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DateRange {
    /// From this moment on.
    pub from_ms: Option<i64>,
    /// Before this moment.
    pub until_ms: Option<i64>,
}

impl DateRange {
    /// Reads what a caller sends: dates, or moments of RFC 3339. A date as `until` includes that day.
    ///
    /// # Errors
    /// [`ExportError::BadDate`] and [`ExportError::EmptyRange`].
    pub fn parse(from: Option<&str>, until: Option<&str>) -> Result<Self, ExportError> {
        let from_ms = from.map(|text| read("from", text, Duration::ZERO)).transpose()?;
        let until_ms = until.map(|text| read("until", text, Duration::DAY)).transpose()?;
        if let (Some(from), Some(until)) = (from_ms, until_ms)
            && from >= until
        {
            return Err(ExportError::EmptyRange);
        }
        Ok(Self { from_ms, until_ms })
    }

    /// Whether a moment is in it.
    #[must_use]
    pub fn contains(&self, unix_ms: i64) -> bool {
        self.from_ms.is_none_or(|from| from <= unix_ms) && self.until_ms.is_none_or(|until| unix_ms < until)
    }
}

/// Reads a moment, or the moment so long after the beginning of a date.
fn read(field: &'static str, text: &str, after_date: Duration) -> Result<i64, ExportError> {
    let text = text.trim();
    let read = match text.len() {
        10 => read_iso8601(&format!("{text}T00:00:00Z"))
            .and_then(|ms| ms.checked_add(i64::try_from(after_date.whole_milliseconds()).ok()?)),
        _ => read_iso8601(text),
    };
    // The last day of the year 9999 has no next one that could be spelled.
    let spelled = read.filter(|ms| ms / 1000 <= Date::MAX.midnight().assume_utc().unix_timestamp());
    spelled.ok_or_else(|| ExportError::BadDate {
        field,
        value: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_spelled_as_it_is_read() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "2000-02-29T23:59:59.999Z",
            "2026-11-23T15:30:00.007Z",
            "1969-12-31T23:59:59.999Z",
        ] {
            assert_eq!(iso8601(read_iso8601(text).unwrap()), text);
        }
        assert_eq!(
            read_iso8601("2026-11-23T16:30:00+01:00"),
            read_iso8601("2026-11-23T15:30:00Z")
        );
    }

    #[test]
    fn a_date_as_an_end_includes_its_day() {
        let range = DateRange::parse(Some("2026-01-01"), Some("2026-01-31")).unwrap();
        for (text, is_in) in [
            ("2025-12-31T23:59:59.999Z", false),
            ("2026-01-01T00:00:00.000Z", true),
            ("2026-01-31T23:59:59.999Z", true),
            ("2026-02-01T00:00:00.000Z", false),
        ] {
            assert_eq!(range.contains(read_iso8601(text).unwrap()), is_in, "{text}");
        }
        let moment = DateRange::parse(None, Some("2026-01-31T08:00:00Z")).unwrap();
        assert!(!moment.contains(read_iso8601("2026-01-31T08:00:00Z").unwrap()));
        assert!(DateRange::default().contains(i64::MIN));
        assert!(DateRange::parse(Some("2026-01-31"), Some("2026-01-31")).is_ok());
    }

    #[test]
    fn what_is_no_date_is_told_with_what_would_be() {
        for bad in [
            "",
            "yesterday",
            "2026-02-30",
            "2026-1-31",
            "2026-01-31 08:00",
            "9999-12-31T",
        ] {
            let error = DateRange::parse(None, Some(bad)).unwrap_err().to_string();
            assert!(
                error.contains("until") && error.contains("2026-01-31T08:00:00Z"),
                "{error}"
            );
        }
        let turned = DateRange::parse(Some("2026-02-01"), Some("2026-01-31"));
        assert!(matches!(turned, Err(ExportError::EmptyRange)));
    }
}
