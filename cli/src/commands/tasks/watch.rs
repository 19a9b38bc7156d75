//! `trunkline tasks watch`: one task until it has ended, as a bar on a terminal and as lines elsewhere.

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::bail;
use bridges::admin::{TaskDesk, TaskTold, Whose};
use bus_schema::{
    RpcError,
    task::{State, Task},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::percent;
use crate::{
    args::NamedTask,
    commands::{output, stopping::Stop},
};

/// How fine the bar is.
const WHOLE: f64 = 1_000.0;

pub(super) async fn run(desk: &TaskDesk, named: &NamedTask) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let mut following = desk.follow(Whose::Everybodys, &named.id).await?;
    let shown = Shown::of(named)?;
    loop {
        let task = tokio::select! {
            task = following.next() => task,
            () = stop.requested() => {
                shown.clear();
                return Ok(ExitCode::SUCCESS);
            }
        };
        let Some(task) = task else {
            shown.clear();
            bail!("task `{}` is not kept any more", named.id);
        };
        shown.show(&task)?;
        if task.has_ended() {
            return Ok(code(&task));
        }
    }
}

/// How a task is shown.
enum Shown {
    Json,
    Lines,
    Bar(ProgressBar),
}

impl Shown {
    fn of(named: &NamedTask) -> anyhow::Result<Self> {
        Ok(match (named.ask.json, std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, false) => Self::Lines,
            (false, true) => {
                let style = ProgressStyle::with_template("{bar:30} {prefix:>4} {msg} ({elapsed})")?;
                Self::Bar(ProgressBar::new(1_000).with_style(style))
            }
        })
    }

    fn show(&self, task: &Task) -> anyhow::Result<()> {
        match self {
            Self::Json => return output::json(&TaskTold::whole(task)),
            Self::Lines => output::line(&line(task)),
            Self::Bar(bar) => {
                if task.has_ended() {
                    bar.finish_and_clear();
                    output::line(&line(task));
                    return Ok(());
                }
                let told = task.fraction.map(percent).unwrap_or_default();
                bar.set_prefix(told);
                bar.set_position(position(task));
                bar.set_message(words(task));
            }
        }
        Ok(())
    }

    fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and 1000"
)]
fn position(task: &Task) -> u64 {
    let fraction = task.fraction.unwrap_or_default();
    (fraction.clamp(0.0, 1.0) * WHOLE) as u64
}

fn line(task: &Task) -> String {
    let told = TaskTold::short(task);
    let fraction = told.fraction.filter(|_| !task.has_ended());
    let done = fraction.map(percent).unwrap_or_default();
    format!("{} {:>4} {}", told.updated_at, done, words(task))
        .trim_end()
        .to_owned()
}

/// How it stands, and why or at what.
fn words(task: &Task) -> String {
    let standing = task.standing();
    let more = match &task.state {
        State::Failed { error } => {
            let error = serde_json::from_slice::<RpcError>(&error.0);
            error.map(|error| error.message).unwrap_or_default()
        }
        State::Held { why } => why.clone(),
        State::Waiting { .. } => {
            let asked: Vec<&str> = task.outstanding().map(|(key, _)| key).collect();
            format!("waits for an answer to {}", asked.join(", "))
        }
        State::Completed { .. } if has_failed(task) => "the tool says that it has failed".to_owned(),
        State::Completed { .. } | State::Cancelled => String::new(),
        _ => task.note.clone().unwrap_or_default(),
    };
    match output::short(&more, 100) {
        more if more.is_empty() => standing.to_owned(),
        more => format!("{standing}: {more}"),
    }
}

fn code(task: &Task) -> ExitCode {
    match task.state {
        State::Completed { .. } if !has_failed(task) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Whether the tool says so in its result.
fn has_failed(task: &Task) -> bool {
    let State::Completed { result } = &task.state else {
        return false;
    };
    let result: Value = serde_json::from_slice(&result.0).unwrap_or_default();
    result["isError"] == Value::Bool(true)
}
