//! What must not be shown: where the platform's own secrets come from, and how long what was read of them counts.
//!
//! A secret is read where it is used, and again when it may have changed; so it is rotated without a restart, and nothing watches.
//! What is done with a secret does not belong here.

mod command;
mod file;
mod held;

use std::{fmt, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

pub(crate) use held::{Held, Read};

/// How long a secret may be, in bytes. A longer file or answer holds something else.
const MAX_BYTES: u64 = 64 * 1024;

/// A text that no log shows, and that is wiped from memory when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From something that does not change while the process runs, such as a variable.
    Fixed {
        /// What that is, for messages.
        name: String,
        /// The secret.
        secret: Secret,
    },
    /// From a file, which is looked at again when it is used and has changed. What it begins and ends with in white space does not count.
    File(PathBuf),
    /// From what a program writes.
    Command(Program),
}

/// A program that writes a secret to its output, such as the client of a vault.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments; no shell reads them.
    pub line: Vec<String>,
    /// After how long it is run again.
    pub every: Duration,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its arguments may hold what lets it in.
        f.debug_tuple("Program").field(&self.line.first()).finish()
    }
}

/// A secret that declarations may name.
#[derive(Clone, Debug)]
pub struct Permitted {
    /// Where it comes from.
    pub source: Source,
    /// The hosts that it may be sent to; `None` is any.
    pub hosts: Option<Vec<String>>,
}

impl Permitted {
    /// One that may be sent anywhere.
    #[must_use]
    pub fn anywhere(source: Source) -> Self {
        Self { source, hosts: None }
    }
}

/// How long what a program has written counts, unless somebody says otherwise.
pub const COMMAND_EVERY: Duration = Duration::from_secs(300);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { name, .. } => f.write_str(name),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Command(program) => {
                let program = program.line.first().map_or("", String::as_str);
                write!(f, "the command `{program}`")
            }
        }
    }
}

/// Says that there is no secret to be had, and why. It never says anything of the secret itself.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot get the secret from {source_name}: {why}")]
pub struct SecretError {
    /// Where it should come from.
    pub source_name: String,
    /// What is wrong.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_and_the_arguments_of_its_program_are_shown_nowhere() {
        let fixed = Source::Fixed {
            name: "the variable KEY".to_owned(),
            secret: Secret::new("s3cret"),
        };
        let command = Source::Command(Program {
            line: vec!["vault".to_owned(), "s3cret".to_owned()],
            every: COMMAND_EVERY,
        });
        for shown in [format!("{fixed:?}{fixed}"), format!("{command:?}{command}")] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        assert!(format!("{fixed}").contains("KEY") && format!("{command}").contains("vault"));
    }
}
