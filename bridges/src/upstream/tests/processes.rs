//! No process outlives its child, in whatever way that ends.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Pid;

use super::scripted::{limits, script, start, start_with, within};
use crate::upstream::{capabilities::Declared, child::Child, options::Limits};

/// For how long a killed process may still be seen.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The processes of a group that run, as `ps` would tell; what has ended and was not waited for does not count.
fn running(groups: &[Pid]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // After the name, which is in parentheses: state, parent, group.
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = fields.split(' ').collect();
        let group = fields[2].parse().ok().and_then(Pid::from_raw);
        if !matches!(fields[0], "Z" | "X") && group.is_some_and(|group| groups.contains(&group)) {
            found.push(stat);
        }
    }
    found
}

/// The first processes of the groups that nobody has waited for.
fn unreaped(groups: &[Pid]) -> usize {
    groups
        .iter()
        .filter(|group| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", group.as_raw_nonzero()));
            // A number that a stranger has by now belongs to another parent.
            let own = format!(" {} ", std::process::id());
            stat.is_ok_and(|stat| {
                stat.rsplit_once(") ")
                    .is_some_and(|(_, fields)| fields[1..].starts_with(&own))
            })
        })
        .count()
}

async fn expect_gone(groups: &[Pid]) {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let (running, unreaped) = (running(groups), unreaped(groups));
        if running.is_empty() && unreaped == 0 {
            return;
        }
        assert!(
            Instant::now() < until,
            "{unreaped} were not waited for, and these run: {running:?}"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_starts_and_kills_leave_no_orphan() {
    const CHILDREN: usize = 1000;
    let mut groups = Vec::with_capacity(CHILDREN);
    for number in 0..CHILDREN {
        let ends_by_itself = number % 4 == 2;
        let text = if ends_by_itself {
            "sleep 1000 & exit 0"
        } else {
            "sleep 1000 & cat"
        };
        let mut child = Child::spawn(&script(text), &Declared::default(), limits()).unwrap();
        groups.push(child.group());
        match number % 4 {
            // Nobody has heard of it yet: the start was given up.
            0 => drop(child),
            1 => {
                within(child.shut_down()).await;
            }
            2 => {
                within(child.ended()).await;
            }
            _ => {
                // A task that panics or is aborted drops what it holds.
                let task = tokio::spawn(async move {
                    child.ended().await;
                });
                tokio::task::yield_now().await;
                task.abort();
                let _ = task.await;
            }
        }
    }
    expect_gone(&groups).await;
}

#[tokio::test]
async fn a_child_that_ends_by_itself_takes_its_own_children_along() {
    let text = "legacy; sleep 1000 & (sleep 1000 & cat > /dev/null) & exit 0";
    let mut ready = start(&script(text)).await.unwrap();
    let group = ready.child.group();
    within(ready.child.ended()).await;
    expect_gone(&[group]).await;
}

#[tokio::test]
async fn a_child_is_asked_to_end_before_it_is_killed() {
    let at_once = Limits {
        end: Duration::from_millis(20),
        ..limits()
    };
    for (text, limits, expected) in [
        ("legacy; cat > /dev/null; exit 4", limits(), "exit status: 4"),
        (
            "trap 'exit 5' TERM; legacy; while :; do sleep 1000 & wait; done",
            at_once,
            "exit status: 5",
        ),
        (
            "trap '' TERM; legacy; while :; do sleep 1000; done",
            Limits {
                terminate: Duration::from_millis(20),
                ..at_once
            },
            "signal: 9 (SIGKILL)",
        ),
    ] {
        let ready = start_with(&script(text), limits).await.unwrap();
        let group = ready.child.group();
        let status = within(ready.child.shut_down()).await.unwrap();
        assert_eq!(status.to_string(), expected, "{text}");
        expect_gone(&[group]).await;
    }
}

#[tokio::test]
async fn a_handshake_that_is_given_up_leaves_nothing() {
    let folder = std::env::temp_dir().join(format!("trunkline-upstream-{}", std::process::id()));
    let text = format!("echo $$ > {}; sleep 1000 & cat > /dev/null", folder.display());
    let soon = Limits {
        handshake: Duration::from_secs(1),
        ..limits()
    };
    assert!(start_with(&script(&text), soon).await.is_err());
    let group = fs::read_to_string(&folder).unwrap().trim().parse().unwrap();
    fs::remove_file(folder).unwrap();
    expect_gone(&[Pid::from_raw(group).unwrap()]).await;
}
