//! Versions of documents that are kept for a tenant, from the command line: policies and guardrails alike.

use std::{io::Read as _, marker::PhantomData, path::Path};

use anyhow::{Context as _, bail};
use bus_schema::{
    Principal,
    kept::{Rollback, Set, Version},
};
use runtime::documents::{Kind, Store};
use serde::{Serialize, de::DeserializeOwned};

use super::output;
use crate::{
    args::{ListVersions, RollBack, SetDocument, ShowVersion},
    config::Config,
    node::Node,
};

/// What is asked of a platform, and of whom there.
pub(super) struct Desk<'a, K> {
    node: &'a Node,
    tenant: &'a str,
    me: Principal,
    kind: PhantomData<fn() -> K>,
}

impl<'a, K: Kind<Document: Serialize>> Desk<'a, K> {
    pub(super) fn new(node: &'a Node, config: &'a Config) -> Self {
        Self {
            node,
            tenant: &config.tenant,
            me: config.operator(),
            kind: PhantomData,
        }
    }

    pub(super) fn tenant(&self) -> &str {
        self.tenant
    }

    pub(super) async fn show(&self, show: &ShowVersion) -> anyhow::Result<()> {
        let version = self.version(show.number).await?;
        if show.ask.json {
            return output::json(&version);
        }
        output::line(&format!("# {}", told(&version)));
        output::line(toml::to_string_pretty(&version.document)?.trim_end());
        Ok(())
    }

    pub(super) async fn set(&self, set: &SetDocument, document: K::Document) -> anyhow::Result<()> {
        let wish = Set {
            document,
            over: set.over,
            comment: set.comment.clone(),
        };
        let version = self.node.bus().set_document::<K>(&self.me, &wish).await?;
        output::line(&told(&version));
        Ok(())
    }

    pub(super) async fn roll_back(&self, back: &RollBack) -> anyhow::Result<()> {
        let wish = Rollback {
            to: back.to,
            over: back.over,
            comment: back.comment.clone(),
        };
        let version = self.node.bus().roll_back::<K>(&self.me, &wish).await?;
        output::line(&told(&version));
        Ok(())
    }

    pub(super) async fn history(&self, history: &ListVersions) -> anyhow::Result<()> {
        let versions = self.store().await?.versions(self.tenant, history.limit).await?;
        if history.ask.json {
            return output::json(&versions);
        }
        let rows: Vec<_> = versions
            .into_iter()
            .map(|version| {
                vec![
                    version.version.to_string(),
                    version.at,
                    version.by,
                    version.comment,
                ]
            })
            .collect();
        output::table(&["VERSION", "WRITTEN", "BY", "COMMENT"], &rows);
        Ok(())
    }

    /// One version, or the present one.
    pub(super) async fn version(&self, number: Option<u64>) -> anyhow::Result<Version<K::Document>> {
        let (store, what) = (self.store().await?, K::WHAT);
        let known = match number {
            Some(number) => store.version(self.tenant, number).await?,
            None => store.read(self.tenant).await?.map(|(version, _)| version),
        };
        match (known, number) {
            (Some(version), _) => Ok(version),
            (None, Some(number)) => {
                bail!("there is no version {number}; `trunkline {what} history` shows which there are")
            }
            (None, None) => bail!(
                "no {what} kept for tenant `{}`; `trunkline {what} set` does that, and until then `[{what}]` of each process's configuration counts",
                self.tenant
            ),
        }
    }

    async fn store(&self) -> anyhow::Result<Store<K>> {
        let documents = K::heard(self.node.bus());
        documents.ready().await;
        documents.store().cloned().with_context(|| {
            format!(
                "no {} can be read: this NATS has no JetStream, or does not answer",
                K::WHAT
            )
        })
    }
}

fn told<D>(version: &Version<D>) -> String {
    let Version {
        version: number,
        at,
        by,
        comment,
        ..
    } = version;
    let why = if comment.is_empty() {
        String::new()
    } else {
        format!(": {comment}")
    };
    format!("version {number}, written {at} by {by}{why}")
}

/// Reads what is written as TOML or JSON.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = read_text(path)?;
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(&text)?);
    }
    Ok(toml::from_str(&text)?)
}

pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
