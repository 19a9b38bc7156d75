//! How a process connects to the bus, and what it asks of the broker before it uses it.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use bus_schema::{
    Token,
    subject::{self, CallerClass},
};
use percent_encoding::percent_decode_str;

use super::{BusError, BusOptions, grants::Refusals};

/// The oldest nats-server that has what the platform rests on: message schedules with cron, counters, message TTL.
pub(super) const OLDEST_SERVER: &str = "2.14.0";
/// A payload of the bus at its largest: an inline body and its envelope.
pub(super) const SMALLEST_MAX_PAYLOAD: usize = 512 * 1024;
/// How many messages of one subscription may wait; beyond it the client library drops them.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

pub(super) fn connect_options(
    options: &BusOptions,
    (class, instance, token): (CallerClass, &str, &Token),
    events: tokio::sync::mpsc::UnboundedSender<Event>,
    refusals: Refusals,
) -> ConnectOptions {
    let connect = connection(instance)
        .custom_inbox_prefix(subject::library_inbox_prefix(class, token))
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .event_callback(move |event| {
            refusals.note(&event);
            let _ = events.send(event);
            std::future::ready(())
        });
    match login(options) {
        Some(Login::Password((user, password))) => connect.user_and_password(user, password),
        Some(Login::Token(token)) => connect.token(token),
        None => connect,
    }
}

/// What every connection of ours begins with.
pub(crate) fn connection(name: &str) -> ConnectOptions {
    ConnectOptions::new()
        .name(name)
        .ping_interval(Duration::from_secs(10))
        // A floor and jitter: a broker that takes the connection and ends it at once must not be stormed.
        .reconnect_delay_callback(|attempts| {
            let base = 50_u64.saturating_mul(1 << attempts.min(6)).min(2_000);
            Duration::from_millis(base + u64::from(uuid::Uuid::now_v7().as_bytes()[15]))
        })
}

/// What a process shows: what its URL says comes first.
fn login(options: &BusOptions) -> Option<Login> {
    url_credentials(&options.url).or_else(|| options.credentials.clone().map(Login::Password))
}

/// The user that a process connects as, if it names one.
pub(super) fn user_of(options: &BusOptions) -> Option<String> {
    match login(options)? {
        Login::Password((user, _)) => Some(user),
        Login::Token(_) => None,
    }
}

/// What a URL says about who connects.
#[derive(Debug, PartialEq, Eq)]
enum Login {
    Password((String, String)),
    Token(String),
}

/// Takes the credentials out of a URL; the client library leaves them there.
fn url_credentials(url: &str) -> Option<Login> {
    let one = url.split(',').find(|one| one.contains('@'))?;
    let (login, _) = one.rsplit_once('@')?;
    let login = login.split_once("://").map_or(login, |(_, login)| login);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some(match login.split_once(':') {
        Some((user, password)) => Login::Password((decoded(user), decoded(password))),
        None => Login::Token(decoded(login)),
    })
}

pub(super) fn check_server(client: &Client, url: &str) -> Result<(), BusError> {
    let found = client.server_info();
    if !is_new_enough(&found.version, OLDEST_SERVER) {
        return Err(BusError::TooOld {
            url: url.to_owned(),
            found: found.version,
        });
    }
    if found.max_payload < SMALLEST_MAX_PAYLOAD {
        return Err(BusError::PayloadTooSmall {
            url: url.to_owned(),
            found: found.max_payload,
        });
    }
    Ok(())
}

/// Compares the numbers of versions such as `v2.15.1-RC.1`; one that cannot be read is too old.
pub(crate) fn is_new_enough(version: &str, oldest: &str) -> bool {
    let numbers = |version: &str| {
        let plain = version
            .trim_start_matches('v')
            .split(['-', '+'])
            .next()
            .unwrap_or_default();
        plain
            .split('.')
            .map(|number| number.parse().ok())
            .collect::<Option<Vec<u32>>>()
    };
    match (numbers(version), numbers(oldest)) {
        (Some(version), Some(oldest)) => version.len() == 3 && version >= oldest,
        _ => false,
    }
}

pub(crate) fn without_password(url: &str) -> String {
    let shown = url
        .split(',')
        .map(|one| match (one.split_once("://"), one.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => one.to_owned(),
        });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (version, expected) in [
            ("2.15.1", true),
            ("v2.14.0-RC.1", true),
            ("2.9.10", false),
            ("3.0.0", true),
            ("2", false),
            ("2.14", false),
            ("2.13.9", false),
            ("x.y", false),
        ] {
            assert_eq!(is_new_enough(version, OLDEST_SERVER), expected, "{version}");
        }
    }

    #[test]
    fn credentials_are_taken_from_the_url() {
        for (url, expected) in [
            ("nats://h:4222", None),
            (
                "nats://u:p%40ss@h:4222",
                Some(Login::Password(("u".to_owned(), "p@ss".to_owned()))),
            ),
            (
                "nats://h:1,nats://t0ken@h:2",
                Some(Login::Token("t0ken".to_owned())),
            ),
        ] {
            assert_eq!(url_credentials(url), expected, "{url}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("nats://a:b@h:1,nats://h:2"),
            "nats://h:1,nats://h:2"
        );
    }
}
