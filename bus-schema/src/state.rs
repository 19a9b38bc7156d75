//! A `requestState` that says where it belongs.
//!
//! That of a call that an instance has parked has the instance, and what only that one can read. That of a server whose versions have
//! shares has the version before the server's own state.
//!
//! The instance's id is a hint for routing and proves nothing: whoever changes it asks an instance that cannot open the rest.
//! A state of any other form is a server's own, and passes untouched.

use crate::Token;

const PREFIX: &str = "tl1.";

/// A `requestState` of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedState<'a> {
    /// The instance that has parked the call.
    pub instance: &'a str,
    /// What that instance has sealed, in Base64 for URLs.
    pub sealed: &'a str,
}

impl<'a> RoutedState<'a> {
    /// Reads a `requestState`; `None` for one that is not ours.
    #[must_use]
    pub fn parse(state: &'a str) -> Option<Self> {
        let (instance, sealed) = state.strip_prefix(PREFIX)?.split_once('.')?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let ours = Token::parse(instance).is_ok() && !sealed.is_empty() && sealed.bytes().all(plain);
        ours.then_some(Self { instance, sealed })
    }
}

impl std::fmt::Display for RoutedState<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}.{}", self.instance, self.sealed)
    }
}

/// A server's own state, and the version of the server that has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedState<'a> {
    /// The version as a token; empty when it does not matter.
    pub version: &'a str,
    /// What the server has written.
    pub state: &'a str,
}

impl<'a> VersionedState<'a> {
    /// What such a state begins with.
    pub const PREFIX: &'static str = "tlv1.";

    /// Reads a `requestState`; `None` for one of another form.
    #[must_use]
    pub fn parse(state: &'a str) -> Option<Self> {
        let (version, state) = state.strip_prefix(Self::PREFIX)?.split_once('.')?;
        let names_one = version.is_empty() || Token::parse(version).is_ok();
        names_one.then_some(Self { version, state })
    }
}

impl std::fmt::Display for VersionedState<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}.{}", Self::PREFIX, self.version, self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_ours_names_its_instance_and_others_pass() {
        let state = RoutedState {
            instance: "00ff",
            sealed: "a-_9",
        };
        assert_eq!(state.to_string(), "tl1.00ff.a-_9");
        assert_eq!(RoutedState::parse("tl1.00ff.a-_9"), Some(state));
        for other in [
            "",
            "opaque",
            "tl1.",
            "tl1.a",
            "tl1.a.",
            "tl1..x",
            "tl1.a b.x",
            "tl1.a.x=",
            "tl2.a.x",
        ] {
            assert_eq!(RoutedState::parse(other), None, "{other}");
        }
    }
}
