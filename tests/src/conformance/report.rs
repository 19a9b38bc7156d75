//! The table of all cells, and beneath it what is news.

use std::fmt;

use super::{
    baseline::{Baseline, News},
    cell::{Cell, Outcome},
    suite::{Fault, Findings},
};

/// Scenarios of this name play with the tasks extension, which is counted by itself.
const TASKS: &str = "tasks-";

/// What came of the cells that were played.
pub struct Report {
    cells: Vec<(Cell, Outcome, News)>,
    detail: Detail,
}

/// How much of the findings is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What is news.
    News,
    /// Every fault, known or not.
    Everything,
}

impl Report {
    /// Holds the outcomes against the baseline.
    #[must_use]
    pub fn new(baseline: &Baseline, outcomes: Vec<(Cell, Outcome)>, detail: Detail) -> Self {
        let cells = outcomes
            .into_iter()
            .map(|(cell, outcome)| {
                let news = baseline.news(&cell, &outcome);
                (cell, outcome, news)
            })
            .collect();
        Self { cells, detail }
    }

    /// Whether everything is as the baseline says.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.cells.iter().all(|(_, _, news)| news.is_none())
    }
}

/// Passed scenarios of those that there are: scored, of the tasks extension, and the rest.
struct Score(String, String, String);

impl Score {
    fn of(findings: &Findings) -> Self {
        let scenarios = &findings.scenarios;
        // The one about notifications is skipped by the suite, whoever is asked.
        let skipped = |name: &String| name == "tasks-status-notifications";
        let (tasks, others): (Vec<String>, Vec<String>) = scenarios
            .others
            .iter()
            .filter(|name| !skipped(name))
            .cloned()
            .partition(|name| name.starts_with(TASKS));
        let score = |names: &[String]| match names {
            [] => "-".to_owned(),
            names => format!("{}/{}", findings.passed(names), names.len()),
        };
        Self(score(&scenarios.scored), score(&tasks), score(&others))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.cells.iter().map(|(cell, ..)| cell.row().len()).max();
        let width = widest.unwrap_or_default().max("server".len());
        writeln!(
            f,
            "{:width$}  {:10}  {:>6}  {:>5}  {:>5}  {:>5}  {:>4}",
            "server", "revision", "scored", "tasks", "other", "known", "news"
        )?;
        for (cell, outcome, news) in &self.cells {
            let (row, wire) = (cell.row(), cell.wire.revision());
            match outcome {
                Ok(findings) => {
                    let Score(scored, tasks, others) = Score::of(findings);
                    let (known, count) = (news.known, news.unknown.len() + news.gone.len());
                    writeln!(
                        f,
                        "{row:width$}  {wire:10}  {scored:>6}  {tasks:>5}  {others:>5}  {known:>5}  {count:>4}"
                    )?;
                }
                Err(_) => writeln!(f, "{row:width$}  {wire:10}  could not be played")?,
            }
        }
        for (cell, outcome, news) in &self.cells {
            if !news.is_none() {
                write!(
                    f,
                    "\n{} at {} differs from the baseline:\n{news}",
                    cell.row(),
                    cell.wire
                )?;
            }
            if self.detail == Detail::Everything
                && let Ok(findings) = outcome
            {
                write_faults(f, cell, &findings.faults)?;
            }
        }
        Ok(())
    }
}

fn write_faults(f: &mut fmt::Formatter<'_>, cell: &Cell, faults: &[Fault]) -> fmt::Result {
    if !faults.is_empty() {
        writeln!(f, "\nall faults of {} at {}:", cell.row(), cell.wire)?;
    }
    for fault in faults {
        writeln!(
            f,
            "  {:?} {}:{}: {}",
            fault.status, fault.scenario, fault.check, fault.message
        )?;
    }
    Ok(())
}
