//! Checks the `Mcp-Param-*` headers of a tool call against its arguments, as far as the tool's schema asks for them.

use std::{borrow::Cow, fmt};

use axum::http::HeaderMap;
use bus_schema::{
    RpcError, ServerId, header,
    mcp::{
        meta,
        mirrored::{self, Mirrored, Repeats},
    },
};
use runtime::catalogue::Listed;
use serde::{
    Deserializer as _,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    front::{Endpoint, Front},
    request::Incoming,
};

/// Checks one call.
///
/// # Errors
/// A header-mismatch error when a header that the tool's schema asks for is missing, undecodable, or says something else.
pub(crate) async fn check(
    front: &Front,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    incoming: &Incoming,
) -> Result<(), RpcError> {
    let Some(name) = &incoming.name else { return Ok(()) };
    let (server, tool) = match (front.virtual_server(endpoint), endpoint) {
        (Some(defined), _) => match front.chosen(&defined, Listed::Tools, &name.value).await {
            Some(chosen) => chosen,
            None => return Ok(()),
        },
        (None, Endpoint::Server(id)) => (id.clone(), name.value.clone()),
        (None, Endpoint::All | Endpoint::Search) => match ServerId::split_prefixed(&name.value) {
            Some((server, own)) => (server, own.to_owned()),
            None => return Ok(()),
        },
    };
    // A tool whose schema is not known is called without headers, as the protocol lets clients do.
    let Some(tools) = front.catalogue().list_soon(&server, Listed::Tools).await else {
        return Ok(());
    };
    let Some(tool) = tools.get(&tool).filter(|tool| !tool.mirrored.is_empty()) else {
        return Ok(());
    };
    let arguments = incoming.arguments.clone().map(|place| &incoming.body[place]);
    tool.mirrored
        .iter()
        .try_for_each(|mirrored| compare(mirrored, headers, arguments))
}

fn compare(mirrored: &Mirrored, headers: &HeaderMap, arguments: Option<&[u8]>) -> Result<(), RpcError> {
    let shown = format!("{}{}", header::PARAM_PREFIX, mirrored.name.to_ascii_lowercase());
    let path = mirrored.path.join(".");
    let argument = find(arguments, &mirrored.path)
        .map_err(|why| RpcError::header_mismatch(format!("header `{shown}` cannot be checked: {why}")))?;
    let (value, argument) = match (headers.get(&shown), argument) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(RpcError::header_mismatch(format!("header `{shown}` is missing"))),
        (Some(_), None) => {
            return Err(RpcError::header_mismatch(format!(
                "header `{shown}` is there, but argument `{path}` is not"
            )));
        }
        (Some(value), Some(argument)) => (value, argument),
    };
    let undecodable =
        |why: String| RpcError::header_mismatch(format!("header `{shown}` cannot be decoded: {why}"));
    let text = value
        .to_str()
        .map_err(|error| undecodable(error.to_string()))?
        .trim();
    let text = header::decode_value(text).map_err(|error| undecodable(error.to_string()))?;
    // What cannot be read, such as 1e400, no header can repeat either.
    let read = serde_json::from_str(argument.get()).map(|argument| mirrored::compare(&text, &argument));
    let why = match read {
        Ok(Repeats::Same) => return Ok(()),
        Ok(Repeats::Other) => format!("says `{text}`, but the argument is {argument}"),
        Ok(Repeats::Never) | Err(_) => {
            format!(
                "can only repeat a string, a boolean, or an integer within 2^53-1 of 0, and argument `{path}` is none"
            )
        }
    };
    Err(RpcError::header_mismatch(format!("header `{shown}` {why}")))
}

/// Finds an argument by its path, as spelled; `null` counts as absent. An object that names a key on the way twice is refused: what
/// reads it later could take the other one.
fn find<'a>(arguments: Option<&'a [u8]>, path: &[String]) -> Result<Option<&'a RawValue>, serde_json::Error> {
    let Some(arguments) = arguments else {
        return Ok(None);
    };
    let mut at: &RawValue = serde_json::from_slice(arguments)?;
    for key in path {
        if !meta::is_object(at) {
            return Ok(None);
        }
        match serde_json::Deserializer::from_str(at.get()).deserialize_map(Member(key))? {
            Some(inner) => at = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(at).filter(|found| found.get() != "null"))
}

/// Reads one member of an object.
struct Member<'k>(&'k str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an object with `{}` once at most", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = members.next_key::<Cow<'de, str>>()? {
            if key != self.0 {
                members.next_value::<IgnoredAny>()?;
            } else if found.replace(members.next_value()?).is_some() {
                return Err(A::Error::custom(format_args!(
                    "argument `{}` is there twice",
                    self.0
                )));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(
        name: &str,
        path: &[&str],
        header: Option<&str>,
        arguments: Option<&str>,
    ) -> Result<(), String> {
        let mirrored = Mirrored {
            name: name.to_owned(),
            path: path.iter().map(|&key| key.to_owned()).collect(),
        };
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("mcp-param-region", value.parse().unwrap());
        }
        compare(&mirrored, &headers, arguments.map(str::as_bytes)).map_err(|error| error.message)
    }

    #[test]
    fn a_header_repeats_its_argument_or_the_call_is_refused() {
        let deep = r#"{"a":{"x":1e400,"region":"eu"},"region":"us"}"#;
        for (path, header, arguments, expected) in [
            (&["region"][..], Some("eu"), Some(r#"{"region":"eu"}"#), None),
            (
                &["region"],
                Some("=?base64?ZXU=?="),
                Some(r#"{"region":"\u0065u"}"#),
                None,
            ),
            (&["a", "region"], Some("eu"), Some(deep), None),
            (&["region"], Some("us"), Some(deep), None),
            (&["region"], None, Some(r#"{"region":null}"#), None),
            (&["region"], None, Some(r#"{"a":1e400}"#), None),
            (&["a", "region"], None, Some(r#"{"a":7}"#), None),
            (&["region"], None, None, None),
            (&["a", "region"], None, Some(deep), Some("is missing")),
            (&["region"], Some("eu"), None, Some("argument `region` is not")),
            (
                &["region"],
                Some("eu"),
                Some(r#"{"region":"us"}"#),
                Some("says `eu`"),
            ),
            (
                &["region"],
                Some("eu"),
                Some(r#"{"region":"eu","r\u0065gion":"us"}"#),
                Some("there twice"),
            ),
            (
                &["region"],
                Some("9007199254740993"),
                Some(r#"{"region":9007199254740993}"#),
                Some("can only repeat"),
            ),
            (
                &["region"],
                Some("1e400"),
                Some(r#"{"region":1e400}"#),
                Some("can only repeat"),
            ),
            (
                &["region"],
                Some("=?base64?@?="),
                Some(r#"{"region":"@"}"#),
                Some("cannot be decoded"),
            ),
        ] {
            let outcome = checked("Region", path, header, arguments);
            match (expected, outcome) {
                (None, outcome) => assert_eq!(outcome, Ok(()), "{arguments:?}"),
                (Some(word), outcome) => {
                    assert!(
                        outcome.as_ref().is_err_and(|why| why.contains(word)),
                        "{outcome:?}"
                    );
                }
            }
        }
    }
}
