//! The subjects of the NATS services protocol (ADR-32).

const SERVICES: &str = "$SRV";

/// The verbs of the NATS services protocol (ADR-32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceVerb {
    /// Is it there?
    Ping,
    /// What is it?
    Info,
    /// How does it do?
    Stats,
}

impl ServiceVerb {
    /// Reads the verb of a subject of the services protocol.
    #[must_use]
    pub fn of(subject: &str) -> Option<Self> {
        match subject.split('.').nth(1)? {
            "PING" => Some(Self::Ping),
            "INFO" => Some(Self::Info),
            "STATS" => Some(Self::Stats),
            _ => None,
        }
    }
}

/// The subject that asks all services of a bus for their description.
#[must_use]
pub fn ask_all_services() -> String {
    format!("{SERVICES}.INFO")
}

/// The subject that asks the instances of one service how they do.
#[must_use]
pub fn ask_stats(name: &str) -> String {
    format!("{SERVICES}.STATS.{name}")
}

/// The three subscriptions by which one service instance answers all verbs: to all, by name, by id.
#[must_use]
pub fn service_questions(name: &str, id: &str) -> [String; 3] {
    [
        format!("{SERVICES}.*"),
        format!("{SERVICES}.*.{name}"),
        format!("{SERVICES}.*.{name}.{id}"),
    ]
}
