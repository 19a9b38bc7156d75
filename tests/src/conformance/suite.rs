//! Runs the suite against an endpoint and reads its verdicts.
//!
//! The suite takes a warning or a skipped check for no failure. Here both are faults: a server that hides what it cannot do gets
//! its checks skipped.

use std::{collections::BTreeMap, fmt, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Deserialize;
use tokio::{process::Command, time::timeout};

use crate::parts;

/// A set takes some ten seconds; each scenario that hangs costs up to half a minute.
const RUN_LIMIT: Duration = Duration::from_mins(10);
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// How much of what a client says when it fails is shown.
const CLIENT_LINES: usize = 6;

/// How the names of scenarios about OAuth begin.
const OAUTH: &str = "auth/";

/// The revision that the suite speaks, and of which it runs the scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Wire {
    /// 2025-11-25
    Legacy,
    /// 2026-07-28
    Modern,
}

impl Wire {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Modern];

    /// The revision as the suite and the protocol write it.
    #[must_use]
    pub fn revision(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.revision())
    }
}

/// Whom the scenarios judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// A server.
    Server,
    /// A client.
    Client,
}

/// The scenarios of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenarios {
    /// Those that an implementation of the revision has to pass.
    pub scored: Vec<String>,
    /// Those that are run all the same: extensions, and what the suite has not released yet.
    pub others: Vec<String>,
}

/// Something that a check found wrong, or could not look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The scenario.
    pub scenario: String,
    /// The check in it.
    pub check: String,
    /// How bad it is.
    pub status: Status,
    /// What was found.
    pub message: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It holds.
    Success,
    /// It says something and judges nothing.
    Info,
    /// It was not looked at.
    Skipped,
    /// Something that should hold does not.
    Warning,
    /// Something that must hold does not.
    Failure,
}

/// What the suite found in one run.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The scenarios that were to be run.
    pub scenarios: Scenarios,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    id: String,
    status: Status,
    error_message: Option<String>,
}

impl Scenarios {
    /// Asks the suite for the scenarios of a revision. Those of OAuth, which are for clients only, are left out.
    ///
    /// # Errors
    /// When the suite does not run, or says something else than expected.
    pub async fn of(wire: Wire, judged: Judged) -> anyhow::Result<Self> {
        let mut command = suite();
        command.args(["list", "--requirements", wire.revision()]);
        let output = timeout(LIST_LIMIT, command.output())
            .await
            .context("the suite did not list its scenarios in time")??;
        let scenarios = Self::read(&String::from_utf8_lossy(&output.stdout), judged);
        if scenarios.scored.is_empty() {
            bail!(
                "the suite lists no scenarios of {wire}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(scenarios)
    }

    fn read(listing: &str, judged: Judged) -> Self {
        let (heading, suffix) = match judged {
            Judged::Server => ("Server scenarios", " [server]"),
            Judged::Client => ("Client scenarios", " [client]"),
        };
        let mut found = Self::default();
        let mut scored = false;
        for line in listing.lines() {
            let Some(name) = line.trim().strip_prefix("- ") else {
                if !line.trim().is_empty() {
                    scored = line.starts_with(heading);
                }
                continue;
            };
            if name.starts_with(OAUTH) {
                continue;
            }
            if scored {
                found.scored.push(name.to_owned());
            } else if let Some(name) = name.strip_suffix(suffix) {
                found.others.push(name.to_owned());
            }
        }
        found
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.scored.iter().chain(&self.others)
    }
}

/// Plays all scenarios for clients of a revision, one after the other, with a program that takes the server's URL as its last
/// argument.
///
/// # Errors
/// When the suite cannot be run.
pub async fn run_client(program: &str, wire: Wire) -> anyhow::Result<Findings> {
    let scenarios = Scenarios::of(wire, Judged::Client).await?;
    let folder = tempfile::tempdir().context("cannot make a folder for the suite's findings")?;
    let mut broken = Vec::new();
    for scenario in scenarios.all() {
        let mut command = suite();
        command
            .args(["client", "--command", program, "--scenario", scenario])
            .args(["--spec-version", wire.revision(), "-o"])
            .arg(folder.path());
        let ran = timeout(RUN_LIMIT, command.output())
            .await
            .with_context(|| format!("{scenario} did not end within {RUN_LIMIT:?}"))?
            .context("the suite does not start")?;
        broken.extend(broken_client(scenario, &String::from_utf8_lossy(&ran.stderr)));
    }
    let mut found = findings(scenarios, read(folder.path(), "")?);
    found.faults.extend(broken);
    Ok(found)
}

/// A client that has failed passes a scenario which only looks for what must not arrive.
fn broken_client(scenario: &str, said: &str) -> Option<Fault> {
    let at = said
        .find("Client exited with code")
        .or_else(|| said.find("Client timed out"))?;
    let message: Vec<&str> = said[at..]
        .lines()
        .filter(|line| !line.is_empty())
        .take(CLIENT_LINES)
        .collect();
    Some(Fault {
        scenario: scenario.to_owned(),
        check: "client".to_owned(),
        status: Status::Failure,
        message: message.join(" "),
    })
}

/// Runs all scenarios for servers of a revision against an endpoint.
///
/// # Errors
/// When the suite cannot be run.
pub async fn run(url: &str, wire: Wire) -> anyhow::Result<Findings> {
    let scenarios = Scenarios::of(wire, Judged::Server).await?;
    let folder = tempfile::tempdir().context("cannot make a folder for the suite's findings")?;
    let mut command = suite();
    command
        .args(["server", "--url", url, "--requirements", wire.revision(), "-o"])
        .arg(folder.path());
    let ran = timeout(RUN_LIMIT, command.output())
        .await
        .with_context(|| format!("the suite did not end within {RUN_LIMIT:?}"))?
        .context("the suite does not start")?;
    let checks = read(folder.path(), "server-")?;
    if checks.is_empty() {
        bail!(
            "the suite found nothing: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    Ok(findings(scenarios, checks))
}

fn findings(scenarios: Scenarios, mut checks: BTreeMap<String, Vec<Check>>) -> Findings {
    let mut faults = Vec::new();
    for scenario in scenarios.all() {
        match checks.remove(scenario) {
            Some(checks) => faults.extend(checks.into_iter().filter_map(|check| check.fault(scenario))),
            None => faults.push(Fault {
                scenario: scenario.clone(),
                check: scenario.clone(),
                status: Status::Failure,
                message: "the suite could not play it to its end".to_owned(),
            }),
        }
    }
    // A check that is made several times is one fault, told of by what is worst.
    faults.sort_by_key(|fault| (fault.scenario.clone(), fault.check.clone(), fault.status as u8));
    faults.reverse();
    faults.dedup_by(|later, kept| later.scenario == kept.scenario && later.check == kept.check);
    faults.reverse();
    Findings { scenarios, faults }
}

impl Check {
    fn fault(self, scenario: &str) -> Option<Fault> {
        if matches!(self.status, Status::Success | Status::Info) {
            return None;
        }
        Some(Fault {
            scenario: scenario.to_owned(),
            check: self.id,
            status: self.status,
            message: self.error_message.unwrap_or_default(),
        })
    }
}

impl Findings {
    /// How many of these scenarios had no failure, as the suite counts.
    #[must_use]
    pub fn passed(&self, scenarios: &[String]) -> usize {
        let failed = |scenario: &&String| {
            self.faults
                .iter()
                .any(|fault| fault.scenario == **scenario && fault.status == Status::Failure)
        };
        scenarios.iter().filter(|scenario| !failed(scenario)).count()
    }
}

fn suite() -> Command {
    let mut command = parts::node(&parts::package("@modelcontextprotocol/conformance/dist/index.js"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The checks by scenario. The suite makes a folder `<prefix><scenario>-<time>` for each.
fn read(folder: &Path, prefix: &str) -> anyhow::Result<BTreeMap<String, Vec<Check>>> {
    let mut found = BTreeMap::new();
    for entry in folder.read_dir().context("the suite's findings cannot be read")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(scenario) = scenario_of(&name, prefix) else {
            continue;
        };
        let path = entry.path().join("checks.json");
        // It is not there when the scenario broke off.
        if !path.exists() {
            continue;
        }
        let text = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let checks = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not what the suite writes", path.display()))?;
        found.insert(scenario.to_owned(), checks);
    }
    Ok(found)
}

fn scenario_of<'a>(folder: &'a str, prefix: &str) -> Option<&'a str> {
    /// As in `-2026-07-28T01-02-03-004Z`.
    const TIME: usize = 25;
    let rest = folder.strip_prefix(prefix)?;
    rest.get(..rest.len().checked_sub(TIME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listing_of_the_suite_is_read() {
        let listing = "Required for X (3 scenarios):\n\nServer scenarios (test against a server):\n  - ping\n  - tools-list\n\n\
                       Client scenarios (test against a client):\n  - initialize\n  - auth/scope\n\nRun and reported, but never \
                       scored:\n  extension (3):\n    - tasks-lifecycle [server]\n    - auth/dpop [client]\n    - \
                       preservation [client]\n";
        for (judged, scored, others) in [
            (
                Judged::Server,
                vec!["ping", "tools-list"],
                vec!["tasks-lifecycle"],
            ),
            (Judged::Client, vec!["initialize"], vec!["preservation"]),
        ] {
            let expected = Scenarios {
                scored: scored.into_iter().map(str::to_owned).collect(),
                others: others.into_iter().map(str::to_owned).collect(),
            };
            assert_eq!(Scenarios::read(listing, judged), expected);
        }
    }

    #[test]
    fn a_client_that_fails_is_a_fault() {
        for (said, expected) in [
            (
                "Executing client: x\n\nClient exited with code 1\n\nStderr:\nerror: no\n",
                Some("Client exited with code 1 Stderr: error: no"),
            ),
            (
                "\nClient timed out after 30000ms\n",
                Some("Client timed out after 30000ms"),
            ),
            ("Executing client: x\nChecks: none\n", None),
        ] {
            let fault = broken_client("s", said);
            assert_eq!(fault.map(|fault| fault.message).as_deref(), expected);
        }
    }

    #[test]
    fn a_folder_names_its_scenario() {
        for (folder, expected) in [
            ("server-ping-2026-11-23T00-04-09-990Z", Some("ping")),
            (
                "server-server-sse-polling-2026-11-23T00-04-11-954Z",
                Some("server-sse-polling"),
            ),
            ("client-ping-2026-11-23T00-04-09-990Z", None),
            ("server-x", None),
        ] {
            assert_eq!(scenario_of(folder, "server-"), expected, "{folder}");
        }
    }
}
