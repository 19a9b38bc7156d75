//! One cell of the table: a server behind the platform, or by itself, and the revision that the suite speaks to it.

use super::{
    suite::{self, Findings, Wire},
    upstream::Upstream,
};

/// Which cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The name of the server.
    pub upstream: String,
    /// Whether the platform is in between.
    pub through: Through,
    /// What the suite speaks.
    pub wire: Wire,
}

/// What stands between the suite and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Through {
    /// The platform.
    Platform,
    /// Nothing.
    Nothing,
}

/// What came of a cell: the suite's findings, or why it could not look.
pub type Outcome = Result<Findings, String>;

impl Cell {
    /// What the table and the baseline call its server.
    #[must_use]
    pub fn row(&self) -> String {
        match self.through {
            Through::Platform => self.upstream.clone(),
            Through::Nothing => format!("direct/{}", self.upstream),
        }
    }
}

/// Plays the cells of one server. Directly it can be called only if it listens, and only in an era that it speaks.
pub async fn play(upstream: Upstream, through: Through, wires: &[Wire]) -> Vec<(Cell, Outcome)> {
    let cell = |wire: Wire| Cell {
        upstream: upstream.name(),
        through,
        wire,
    };
    // The harness says by a panic what does not start.
    let wires_now = wires.to_vec();
    let played = tokio::spawn(async move {
        match through {
            Through::Platform => play_behind(upstream, &wires_now).await,
            Through::Nothing => play_alone(upstream, &wires_now).await,
        }
    });
    let outcomes = match played.await {
        Ok(Ok(outcomes)) => outcomes,
        Ok(Err(error)) => wires
            .iter()
            .map(|wire| (*wire, Err(format!("{error:#}"))))
            .collect(),
        Err(panic) => {
            let why = words(panic);
            wires.iter().map(|wire| (*wire, Err(why.clone()))).collect()
        }
    };
    outcomes
        .into_iter()
        .map(|(wire, outcome)| (cell(wire), outcome))
        .collect()
}

/// The row of the cells in which the suite is the server.
pub const CLIENT: &str = "client";

/// Plays the cells in which the suite is the server, with a program that is the platform as its client.
pub async fn play_client(program: &str, wires: &[Wire]) -> Vec<(Cell, Outcome)> {
    let mut outcomes = Vec::new();
    for wire in wires {
        let cell = Cell {
            upstream: CLIENT.to_owned(),
            through: Through::Platform,
            wire: *wire,
        };
        let found = suite::run_client(program, *wire).await;
        outcomes.push((cell, found.map_err(|error| format!("{error:#}"))));
    }
    outcomes
}

async fn play_behind(upstream: Upstream, wires: &[Wire]) -> anyhow::Result<Vec<(Wire, Outcome)>> {
    let behind = upstream.start().await?;
    let outcomes = look(&behind.url(), wires).await;
    behind.stop().await;
    Ok(outcomes)
}

async fn play_alone(upstream: Upstream, wires: &[Wire]) -> anyhow::Result<Vec<(Wire, Outcome)>> {
    let spoken: Vec<Wire> = wires
        .iter()
        .copied()
        .filter(|wire| upstream.speaks(*wire))
        .collect();
    match upstream.start_alone().await? {
        Some(alone) => Ok(look(&alone.url(), &spoken).await),
        None => Ok(Vec::new()),
    }
}

async fn look(url: &str, wires: &[Wire]) -> Vec<(Wire, Outcome)> {
    let mut outcomes = Vec::new();
    for wire in wires {
        let found = suite::run(url, *wire).await;
        outcomes.push((*wire, found.map_err(|error| format!("{error:#}"))));
    }
    outcomes
}

fn words(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "it was cancelled".to_owned();
    };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
