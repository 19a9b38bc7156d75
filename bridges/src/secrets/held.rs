//! A secret that is in use: what was read of it last, and when that is looked at again.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use super::{
    Secret, SecretError, Source, command,
    file::{self, Stamp},
};

/// How old a look at a file may be.
const FILE_LOOK: Duration = Duration::from_secs(1);
/// When a source is asked again that has just failed, and gave something before.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// A program is not run again for what is refused so soon after it was run for that.
const REFUSED_FLOOR: Duration = Duration::from_secs(5);
/// When something is looked at again that does not change.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A secret, read when it is first used.
pub(crate) struct Held {
    source: Source,
    /// Held while the source is read, so that it is read once for all who wait.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<Known>,
    /// When the program was last run because somebody refused what it had written.
    refused: Option<Instant>,
}

#[derive(Clone)]
struct Known {
    secret: Arc<Secret>,
    until: Instant,
    stamp: Option<Stamp>,
}

/// A secret, and when it is to be asked for again.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) secret: Arc<Secret>,
    pub(crate) until: Instant,
}

impl Held {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            state: Mutex::default(),
        }
    }

    /// Where it comes from.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The secret as it is now, or was a moment ago. A source that fails after it has given one costs a warning: what is known
    /// goes on to be used until somebody refuses it.
    ///
    /// # Errors
    /// [`SecretError`] when nothing is known.
    pub(crate) async fn get(&self) -> Result<Read, SecretError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(known) = state.known.as_ref().filter(|known| now < known.until) {
            return Ok(known.to_read());
        }
        let stamp = state.known.as_ref().and_then(|known| known.stamp);
        match self.read(stamp).await {
            Ok(Some(new)) => Ok(state.known.insert(new).to_read()),
            Ok(None) => self.again_until(&mut state, FILE_LOOK, None),
            Err(error) => self.again_until(&mut state, AFTER_FAILURE, Some(error)),
        }
    }

    /// The secret as its source has it at this moment, for whoever was refused with what was known.
    ///
    /// # Errors
    /// [`SecretError`] when the source gives none.
    pub(crate) async fn again(&self) -> Result<Read, SecretError> {
        let mut state = self.state.lock().await;
        if matches!(self.source, Source::Command(_)) {
            let now = Instant::now();
            let recent = state
                .refused
                .is_some_and(|refused| now.duration_since(refused) < REFUSED_FLOOR);
            if let Some(known) = state.known.as_ref().filter(|_| recent) {
                return Ok(known.to_read());
            }
            state.refused = Some(now);
        }
        match self.read(None).await {
            Ok(Some(new)) => Ok(state.known.insert(new).to_read()),
            Ok(None) => Err(self.error("it is empty".to_owned())),
            Err(why) => Err(self.error(why)),
        }
    }

    /// Goes on with what is known.
    fn again_until(
        &self,
        state: &mut State,
        pause: Duration,
        failed: Option<String>,
    ) -> Result<Read, SecretError> {
        let Some(known) = state.known.as_mut() else {
            return Err(self.error(failed.unwrap_or_else(|| "it is empty".to_owned())));
        };
        if let Some(why) = failed {
            warn!(source = %self.source, why, "a secret cannot be read again; the one that is known is used");
        }
        known.until = Instant::now() + pause;
        Ok(known.to_read())
    }

    /// Reads the source; `None` when it is what it was by its stamp.
    async fn read(&self, stamp: Option<Stamp>) -> Result<Option<Known>, String> {
        let known = |secret, stamp, pause| {
            let until = Instant::now() + pause;
            Some(Known {
                secret: Arc::new(secret),
                until,
                stamp,
            })
        };
        match &self.source {
            Source::Fixed { secret, .. } => Ok(known(secret.clone(), None, NEVER)),
            Source::File(path) => {
                if stamp.is_some() && stamp == Some(file::stamp(path).await?) {
                    return Ok(None);
                }
                let (secret, stamp) = file::read(path).await?;
                Ok(known(secret, Some(stamp), FILE_LOOK))
            }
            Source::Command(program) => Ok(known(command::run(program).await?, None, program.every)),
        }
    }

    fn error(&self, why: String) -> SecretError {
        SecretError {
            source_name: self.source.to_string(),
            why,
        }
    }
}

impl Known {
    fn to_read(&self) -> Read {
        Read {
            secret: Arc::clone(&self.secret),
            until: self.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use tokio::time::advance;

    use super::{
        super::{COMMAND_EVERY, Program},
        *,
    };

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("trunkline-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    async fn said(held: &Held) -> String {
        held.get().await.unwrap().secret.expose().to_owned()
    }

    /// Lets the last look at a file be too old. Time goes by for files as well, as their times tell states apart.
    async fn later() {
        advance(FILE_LOOK * 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_when_it_was_written_or_its_link_leads_elsewhere() {
        let folder = folder("held-file");
        // As Kubernetes mounts a secret: the file is a link into `..data`, which is a link that is exchanged as a whole.
        let put = |generation: &str, text: &str| {
            let version = folder.join(generation);
            fs::create_dir_all(&version).unwrap();
            fs::write(version.join("token"), text).unwrap();
            symlink(generation, folder.join("..tmp")).unwrap();
            fs::rename(folder.join("..tmp"), folder.join("..data")).unwrap();
        };
        put("..1", "one\n");
        symlink(Path::new("..data").join("token"), folder.join("token")).unwrap();
        let held = Held::new(Source::File(folder.join("token")));
        assert_eq!(said(&held).await, "one");
        put("..2", "two\n");
        assert_eq!(said(&held).await, "one", "it was looked at a moment ago");
        later().await;
        assert_eq!(said(&held).await, "two");
        fs::write(folder.join("..2/token"), "three and more").unwrap();
        assert_eq!(held.again().await.unwrap().secret.expose(), "three and more");
        // One that is gone, or half written, is no reason to forget what was read.
        fs::write(folder.join("..2/token"), "").unwrap();
        later().await;
        assert_eq!(said(&held).await, "three and more");
        fs::remove_dir_all(&folder).unwrap();
        let error = held.again().await.unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("three"), "{error}");
    }

    fn command(script: &str) -> Held {
        let line = ["sh", "-c", script].map(str::to_owned).to_vec();
        Held::new(Source::Command(Program {
            line,
            every: COMMAND_EVERY,
        }))
    }

    #[tokio::test]
    async fn a_program_is_run_again_after_its_time_or_once_for_a_refusal() {
        let folder = folder("held-command");
        let runs = folder.join("runs");
        let script = format!("echo x >> {0}; wc -l < {0}", runs.display());
        let held = command(&script);
        assert_eq!([said(&held).await, said(&held).await], ["1", "1"]);
        assert_eq!(held.again().await.unwrap().secret.expose(), "2");
        assert_eq!(
            held.again().await.unwrap().secret.expose(),
            "2",
            "a server that refuses everything does not run it all the time"
        );
        assert_eq!(said(&held).await, "2");
        held.state.lock().await.known.as_mut().unwrap().until = Instant::now();
        assert_eq!(said(&held).await, "3");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_program_that_fails_is_named_and_what_it_says_is_not() {
        for (script, words) in [
            ("echo s3cret; echo s3cret >&2; exit 7", "exit status: 7"),
            ("true", "empty"),
            ("head -c 70000 /dev/zero | tr '\\0' x", "more than"),
            ("printf '\\377'", "cannot be read"),
        ] {
            let error = command(script).get().await.unwrap_err().to_string();
            assert!(error.contains("`sh`") && error.contains(words), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let nobody = Held::new(Source::Command(Program {
            line: vec!["/nowhere/vault".to_owned()],
            every: COMMAND_EVERY,
        }));
        let error = nobody.get().await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/vault"), "{error}");
        assert!(error.contains("cannot be started"), "{error}");
    }

    #[tokio::test]
    async fn a_program_does_not_see_what_is_the_platforms() {
        let held = command("env | grep -c '^TRUNKLINE_' || true");
        assert_eq!(said(&held).await, "0");
    }
}
