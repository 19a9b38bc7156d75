//! A modern error, as a legacy client reads it.
//!
//! Codes that only the modern era has become −32603 with the whole error in its `data`; a missing resource gets the code that it had
//! before. Everything else stays to the byte.

use bus_schema::{
    edit::{Edits, Members},
    mcp::{error, method},
    rpc::Message,
};
use bytes::Bytes;
use serde_json::value::RawValue;

/// Codes that the modern era reserves for itself.
const RESERVED: std::ops::RangeInclusive<i64> = -32099..=-32020;
/// Codes that every server of the legacy era may use for what it likes.
const PRIVATE: std::ops::RangeInclusive<i64> = -32019..=-32000;

/// Makes of a response that holds an error with this code the one that a legacy client gets.
#[must_use]
pub fn downgrade(called: &str, code: i64, body: &Bytes) -> Bytes {
    let may_be_missing = called == method::RESOURCES_READ && code == error::INVALID_PARAMS;
    if !may_be_missing && !RESERVED.contains(&code) {
        return body.clone();
    }
    let Some(raw) = Message::parse(body).ok().and_then(|message| message.error) else {
        return body.clone();
    };
    let Some(members) = Members::of(raw) else {
        return body.clone();
    };
    let (Some(code), Some(text)) = (members.get("code"), members.get("message")) else {
        return body.clone();
    };
    let mut edits = Edits::new(body);
    if may_be_missing {
        let data = members.get("data").and_then(Members::of);
        if data.is_none_or(|data| data.get("uri").is_none()) {
            return body.clone();
        }
        edits.replace(code.get(), error::LEGACY_RESOURCE_NOT_FOUND.to_string());
    } else {
        edits.replace(raw.get(), wrapped(raw, text));
    }
    edits.apply().into()
}

/// Whether an error of a legacy server with this code means something else, or nothing, to a modern client. The code of a missing
/// resource is among them, and has a modern one.
pub(crate) fn is_legacy_only(code: i64) -> bool {
    RESERVED.contains(&code) || PRIVATE.contains(&code)
}

/// An internal error with the same message and the whole error in its data, as JSON.
pub(crate) fn wrapped(original: &RawValue, message: &RawValue) -> String {
    let code = error::INTERNAL;
    format!(r#"{{"code":{code},"message":{message},"data":{{"original":{original}}}}}"#)
}

/// Whether an error with this code is a fault of this side, which wrote the modern request for the client.
#[must_use]
pub fn is_own_fault(code: i64) -> bool {
    matches!(code, error::HEADER_MISMATCH | error::UNSUPPORTED_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_get_their_legacy_code_and_keep_every_other_byte() {
        let original =
            |error: &str| format!(r#"{{"code":-32603,"message":"m","data":{{"original":{error}}}}}"#);
        let read = method::RESOURCES_READ;
        let missing =
            r#"{"code":-32021,"message":"m","data":{"requiredCapabilities":{"sampling":{}},"x":1e400}}"#;
        let (header, version) = (
            r#"{"message":"m","code":-32020}"#,
            r#"{"code":-32022,"message":"m","data":{}}"#,
        );
        let url = r#"{"code":-32042,"message":"m","data":{"elicitations":[]}}"#;
        for (called, code, error, expected) in [
            (
                read,
                -32602,
                r#"{ "code":-32602,"message":"\ud800","data":{"uri":"a:b","x":1e400},"y":0}"#,
                r#"{ "code":-32002,"message":"\ud800","data":{"uri":"a:b","x":1e400},"y":0}"#.to_owned(),
            ),
            (method::TOOLS_CALL, -32021, missing, original(missing)),
            (method::TOOLS_LIST, -32020, header, original(header)),
            (read, -32022, version, original(version)),
            (method::TOOLS_CALL, -32042, url, original(url)),
        ] {
            let body = |error: &str| Bytes::from(format!(r#"{{"jsonrpc":"2.0","error":{error},"id":1.0}}"#));
            assert_eq!(downgrade(called, code, &body(error)), body(&expected), "{error}");
        }
    }

    #[test]
    fn an_error_that_both_eras_know_is_handed_on_as_it_is() {
        for (called, code, error) in [
            (
                method::TOOLS_CALL,
                -32602,
                r#"{"code":-32602,"message":"m","data":{"uri":"a:b"}}"#,
            ),
            (method::RESOURCES_READ, -32602, r#"{"code":-32602,"message":"m"}"#),
            (
                method::RESOURCES_READ,
                -32602,
                r#"{"code":-32602,"message":"m","data":[]}"#,
            ),
            (method::TOOLS_CALL, -32601, r#"{"code":-32601,"message":"m"}"#),
            (method::TOOLS_CALL, -32603, r#"{"code":-32603,"message":"m"}"#),
            (method::TOOLS_CALL, -32002, r#"{"code":-32002,"message":"m"}"#),
            (method::TOOLS_CALL, 7, r#"{"code":7,"message":"m"}"#),
            (method::TOOLS_CALL, -32021, "7"),
            (method::TOOLS_CALL, -32021, r#"{"code":-32021}"#),
        ] {
            let body = Bytes::from(format!(r#"{{"jsonrpc":"2.0","error":{error},"id":1}}"#));
            assert_eq!(downgrade(called, code, &body).as_ptr(), body.as_ptr(), "{error}");
        }
        let garbage = Bytes::from("garbage");
        assert_eq!(downgrade(method::TOOLS_CALL, -32021, &garbage), garbage);
    }

    #[test]
    fn codes_of_the_legacy_era_alone_are_told_apart() {
        for (code, is_alone) in [
            (-32000, true),
            (-32002, true),
            (-32019, true),
            (-32020, true),
            (-32042, true),
            (-32099, true),
            (-32100, false),
            (-31999, false),
            (-32601, false),
            (-1, false),
        ] {
            assert_eq!(is_legacy_only(code), is_alone, "{code}");
        }
    }

    #[test]
    fn faults_of_this_side_are_told_apart() {
        for (code, is_own) in [(-32020, true), (-32022, true), (-32021, false), (-32602, false)] {
            assert_eq!(is_own_fault(code), is_own);
        }
    }
}
