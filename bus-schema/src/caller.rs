//! The roles of our processes: the classes of caller, and the users that the broker knows them by.

/// The classes of process of ours, and so the users that the broker knows them by. Each has inboxes of its own, which only its user may
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerClass {
    /// A whole platform in one process, which does what all the others do.
    Node,
    /// Doors.
    Bridge,
    /// What serves servers: the domain servers, and those that run elsewhere.
    Host,
    /// What keeps declarations and approvals.
    Registry,
    /// What works on tasks of servers that know nothing of them.
    Worker,
    /// The command line, and the bridge of a desktop client: what comes and goes with its user, and hosts nothing.
    Cli,
}

impl CallerClass {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Node,
        Self::Bridge,
        Self::Host,
        Self::Registry,
        Self::Worker,
        Self::Cli,
    ];

    /// The name of its user, as `nats.conf` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Registry => "registry",
            Self::Worker => "worker",
            Self::Cli => "cli",
        }
    }

    /// The class of a user; `None` for a user of somebody else's making.
    #[must_use]
    pub fn of_user(user: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == user)
    }

    /// Whether its user may do all that a process of another class does.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self == Self::Node || self == other
    }

    /// Whether it makes calls to any server.
    pub(crate) const fn calls(self) -> bool {
        matches!(self, Self::Node | Self::Bridge | Self::Worker | Self::Cli)
    }

    /// Whether it serves servers.
    pub(crate) const fn serves(self) -> bool {
        matches!(self, Self::Node | Self::Host)
    }

    /// Whether it answers those who call by a service import.
    pub(crate) const fn answers_imports(self) -> bool {
        matches!(self, Self::Node | Self::Bridge)
    }
}
