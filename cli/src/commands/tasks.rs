//! `trunkline tasks`: work that outlives its client, looked after from the command line.

mod watch;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context as _;
use bridges::admin::{Answerer, TaskDesk, TaskFilter, TaskTold, Whose};
use bus_schema::{Principal, subject::CallerClass, task::Task};
use runtime::tasks::Tasks;
use serde_json::{json, value::RawValue};

use super::output;
use crate::{
    args::{self, AnswerTask, Ask, ListTasks, TasksCommand},
    config::Config,
    node::{NatsChoice, Node},
};

/// How many tasks are asked for at once.
const PAGE: usize = 200;

pub(crate) async fn run(config: Config, tasks: args::Tasks) -> anyhow::Result<ExitCode> {
    // What is wrong with an answer is said before anything is connected to.
    let answers = match &tasks.command {
        TasksCommand::Answer(wish) => read_answer(wish)?,
        _ => BTreeMap::new(),
    };
    let node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let desk = TaskDesk::new(Tasks::new(node.bus().clone()), &config.tenant);
    let done = obey(&desk, &config.operator(), tasks.command, &answers).await;
    node.stop().await;
    done
}

fn read_answer(wish: &AnswerTask) -> anyhow::Result<BTreeMap<String, Box<RawValue>>> {
    let answer = RawValue::from_string(wish.answer.clone());
    let answer = answer.with_context(|| format!("the answer `{}` is not JSON", wish.answer))?;
    Ok(BTreeMap::from([(wish.key.clone(), answer)]))
}

async fn obey(
    desk: &TaskDesk,
    me: &Principal,
    command: TasksCommand,
    answers: &BTreeMap<String, Box<RawValue>>,
) -> anyhow::Result<ExitCode> {
    let all = Whose::Everybodys;
    match command {
        TasksCommand::List(wanted) => list(desk, &wanted).await?,
        TasksCommand::Show(named) => show(&desk.show(all, &named.id).await?, named.ask)?,
        TasksCommand::Watch(named) => return watch::run(desk, &named).await,
        TasksCommand::Cancel(named) => {
            let task = desk.cancel(all, &named.id).await?;
            tell(&task, named.ask, "is cancelled")?;
        }
        TasksCommand::Retry(named) => {
            let task = desk.retry(&named.id).await?;
            tell(&task, named.ask, "is tried again")?;
        }
        TasksCommand::Discard(named) => {
            let task = desk.discard(&named.id, &me.subject).await?;
            tell(&task, named.ask, "is given up")?;
        }
        TasksCommand::Answer(wish) => {
            // Whoever may start programs of the platform may answer for its callers.
            let answered = desk.answer(all, Answerer::Bus(me), &wish.id, answers).await?;
            if wish.ask.json {
                let told = json!({
                    "id": answered.id,
                    "answered": answered.answered,
                    "outstanding": answered.outstanding,
                });
                output::json(&told)?;
            } else {
                let left = answered.outstanding.join(", ");
                let left = match left.as_str() {
                    "" => "goes on".to_owned(),
                    _ => format!("still waits for {left}"),
                };
                output::line(&format!("task {} {left}", answered.id));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(task: &Task, ask: Ask, what: &str) -> anyhow::Result<()> {
    if ask.json {
        return output::json(&TaskTold::whole(task));
    }
    output::line(&format!("task {} {what}", task.order.id));
    Ok(())
}

async fn list(desk: &TaskDesk, wanted: &ListTasks) -> anyhow::Result<()> {
    let mut filter = TaskFilter {
        standings: wanted.status.clone(),
        server: wanted.server.clone(),
        user: wanted.user.clone(),
        limit: 0,
        cursor: None,
    };
    let mut tasks = Vec::new();
    let is_all = loop {
        filter.limit = PAGE.min(wanted.limit - tasks.len());
        if filter.limit == 0 {
            break false;
        }
        let page = desk.list(Whose::Everybodys, &filter).await?;
        tasks.extend(page.tasks);
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break true;
        }
    };
    if wanted.ask.json {
        let told: Vec<_> = tasks.iter().map(TaskTold::short).collect();
        output::json(&told)?;
    } else {
        let rows: Vec<_> = tasks.iter().map(row).collect();
        output::table(
            &[
                "ID", "STATUS", "SERVER", "TOOL", "USER", "DONE", "CHANGED", "NOTE",
            ],
            &rows,
        );
    }
    if !is_all {
        output::warn(&format!(
            "there may be more than these {}; --limit shows more",
            tasks.len()
        ));
    }
    Ok(())
}

fn row(task: &Task) -> Vec<String> {
    let told = TaskTold::short(task);
    let note = told.why.or(told.note).unwrap_or_default();
    vec![
        told.id.to_owned(),
        told.standing.to_owned(),
        told.server.to_owned(),
        told.tool.unwrap_or("-").to_owned(),
        told.user.to_owned(),
        told.fraction.map(percent).unwrap_or_default(),
        told.updated_at,
        output::short(note, 60),
    ]
}

fn percent(fraction: f64) -> String {
    format!("{:.0}%", fraction.clamp(0.0, 1.0) * 100.0)
}

fn show(task: &Task, ask: Ask) -> anyhow::Result<()> {
    let told = TaskTold::whole(task);
    if ask.json {
        return output::json(&told);
    }
    output::line(&serde_json::to_string_pretty(&told)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_task_is_is_told_in_whole_hundredths() {
        for (fraction, told) in [
            (0.0, "0%"),
            (0.256, "26%"),
            (1.0, "100%"),
            (7.0, "100%"),
            (-1.0, "0%"),
        ] {
            assert_eq!(percent(fraction), told);
        }
    }
}
