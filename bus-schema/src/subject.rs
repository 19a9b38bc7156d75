//! Every subject of the bus, built and parsed: the only place in the code where a subject is spelled.
//!
//! Subjects come from typed [`Token`]s, so that no name from outside can reach another subject than its own.

mod audit;
mod broker;
mod hook;
mod instance_verb;
mod public;
mod services;
mod span;
mod task;

use std::fmt;

pub use crate::caller::CallerClass;
use crate::token::{self, Token};

pub use audit::{all_audit, audit_of};
pub use broker::{CALLOUT, CALLOUT_INBOX, end_connection};
pub use hook::hooks_of;
pub use instance_verb::InstanceVerb;
pub use public::{all_public_calls, every_name, private_inboxes, public_calls_of};
pub use services::{ServiceVerb, ask_all_services, ask_stats, service_questions};
pub use span::Span;
pub use task::{TaskPlace, dead_tasks, order_of_anybody, orders_of, task_queue, words_for};

/// The queue group in which replicas share requests.
pub const QUEUE_GROUP: &str = "mcp";
/// The header-less events by which the broker tells that a connection of ours has ended.
pub const DISCONNECTS: &str = "$SYS.ACCOUNT.*.DISCONNECT";

/// What those events begin with, which nobody but the broker publishes.
const BROKER_EVENT: &str = "$SYS.ACCOUNT.";

const RPC: &str = "mcp.rpc";
const VERSION: &str = "mcp.ver";
const INSTANCE: &str = "mcp.inst";
const CANCEL: &str = "mcp.cancel";
const EVENT: &str = "mcp.evt";
const PUBLIC: &str = "mcp.pub";
const WATCH: &str = "mcp.watch";
const INBOX: &str = "_INBOX_";
const DOORS: &str = "mcp.gw";
/// What the replies to those begin with who call through a service import.
const IMPORTED: &str = "_R_.";
/// A token that no name has, as none is encoded to it.
const NOBODY: &str = "_nobody";
const COUNTER: &str = "mcp.rl";
const HOOK: &str = "mcp.hook";

/// An MCP method as subject tokens: `tools/call` is `tools.call`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MethodPath(Vec<Token>);

impl MethodPath {
    /// Encodes a method, one token for each part between slashes.
    #[must_use]
    pub fn encode(method: &str) -> Self {
        Self(method.split('/').map(Token::encode).collect())
    }
}

impl fmt::Display for MethodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, token) in self.0.iter().enumerate() {
            write!(f, "{}{token}", if at == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

/// What an event tells about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// An instance is ready, or its catalogue has changed; the payload is its card.
    Up,
    /// An instance takes no more calls; the payload is its card.
    Down,
    /// An instance has told the callers of all calls that it took that it has them, and takes no more; the payload is its card.
    Left,
    /// A call has ended; published only while somebody watches.
    Call,
    /// A tool has changed, or somebody has decided over one; the payload is an [`Event`](crate::integrity::Event).
    Tool,
    /// A server is otherwise than it was; the payload is a [`StatusEvent`](crate::registry::StatusEvent).
    Status,
    /// Something has happened to a task of the server's; the payload is a [`Happened`](crate::task::Happened).
    Task,
    /// A task was cancelled; its worker stops. The payload is the same.
    TaskStop,
}

impl EventKind {
    const ALL: [Self; 8] = [
        Self::Up,
        Self::Down,
        Self::Left,
        Self::Call,
        Self::Tool,
        Self::Status,
        Self::Task,
        Self::TaskStop,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "replica.up",
            Self::Down => "replica.down",
            Self::Left => "replica.left",
            Self::Call => "call",
            Self::Tool => "tool",
            Self::Status => "status",
            Self::Task => "task",
            Self::TaskStop => "task.stop",
        }
    }
}

/// A subject of the bus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A call to any replica of a server.
    Rpc {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
        /// Which method.
        method: MethodPath,
    },
    /// A call to any replica of one version of a server.
    Version {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
        /// Which version of it.
        version: Token,
        /// Which method.
        method: MethodPath,
    },
    /// A word to one instance.
    Instance {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
        /// Which instance.
        instance: Token,
        /// What about.
        verb: InstanceVerb,
    },
    /// Where the broker tells an instance that nobody reads a call's inbox any more: the reply subject of a heartbeat,
    /// which "no responders" comes back on.
    Gone {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
        /// Which instance works on the call.
        instance: Token,
        /// Which process made the call.
        caller: Token,
        /// Which call of it.
        call: u64,
    },
    /// A cancellation to all replicas, as long as the caller does not know which one works.
    Cancel {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
    },
    /// Something that happened to a server.
    Event {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
        /// What happened.
        kind: EventKind,
    },
    /// Somebody wants to see calls for the next seconds.
    Watch {
        /// Whose calls.
        tenant: Token,
    },
    /// A cancellation by a legacy client, to all doors, as any of them may run the call.
    DoorCancel {
        /// Whose client.
        tenant: Token,
    },
    /// The count of calls by which a limit is kept, of all processes together.
    Counter {
        /// How long a window is at most.
        span: Span,
        /// Which limit.
        limit: Token,
        /// What is counted together.
        key: Token,
        /// When the window began, in seconds since 1970.
        window: u64,
    },
    /// A question of a guardrail to an actor of its tenant.
    Hook {
        /// Whose calls it is about.
        tenant: Token,
        /// What the hook is called.
        name: Token,
    },
    /// The inbox of one call.
    Inbox {
        /// Which kind of caller.
        class: CallerClass,
        /// Which process.
        instance: Token,
        /// Which call of it.
        call: u64,
    },
    /// A call by a plain NATS client.
    Public {
        /// Whose server.
        tenant: Token,
        /// Which server.
        server: Token,
        /// Which method.
        method: MethodPath,
        /// The tool, prompt or resource, for the methods that name one.
        name: Option<Token>,
    },
}

/// Says why a text is not a subject of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a subject of the bus")]
pub struct UnknownSubject(pub String);

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc {
                tenant,
                server,
                method,
            } => write!(f, "{RPC}.{tenant}.{server}.{method}"),
            Self::Version {
                tenant,
                server,
                version,
                method,
            } => write!(f, "{VERSION}.{tenant}.{server}.{version}.{method}"),
            Self::Instance {
                tenant,
                server,
                instance,
                verb,
            } => {
                write!(f, "{INSTANCE}.{tenant}.{server}.{instance}.{}", verb.as_str())
            }
            Self::Gone {
                tenant,
                server,
                instance,
                caller,
                call,
            } => {
                write!(f, "{INSTANCE}.{tenant}.{server}.{instance}.gone.")?;
                write!(f, "{caller}.{call:x}")
            }
            Self::Cancel { tenant, server } => write!(f, "{CANCEL}.{tenant}.{server}"),
            Self::Event { tenant, server, kind } => write!(f, "{EVENT}.{tenant}.{server}.{}", kind.as_str()),
            Self::Watch { tenant } => write!(f, "{WATCH}.{tenant}"),
            Self::DoorCancel { tenant } => write!(f, "{DOORS}.{tenant}.cancel"),
            Self::Counter {
                span,
                limit,
                key,
                window,
            } => {
                write!(f, "{COUNTER}.{}.{limit}.{key}.{window:x}", span.as_str())
            }
            Self::Hook { tenant, name } => write!(f, "{HOOK}.{tenant}.{name}"),
            Self::Inbox {
                class,
                instance,
                call,
            } => {
                write!(f, "{INBOX}{}.{instance}.call.{call:x}", class.as_str())
            }
            Self::Public {
                tenant,
                server,
                method,
                name,
            } => {
                write!(f, "{PUBLIC}.{tenant}.{server}.{method}")?;
                name.as_ref().map_or(Ok(()), |name| write!(f, ".{name}"))
            }
        }
    }
}

impl Subject {
    /// Reads a subject.
    ///
    /// # Errors
    /// [`UnknownSubject`] when it is none of ours, or one that no correct process would build.
    pub fn parse(text: &str) -> Result<Self, UnknownSubject> {
        parse_subject(text).ok_or_else(|| UnknownSubject(text.to_owned()))
    }
}

fn parse_subject(text: &str) -> Option<Subject> {
    let tokens: Vec<&str> = text.split('.').collect();
    let token = |text: &str| Token::parse(text).ok();
    match tokens.as_slice() {
        ["mcp", "rpc", tenant, server, method @ ..] if !method.is_empty() => Some(Subject::Rpc {
            tenant: token(tenant)?,
            server: token(server)?,
            method: path(method)?,
        }),
        ["mcp", "ver", tenant, server, version, method @ ..] if !method.is_empty() => {
            Some(Subject::Version {
                tenant: token(tenant)?,
                server: token(server)?,
                version: token(version)?,
                method: path(method)?,
            })
        }
        ["mcp", "inst", rest @ ..] => instance_verb::parse(rest),
        ["mcp", "cancel", tenant, server] => Some(Subject::Cancel {
            tenant: token(tenant)?,
            server: token(server)?,
        }),
        ["mcp", "evt", tenant, server, kind @ ..] => {
            let kind = kind.join(".");
            let kind = EventKind::ALL.into_iter().find(|k| k.as_str() == kind)?;
            Some(Subject::Event {
                tenant: token(tenant)?,
                server: token(server)?,
                kind,
            })
        }
        ["mcp", "watch", tenant] => Some(Subject::Watch {
            tenant: token(tenant)?,
        }),
        ["mcp", "gw", tenant, "cancel"] => Some(Subject::DoorCancel {
            tenant: token(tenant)?,
        }),
        ["mcp", "rl", span, limit, key, window] => Some(Subject::Counter {
            span: Span::ALL.into_iter().find(|known| known.as_str() == *span)?,
            limit: token(limit)?,
            key: token(key)?,
            window: parse_call(window)?,
        }),
        ["mcp", "hook", tenant, name] => hook::parse(tenant, name),
        ["mcp", "pub", tenant, server, rest @ ..] if !rest.is_empty() => public::parse(tenant, server, rest),
        [inbox, instance, "call", call] => parse_inbox(inbox, instance, call),
        _ => None,
    }
}

fn path(tokens: &[&str]) -> Option<MethodPath> {
    let tokens: Result<_, _> = tokens.iter().map(|token| Token::parse(token)).collect();
    tokens.ok().map(MethodPath)
}

fn parse_inbox(inbox: &str, instance: &str, call: &str) -> Option<Subject> {
    let class = inbox.strip_prefix(INBOX)?;
    let class = CallerClass::ALL.into_iter().find(|c| c.as_str() == class)?;
    Some(Subject::Inbox {
        class,
        instance: Token::parse(instance).ok()?,
        call: parse_call(call)?,
    })
}

/// Reads a number in the one spelling that is ever written.
fn parse_call(call: &str) -> Option<u64> {
    let canonical = !call.is_empty()
        && call.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && (call == "0" || !call.starts_with('0'));
    canonical.then(|| u64::from_str_radix(call, 16).ok())?
}

/// The subject of a call: [`Subject::Rpc`] from names, written in one go, as every call needs one.
#[must_use]
pub fn call(tenant: &str, server: &str, method: &str) -> String {
    let mut out = String::with_capacity(RPC.len() + tenant.len() + server.len() + method.len() + 8);
    out.push_str(RPC);
    for name in [tenant, server].into_iter().chain(method.split('/')) {
        out.push('.');
        Token::encode_into(name, &mut out);
    }
    out
}

/// Subjects that nobody listens on, and that the user of a class may publish on if its grants are what they should be.
#[must_use]
pub fn probes(class: CallerClass) -> Vec<String> {
    let mut all = vec![
        format!("{CANCEL}.{NOBODY}.{NOBODY}"),
        format!(
            "{INSTANCE}.{NOBODY}.{NOBODY}.{NOBODY}.{}",
            InstanceVerb::Cancel.as_str()
        ),
    ];
    if class.calls() {
        all.push(format!("{RPC}.{NOBODY}.{NOBODY}.{NOBODY}"));
    }
    if class.serves() {
        let inboxes = CallerClass::ALL.map(|class| format!("{INBOX}{}.{NOBODY}.call.0", class.as_str()));
        all.extend(inboxes);
        all.push(format!("{EVENT}.{NOBODY}.{NOBODY}.{}", EventKind::Call.as_str()));
    }
    if class.answers_imports() {
        all.push(format!("{IMPORTED}{NOBODY}"));
    }
    all
}

/// Whether a client of ours may ask for answers there: an inbox, or what a service import makes of one.
#[must_use]
pub fn is_client_reply(subject: &str) -> bool {
    subject.starts_with("_INBOX") || subject.starts_with(IMPORTED)
}

/// Whether a subject is the inbox of a call of a known class of caller: [`Subject::Inbox`], told without taking it apart.
#[must_use]
pub fn is_inbox(subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let class = tokens.next().and_then(|inbox| inbox.strip_prefix(INBOX));
    class.is_some_and(|class| CallerClass::ALL.into_iter().any(|known| known.as_str() == class))
        && tokens.next().is_some_and(token::is_token)
        && tokens.next() == Some("call")
        && tokens.next().is_some_and(|call| parse_call(call).is_some())
        && tokens.next().is_none()
}

/// Whether it is the broker that tells of the end of a connection. What somebody has JetStream deliver to the same subscription keeps the
/// subject that it was written under.
#[must_use]
pub fn is_disconnect(subject: &str) -> bool {
    subject.starts_with(BROKER_EVENT)
}

/// Whether an inbox is the one that a caller has for one of its calls.
#[must_use]
pub fn is_inbox_of(inbox: &str, caller: &str, call: u64) -> bool {
    let instance = inbox.split('.').nth(1);
    instance.is_some_and(|instance| instance == Token::encode(caller).as_str())
        && call_of_inbox(inbox) == Some(call)
}

/// All calls to one server.
#[must_use]
pub fn all_calls(tenant: &Token, server: &Token) -> String {
    format!("{RPC}.{tenant}.{server}.>")
}

/// All calls to one version of a server.
#[must_use]
pub fn all_version_calls(tenant: &Token, server: &Token, version: &Token) -> String {
    format!("{VERSION}.{tenant}.{server}.{version}.>")
}

/// The token of the version that a call is for, read without taking the rest apart; `None` when it is for any.
#[must_use]
pub fn version_of_call(subject: &str) -> Option<&str> {
    let rest = subject.strip_prefix(VERSION)?.strip_prefix('.')?;
    rest.split('.').nth(2)
}

/// All words to one instance of a server.
#[must_use]
pub fn all_instance_words(tenant: &Token, server: &Token, instance: &Token) -> String {
    format!("{INSTANCE}.{tenant}.{server}.{instance}.*")
}

/// Where the broker tells one instance of a server that callers are gone.
#[must_use]
pub fn all_gone(tenant: &Token, server: &Token, instance: &Token) -> String {
    format!("{INSTANCE}.{tenant}.{server}.{instance}.gone.*.*")
}

/// What is told of all servers of a tenant, of one kind.
#[must_use]
pub fn all_events(tenant: &Token, kind: EventKind) -> String {
    format!("{EVENT}.{tenant}.*.{}", kind.as_str())
}

/// What is told of all tasks, of every tenant.
#[must_use]
pub fn all_task_events() -> String {
    format!("{EVENT}.*.*.{}", EventKind::Task.as_str())
}

/// What is told of one server of every tenant, of one kind.
#[must_use]
pub fn all_events_of(server: &Token, kind: EventKind) -> String {
    format!("{EVENT}.*.{server}.{}", kind.as_str())
}

/// The comings and goings of replicas, of every tenant. One subscription for all of them: what a replica says comes in the order
/// in which it was said only within one.
#[must_use]
pub fn all_replica_events() -> String {
    format!("{EVENT}.*.*.replica.*")
}

/// All counts over windows of a length.
#[must_use]
pub fn all_counters(span: Span) -> String {
    format!("{COUNTER}.{}.>", span.as_str())
}

/// All answers to the calls of one process.
#[must_use]
pub fn all_answers(class: CallerClass, instance: &Token) -> String {
    format!("{INBOX}{}.{instance}.call.*", class.as_str())
}

/// The call number at the end of an inbox's subject, read without looking at the rest.
#[must_use]
pub fn call_of_inbox(subject: &str) -> Option<u64> {
    u64::from_str_radix(subject.rsplit('.').next()?, 16).ok()
}

/// The prefix for the NATS client library's own request inboxes, beside those of our calls.
#[must_use]
pub fn library_inbox_prefix(class: CallerClass, instance: &Token) -> String {
    format!("{INBOX}{}.{instance}.lib", class.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::method::NAMED;
    use proptest::prelude::*;

    fn token() -> impl Strategy<Value = Token> {
        ".{0,80}".prop_map(|name| Token::encode(&name))
    }

    fn method() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("tools/call".to_owned()),
            Just("resources/read".to_owned()),
            Just("server/discover".to_owned()),
            "[a-z.]{1,12}(/[a-zA-Z_.]{1,12}){0,3}",
        ]
    }

    fn hook() -> impl Strategy<Value = Subject> {
        (token(), token()).prop_map(|(tenant, name)| Subject::Hook { tenant, name })
    }

    fn counter() -> impl Strategy<Value = Subject> {
        let span = prop::sample::select(Span::ALL.to_vec());
        (span, token(), token(), any::<u64>()).prop_map(|(span, limit, key, window)| Subject::Counter {
            span,
            limit,
            key,
            window,
        })
    }

    fn instance() -> impl Strategy<Value = Subject> {
        let verb = prop::sample::select(InstanceVerb::ALL.to_vec());
        (token(), token(), token(), verb).prop_map(|(tenant, server, instance, verb)| Subject::Instance {
            tenant,
            server,
            instance,
            verb,
        })
    }

    fn subject() -> impl Strategy<Value = Subject> {
        prop_oneof![
            (token(), token(), method()).prop_map(|(tenant, server, method)| Subject::Rpc {
                tenant,
                server,
                method: MethodPath::encode(&method)
            }),
            (token(), token(), token(), method()).prop_map(|(tenant, server, version, method)| {
                Subject::Version {
                    tenant,
                    server,
                    version,
                    method: MethodPath::encode(&method),
                }
            }),
            instance(),
            (token(), token()).prop_map(|(tenant, server)| Subject::Cancel { tenant, server }),
            (token(), token(), token(), token(), any::<u64>()).prop_map(
                |(tenant, server, instance, caller, call)| Subject::Gone {
                    tenant,
                    server,
                    instance,
                    caller,
                    call,
                }
            ),
            (token(), token(), prop::sample::select(EventKind::ALL.to_vec()))
                .prop_map(|(tenant, server, kind)| Subject::Event { tenant, server, kind }),
            token().prop_map(|tenant| Subject::Watch { tenant }),
            token().prop_map(|tenant| Subject::DoorCancel { tenant }),
            prop_oneof![counter(), hook()],
            (
                prop::sample::select(CallerClass::ALL.to_vec()),
                token(),
                any::<u64>()
            )
                .prop_map(|(class, instance, call)| Subject::Inbox {
                    class,
                    instance,
                    call
                }),
            (token(), token(), method(), token()).prop_map(|(tenant, server, method, name)| {
                Subject::Public {
                    tenant,
                    server,
                    name: NAMED.contains(&method.as_str()).then_some(name),
                    method: MethodPath::encode(&method),
                }
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_call_is_spelled_the_same_from_names(tenant in ".{0,80}", server in ".{0,80}", method in method()) {
            let subject = Subject::Rpc {
                tenant: Token::encode(&tenant),
                server: Token::encode(&server),
                method: MethodPath::encode(&method),
            };
            prop_assert_eq!(call(&tenant, &server, &method), subject.to_string());
        }

        #[test]
        fn inboxes_are_told_apart(subject in subject()) {
            let expected = matches!(subject, Subject::Inbox { .. });
            prop_assert_eq!(is_inbox(&subject.to_string()), expected);
        }

        #[test]
        fn the_version_of_a_call_is_read_as_it_was_written(subject in subject()) {
            let expected = match &subject {
                Subject::Version { version, .. } => Some(version.to_string()),
                _ => None,
            };
            let text = subject.to_string();
            prop_assert_eq!(version_of_call(&text), expected.as_deref());
        }

        #[test]
        fn an_inbox_belongs_to_one_call_of_one_caller(caller in ".{0,70}", other in ".{0,70}", call in any::<u64>()) {
            let inbox = Subject::Inbox { class: CallerClass::Bridge, instance: Token::encode(&caller), call }.to_string();
            prop_assert!(is_inbox_of(&inbox, &caller, call));
            prop_assert!(!is_inbox_of(&inbox, &caller, call ^ 1));
            prop_assert_eq!(is_inbox_of(&inbox, &other, call), caller == other);
        }

        #[test]
        fn every_subject_built_parses_back(subject in subject()) {
            prop_assert_eq!(Subject::parse(&subject.to_string()), Ok(subject));
        }

        #[test]
        fn no_text_panics_and_what_parses_is_canonical(text in "[a-z_.$*>A-Z0-9 ]{0,60}") {
            if let Ok(subject) = Subject::parse(&text) {
                prop_assert_eq!(subject.to_string(), text);
            }
        }
    }
}
