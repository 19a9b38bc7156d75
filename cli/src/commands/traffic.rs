//! `trunkline traffic`: how the calls of servers are spread over versions and places, from the command line.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context as _, bail};
use bridges::front::Front;
use bus_schema::{
    Principal, ServerId,
    registry::{Over, Was},
    subject::CallerClass,
    traffic::{Locality, Mirror, Sharing, Traffic},
};
use runtime::traffic::Rule;
use serde_json::{Value, json};

use super::output;
use crate::{
    args::{self, TrafficCommand},
    config::Config,
    node::{NatsChoice, Node},
};

/// How many in a hundred are copied when nobody says.
const ALL: u8 = 100;

pub(crate) async fn run(config: Config, command: args::Traffic) -> anyhow::Result<ExitCode> {
    // What is wrong with a rule is said before anything is connected to.
    let rule = match &command.command {
        TrafficCommand::Set(set) => Some(read(set)?),
        _ => None,
    };
    let mut node = Node::connect(&config, CallerClass::Cli, NatsChoice::Join(config.nats.clone())).await?;
    let done = match node.front(&config).await {
        Ok(front) => obey(&front, &config.operator(), command.command, rule).await,
        Err(error) => Err(error),
    };
    node.stop().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn obey(
    front: &Front,
    by: &Principal,
    command: TrafficCommand,
    rule: Option<Traffic>,
) -> anyhow::Result<()> {
    match (command, rule) {
        (TrafficCommand::Set(set), Some(rule)) => {
            let over = set.revision.map_or(Over::Anything, Over::Revision);
            let kept = front.set_traffic(by, &rule, over).await?;
            let what = match kept.was {
                Was::New | Was::Changed => "follows this rule now",
                Was::Same => "has followed this rule already",
            };
            output::line(&format!("{} {what} (revision {})", rule.id, kept.revision));
            warn_of_absent(front, &rule);
        }
        (TrafficCommand::Clear(clear), _) => {
            let id: ServerId = clear.of.server.parse()?;
            front.clear_traffic(by, &id, clear.revision).await?;
            output::line(&format!("all replicas of {id} share all its calls"));
        }
        (TrafficCommand::Show(of), _) => {
            let id: ServerId = of.server.parse()?;
            let snapshot = front.directory().snapshot();
            let Some(rule) = snapshot.rule(&id) else {
                bail!("`{id}` has no traffic rule: all its replicas share all its calls");
            };
            output::json(&told(rule))?;
        }
        (TrafficCommand::List(ask), _) => list(front, &ask)?,
        (TrafficCommand::Set(_), None) => {}
    }
    Ok(())
}

/// A version that is misspelled looks just like one that is yet to come.
fn warn_of_absent(front: &Front, rule: &Traffic) {
    let snapshot = front.directory().snapshot();
    let replicas = snapshot.replicas(&rule.id);
    let wanted = rule.versions.iter().filter(|(_, share)| **share > 0);
    let wanted = wanted.map(|(version, _)| version);
    for version in wanted.chain(rule.mirror.as_ref().map(|mirror| &mirror.version)) {
        if replicas.iter().all(|card| card.version != *version) {
            output::warn(&format!(
                "no replica of {} has version {version} at the moment",
                rule.id
            ));
        }
    }
}

fn list(front: &Front, ask: &args::Ask) -> anyhow::Result<()> {
    let snapshot = front.directory().snapshot();
    let rules: Vec<_> = snapshot.rules().collect();
    if ask.json {
        let objects: Vec<Value> = rules.iter().map(|rule| told(rule)).collect();
        return output::json(&objects);
    }
    let rows: Vec<_> = rules.iter().map(|rule| row(&rule.kept.rule)).collect();
    output::table(&["SERVER", "SHARES", "COPIES TO", "FIRST"], &rows);
    Ok(())
}

/// A rule with its revision.
fn told(rule: &Rule) -> Value {
    json!({ "rule": rule.kept.rule, "revision": rule.revision })
}

fn row(rule: &Traffic) -> Vec<String> {
    let shares = rule
        .versions
        .iter()
        .map(|(version, share)| format!("{version}={share}"));
    let mut shares = shares.collect::<Vec<_>>().join(" ");
    if rule.share_by == Sharing::Principal {
        shares.push_str(" by principal");
    }
    let mirror = rule.mirror.as_ref();
    vec![
        rule.id.to_string(),
        shares,
        mirror.map_or_else(String::new, |mirror| {
            format!("{}={}", mirror.version, mirror.percent)
        }),
        match rule.locality {
            Locality::Any => String::new(),
            Locality::Nearest => "nearest".to_owned(),
        },
    ]
}

fn read(set: &args::TrafficSet) -> anyhow::Result<Traffic> {
    let mut versions = BTreeMap::new();
    for text in &set.shares {
        let (version, share) = text.rsplit_once('=').with_context(|| {
            format!("--share `{text}` has no share; write <version>=<share>, such as 2.0.0=10")
        })?;
        let share = share.parse().with_context(|| {
            format!(
                "--share `{text}` has no number behind the `=`; write <version>=<share>, such as 2.0.0=10"
            )
        })?;
        if versions.insert(version.to_owned(), share).is_some() {
            bail!("--share names version `{version}` twice; give it one share");
        }
    }
    let mirror = set.mirror.as_deref().map(read_mirror).transpose()?;
    let rule = Traffic {
        id: set.server.parse()?,
        versions,
        share_by: if set.by_principal {
            Sharing::Principal
        } else {
            Sharing::Call
        },
        mirror,
        locality: if set.nearest {
            Locality::Nearest
        } else {
            Locality::Any
        },
    };
    rule.check()?;
    Ok(rule)
}

fn read_mirror(text: &str) -> anyhow::Result<Mirror> {
    let Some((version, percent)) = text.rsplit_once('=') else {
        return Ok(Mirror {
            version: text.to_owned(),
            percent: ALL,
        });
    };
    Ok(Mirror {
        version: version.to_owned(),
        percent: percent.parse().with_context(|| {
            format!("--mirror `{text}` has no percentage behind the `=`; write <version>=<1 to 100>")
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shares: &[&str], mirror: Option<&str>) -> args::TrafficSet {
        args::TrafficSet {
            server: "weather".to_owned(),
            shares: shares.iter().map(|share| (*share).to_owned()).collect(),
            mirror: mirror.map(str::to_owned),
            ..args::TrafficSet::default()
        }
    }

    #[test]
    fn flags_make_a_rule() {
        let rule = read(&set(&["1.4.2=90", "2.0.0=10"], Some("2.0.0=50"))).expect("a rule");
        assert_eq!(
            serde_json::to_value(&rule).expect("JSON"),
            json!({
                "id": "weather",
                "versions": { "1.4.2": 90, "2.0.0": 10 },
                "mirror": { "version": "2.0.0", "percent": 50 },
            })
        );
        let all = read(&set(&["1=1"], Some("2.0.0"))).expect("a rule");
        assert_eq!(all.mirror.map(|mirror| mirror.percent), Some(ALL));
    }

    #[test]
    fn a_flag_that_cannot_be_meant_is_named() {
        for (set, words) in [
            (set(&["1.4.2"], None), "<version>=<share>"),
            (set(&["1.4.2=much"], None), "1.4.2=much"),
            (set(&["1=2", "1=3"], None), "twice"),
            (set(&["1=0"], None), "every version"),
            (set(&["1=1"], Some("2=200")), "1 to 100"),
            (set(&[], Some("2")), "needs `versions`"),
            (set(&[], None), "locality"),
        ] {
            let error = format!("{:#}", read(&set).expect_err(words));
            assert!(error.contains(words), "{error}");
        }
    }
}
