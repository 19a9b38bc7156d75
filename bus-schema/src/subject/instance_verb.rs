//! The words to one instance, each a token of their subjects, and how those are read.

use super::{Subject, parse_call};
use crate::token::Token;

/// What a caller tells one instance about one of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceVerb {
    /// Here is a piece of the request's body.
    Body,
    /// Frames up to a number have been read.
    Credit,
    /// Stop working on the call.
    Cancel,
    /// A call that only this instance can answer, such as the next round of one that it has parked.
    Call,
    /// A call that this instance is near to; another may answer it as well.
    Near,
}

impl InstanceVerb {
    pub(super) const ALL: [Self; 5] = [Self::Body, Self::Credit, Self::Cancel, Self::Call, Self::Near];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Credit => "credit",
            Self::Cancel => "cancel",
            Self::Call => "call",
            Self::Near => "near",
        }
    }
}

/// Reads what stands behind the root of a subject about one instance.
pub(super) fn parse(rest: &[&str]) -> Option<Subject> {
    let [tenant, server, instance, about @ ..] = rest else {
        return None;
    };
    let [tenant, server, instance] = [tenant, server, instance].map(|text| Token::parse(text).ok());
    let (tenant, server, instance) = (tenant?, server?, instance?);
    match about {
        [verb] => Some(Subject::Instance {
            verb: InstanceVerb::ALL
                .into_iter()
                .find(|known| known.as_str() == *verb)?,
            tenant,
            server,
            instance,
        }),
        ["gone", caller, call] => Some(Subject::Gone {
            caller: Token::parse(caller).ok()?,
            call: parse_call(call)?,
            tenant,
            server,
            instance,
        }),
        _ => None,
    }
}
