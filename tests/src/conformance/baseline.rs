//! The faults that are known, each with its reason, and what differs from them.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

use super::{
    cell::{Cell, Outcome},
    suite::Fault,
};
use crate::root;

/// Stands for a cell that cannot be played, in place of its scenarios.
const WHOLE_CELL: &str = "*";

/// Known faults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    #[serde(default)]
    expected: Vec<Expected>,
}

/// Known faults with one reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The rows of the table, where `*` stands for anything.
    upstreams: Vec<String>,
    /// The revision, or every one.
    revision: Option<String>,
    /// Scenarios, or `scenario:check` for one check only, or `*` for a cell that cannot be played at all.
    scenarios: Vec<String>,
    /// Why it is so. Only readers need it.
    #[expect(dead_code, reason = "it has to be there, for whoever reads the file")]
    reason: String,
}

/// How a cell differs from the baseline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Faults that nobody knows of.
    pub unknown: Vec<Fault>,
    /// What is known as a fault and is none.
    pub gone: Vec<String>,
    /// Why the cell could not be looked at.
    pub broken: Option<String>,
    /// How many faults are known.
    pub known: usize,
}

impl News {
    /// Whether everything is as the baseline says.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.unknown.is_empty() && self.gone.is_empty() && self.broken.is_none()
    }
}

/// Where the baseline is.
#[must_use]
pub fn path() -> PathBuf {
    root().join("tests/conformance/baseline.toml")
}

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    /// What cannot be read in it.
    pub fn load() -> anyhow::Result<Self> {
        let path = path();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// Holds what was found against what is known.
    #[must_use]
    pub fn news(&self, cell: &Cell, outcome: &Outcome) -> News {
        let entries: BTreeSet<&str> = self
            .expected
            .iter()
            .filter(|expected| expected.applies(cell))
            .flat_map(|expected| &expected.scenarios)
            .map(String::as_str)
            .collect();
        let findings = match outcome {
            Ok(findings) => findings,
            Err(_) if entries.contains(WHOLE_CELL) => return News::default(),
            Err(why) => {
                return News {
                    broken: Some(why.clone()),
                    ..News::default()
                };
            }
        };
        let covers = |entry: &str, fault: &Fault| match entry.split_once(':') {
            Some((scenario, check)) => scenario == fault.scenario && check == fault.check,
            None => entry == fault.scenario,
        };
        let unknown: Vec<Fault> = findings
            .faults
            .iter()
            .filter(|fault| !entries.iter().any(|entry| covers(entry, fault)))
            .cloned()
            .collect();
        let gone = entries
            .iter()
            .filter(|entry| !findings.faults.iter().any(|fault| covers(entry, fault)))
            .map(|entry| (*entry).to_owned())
            .collect();
        News {
            known: findings.faults.len() - unknown.len(),
            unknown,
            gone,
            broken: None,
        }
    }
}

impl Expected {
    fn applies(&self, cell: &Cell) -> bool {
        let row = cell.row();
        self.upstreams.iter().any(|pattern| matches(pattern, &row))
            && self
                .revision
                .as_deref()
                .is_none_or(|revision| revision == cell.wire.revision())
    }
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.broken {
            writeln!(f, "  it could not be played: {why}")?;
        }
        for fault in &self.unknown {
            let Fault {
                scenario,
                check,
                status,
                message,
            } = fault;
            writeln!(f, "  {status:?} {scenario}:{check}: {message}")?;
        }
        if !self.gone.is_empty() {
            let gone = self.gone.join(", ");
            writeln!(
                f,
                "  right now, and to be taken out of tests/conformance/baseline.toml: {gone}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{
        cell::Through,
        suite::{Findings, Status, Wire},
    };

    fn fault(scenario: &str, check: &str) -> Fault {
        Fault {
            scenario: scenario.to_owned(),
            check: check.to_owned(),
            status: Status::Failure,
            message: String::new(),
        }
    }

    fn cell(upstream: &str, through: Through) -> Cell {
        Cell {
            upstream: upstream.to_owned(),
            through,
            wire: Wire::Modern,
        }
    }

    fn news(text: &str, cell: &Cell, faults: Vec<Fault>) -> News {
        let baseline: Baseline = toml::from_str(text).expect("a baseline");
        let findings = Findings {
            faults,
            ..Findings::default()
        };
        baseline.news(cell, &Ok(findings))
    }

    const TWO: &str = "[[expected]]\nupstreams = [\"ts2-*\"]\nrevision = \"2026-07-28\"\n\
                       scenarios = [\"tasks\", \"list:order\"]\nreason = \"why\"\n";

    #[test]
    fn a_fault_that_is_not_in_the_baseline_is_news() {
        let faults = vec![fault("tasks", "a"), fault("list", "order"), fault("list", "size")];
        let found = news(TWO, &cell("ts2-http", Through::Platform), faults);
        assert_eq!(
            (found.unknown, found.gone, found.known),
            (vec![fault("list", "size")], vec![], 2)
        );
    }

    #[test]
    fn a_fault_of_the_baseline_that_is_gone_is_news() {
        let found = news(
            TWO,
            &cell("ts2-http", Through::Platform),
            vec![fault("tasks", "a")],
        );
        assert_eq!(found.gone, ["list:order"]);
    }

    #[test]
    fn a_cell_that_cannot_be_played_is_news_unless_it_is_known() {
        let cell = cell("a-http", Through::Platform);
        let known = "[[expected]]\nupstreams = [\"*\"]\nscenarios = [\"*\"]\nreason = \"why\"\n";
        for (text, expected) in [("", Some("broken".to_owned())), (known, None)] {
            let baseline: Baseline = toml::from_str(text).expect("a baseline");
            assert_eq!(baseline.news(&cell, &Err("broken".to_owned())).broken, expected);
        }
        assert_eq!(news(known, &cell, Vec::new()).gone, ["*"]);
    }

    #[test]
    fn an_entry_holds_for_its_own_rows_only() {
        for (upstream, through) in [("ts1-http", Through::Platform), ("ts2-http", Through::Nothing)] {
            let found = news(TWO, &cell(upstream, through), Vec::new());
            assert!(found.is_none(), "{upstream}: {found:?}");
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a-b", "a-b", true),
            ("a-*", "a-b", true),
            ("*-b", "a-b", true),
            ("*", "", true),
            ("*legacy*", "rmcp-legacy-http", true),
            ("a-*", "b-a-", false),
            ("a", "a-b", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
