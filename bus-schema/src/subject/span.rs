//! The spans of time that counts of calls are kept for; each is a token of their subjects.

/// How long the calls that are counted together are spread over at most. Each has a stream of its own, which forgets counts in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// Up to a minute.
    Minute,
    /// Up to an hour.
    Hour,
    /// A day.
    Day,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}
