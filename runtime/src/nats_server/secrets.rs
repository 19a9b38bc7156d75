//! What is secret about a nats-server of ours: a password for each role and the keys of the auth callout, made once for each data folder.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use bus_schema::subject::CallerClass;
use nkeys::{KeyPair, XKey};

use crate::callout::{CalloutKeys, USER as CALLOUT};

/// The user of whoever looks at the services that are there, such as `nats micro`.
const OBSERVER: &str = "observer";
/// The files with the seeds of the callout's keys.
const SIGNING_SEED: &str = "callout-signing.seed";
const SEALING_SEED: &str = "callout-sealing.seed";

/// The secrets of a data folder.
#[derive(Clone)]
pub struct Secrets {
    /// A password for each role.
    passwords: Vec<(CallerClass, String)>,
    /// The password of the callout's own connection.
    callout: String,
    observer: String,
    keys: CalloutKeys,
}

impl Secrets {
    /// Reads them, and makes those that are not there. Only their owner may read the files.
    pub(super) fn make(data_dir: &Path) -> io::Result<Self> {
        let password = |role: &str| kept(data_dir, &secret_file(role), new_password);
        let passwords = CallerClass::ALL
            .into_iter()
            .map(|class| Ok((class, password(class.as_str())?)))
            .collect::<io::Result<_>>()?;
        let signing = kept(data_dir, SIGNING_SEED, || {
            KeyPair::new_account().seed().map_err(io::Error::other)
        })?;
        let sealing = kept(data_dir, SEALING_SEED, || {
            XKey::new().seed().map_err(io::Error::other)
        })?;
        Ok(Self {
            passwords,
            callout: password(CALLOUT)?,
            observer: password(OBSERVER)?,
            keys: CalloutKeys::from_seeds(&signing, &sealing).map_err(io::Error::other)?,
        })
    }

    /// Reads those that are there; `None` when no platform has run in the folder.
    pub(super) fn find(data_dir: &Path) -> Option<Self> {
        let password = |role: &str| read(data_dir, &secret_file(role));
        let passwords = CallerClass::ALL
            .into_iter()
            .map(|class| Some((class, password(class.as_str())?)))
            .collect::<Option<_>>()?;
        let (signing, sealing) = (read(data_dir, SIGNING_SEED)?, read(data_dir, SEALING_SEED)?);
        Some(Self {
            passwords,
            callout: password(CALLOUT)?,
            observer: password(OBSERVER)?,
            keys: CalloutKeys::from_seeds(&signing, &sealing).ok()?,
        })
    }

    /// The password of a role.
    #[must_use]
    pub fn password(&self, class: CallerClass) -> &str {
        let own = self.passwords.iter().find(|(role, _)| *role == class);
        own.map(|(_, password)| password.as_str()).unwrap_or_default()
    }

    /// The password of the callout's own connection.
    #[must_use]
    pub fn callout_password(&self) -> &str {
        &self.callout
    }

    /// The password of whoever looks at the services that are there.
    #[must_use]
    pub fn observer_password(&self) -> &str {
        &self.observer
    }

    /// The keys of the callout.
    #[must_use]
    pub fn callout_keys(&self) -> &CalloutKeys {
        &self.keys
    }

    /// The passwords as `nats.conf` takes them from the environment.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, &str)> {
        let roles = self
            .passwords
            .iter()
            .map(|(class, password)| (class.as_str(), password.as_str()));
        roles
            .chain([
                (CALLOUT, self.callout.as_str()),
                (OBSERVER, self.observer.as_str()),
            ])
            .map(|(role, password)| (password_variable(role), password))
    }
}

/// The variable that holds the password of a role, for nats-server and for the processes of that role alike.
#[must_use]
pub fn password_variable(role: &str) -> String {
    format!("TRUNKLINE_NATS_{}_PASSWORD", role.to_ascii_uppercase())
}

fn secret_file(role: &str) -> String {
    format!("{role}.secret")
}

fn read(data_dir: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(data_dir.join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What a file holds; it is made when it is not there.
fn kept(data_dir: &Path, file: &str, make: impl FnOnce() -> io::Result<String>) -> io::Result<String> {
    let path = data_dir.join(file);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let text = make()?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(text)
}

/// Begins with a letter: nats-server reads a variable of digits alone as a number.
fn new_password() -> io::Result<String> {
    let mut random = [0_u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let digits = random.iter().map(|byte| format!("{byte:02x}"));
    Ok(std::iter::once("s".to_owned()).chain(digits).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_made_once_and_only_their_owner_may_read_them() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Secrets::find(folder.path()).is_none());
        let made = Secrets::make(folder.path()).expect("secrets");
        let again = Secrets::make(folder.path()).expect("secrets");
        let found = Secrets::find(folder.path()).expect("they are there");
        for other in [again, found] {
            for class in CallerClass::ALL {
                assert_eq!(made.password(class), other.password(class));
            }
            assert_eq!(made.callout_keys().issuer(), other.callout_keys().issuer());
            assert_eq!(made.callout_keys().sealed_to(), other.callout_keys().sealed_to());
        }
        let mut all: Vec<_> = made
            .variables()
            .map(|(_, password)| password.to_owned())
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(
            all.len(),
            CallerClass::ALL.len() + 2,
            "no two users share a password"
        );
        for file in fs::read_dir(folder.path()).expect("files") {
            let file = file.expect("a file");
            let mode = file.metadata().expect("its metadata").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.path().display());
        }
    }
}
