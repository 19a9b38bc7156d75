//! `trunkline block`, `unblock` and `blocked`: a full stop for one caller, from the command line.

use std::process::ExitCode;

use anyhow::bail;
use bridges::front::Front;
use bus_schema::{
    Principal,
    block::{Block, Blocked, Release, Stop},
    subject::CallerClass,
};
use runtime::moment;

use super::output;
use crate::{
    args::{Ask, Command, WhoIsBlocked},
    config::Config,
    node::{NatsChoice, Node},
};

pub(crate) async fn run(config: Config, command: Command) -> anyhow::Result<ExitCode> {
    // What is wrong with a time is said before anything is connected to.
    let for_secs = match &command {
        Command::Block(block) => block.time.as_deref().map(seconds).transpose()?,
        _ => None,
    };
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let done = match node.front(&config).await {
        Ok(front) => obey(&front, &config.operator(), command, for_secs).await,
        Err(error) => Err(error),
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn obey(front: &Front, by: &Principal, command: Command, for_secs: Option<u64>) -> anyhow::Result<()> {
    match command {
        Command::Block(args) => {
            let wish = Stop {
                subject: args.who.subject,
                issuer: args.who.issuer,
                for_secs,
                reason: args.reason,
            };
            let block = front.bus().block(by, &wish).await?;
            output::line(&format!(
                "{} is blocked {} at every door",
                block.who.subject,
                until(&block)
            ));
        }
        Command::Unblock(who) => {
            let WhoIsBlocked { subject, issuer } = who;
            let wish = Release { subject, issuer };
            front.bus().unblock(by, &wish).await?;
            output::line(&format!("{} may call again", wish.subject));
        }
        Command::Blocked(ask) => list(&front.blocks().all(front.directory().tenant()), ask)?,
        _ => {}
    }
    Ok(())
}

fn list(blocks: &[Block], ask: Ask) -> anyhow::Result<()> {
    if ask.json {
        return output::json(&blocks);
    }
    let row = |block: &Block| {
        let Blocked { subject, issuer, .. } = &block.who;
        vec![
            subject.clone(),
            issuer.clone().unwrap_or_default(),
            until(block),
            block.by.clone(),
            block.reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = blocks.iter().map(row).collect();
    output::table(&["SUBJECT", "ISSUER", "HOW LONG", "BY", "REASON"], &rows);
    Ok(())
}

fn until(block: &Block) -> String {
    match block.until_ms {
        Some(until) => {
            let left = until.saturating_sub(moment::now_ms()).div_ceil(1_000);
            format!("for {left} s")
        }
        None => "for good".to_owned(),
    }
}

/// A time as people write it, in seconds.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => 0,
    };
    match digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
    {
        Some(secs) if secs > 0 => Ok(secs),
        _ => bail!("--for is `{text}`; write a number with s, m, h or d, such as 90s, 30m, 1h or 7d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, expected) in [("90s", 90), ("30m", 1_800), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(seconds(text).expect(text), expected);
        }
        for bad in [
            "",
            "1",
            "h",
            "0h",
            "-1h",
            "1w",
            "1 h",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            let error = seconds(bad).expect_err(bad).to_string();
            assert!(error.contains("such as 90s"), "{error}");
        }
    }
}
