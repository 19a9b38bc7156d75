//! The tasks server of a process: its tools, the workers of its exports, and the datasets that they read.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actors::{
    products::Products,
    tasks::{Exporting, SERVER, TaskTools},
};
use anyhow::Context as _;
use bus_schema::ServerId;
use futures::{FutureExt as _, future::BoxFuture};
use runtime::{
    Bus, Host, HostOptions,
    rmcp_host::RmcpServer,
    store::objects::{ObjectLimits, Objects},
    supervise::{Part, PartError, RunningPart},
    tasks::{Tasks, Worker, WorkerOptions},
};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::config::Config;

/// How many exports one process works on at once: each holds a batch of rows.
const EXPORTS_AT_ONCE: usize = 4;

/// Where the database of the built-in servers is.
pub(super) fn database_of(config: &Config) -> anyhow::Result<String> {
    if let Some(url) = &config.products_database {
        return Ok(url.clone());
    }
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make the data folder {}", config.data_dir.display()))?;
    let folder = config
        .data_dir
        .canonicalize()
        .context("cannot find the data folder")?;
    Ok(format!("sqlite://{}", folder.join("products.db").display()))
}

impl Node {
    /// Where clients reach the HTTP door: as the configuration says, else where this process has one.
    pub(super) fn base_url(&self, config: &Config) -> Option<String> {
        let local = || Some(format!("{}://{}", config.scheme().as_str(), self.http()?));
        let told = config
            .public_url()
            .map(|url| url.trim_end_matches('/').to_owned());
        told.or_else(local)
    }
}

pub(super) struct TasksPart {
    pub(super) bus: Bus,
    pub(super) name: String,
    pub(super) tenant: String,
    pub(super) database: String,
    pub(super) tool_timeouts: HashMap<String, Duration>,
    pub(super) base_url: Option<String>,
}

impl Part for TasksPart {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, stop: CancellationToken) -> BoxFuture<'_, Result<RunningPart, PartError>> {
        async move {
            let datasets = Products::open(&self.database).await?.datasets();
            let objects = Objects::new(&self.bus, ObjectLimits::default());
            let exporting = Exporting::new(datasets, objects, self.base_url.clone());
            let tasks = Tasks::new(self.bus.clone());
            let id: ServerId = SERVER.parse()?;
            let options = HostOptions {
                tenant: self.tenant.clone(),
                tags: vec!["tasks".to_owned()],
                tool_timeouts: self.tool_timeouts.clone(),
                ..HostOptions::new(id)
            };
            let tools = TaskTools::new(tasks.clone(), exporting.clone());
            let host = Host::start(self.bus.clone(), Arc::new(RmcpServer::new(tools)), options).await?;
            let at_work = WorkerOptions {
                slots: EXPORTS_AT_ONCE,
                ..WorkerOptions::new(SERVER)
            };
            let worker = Worker::start(tasks, Arc::new(exporting), at_work).await?;
            let serving = host.serve_until(stop);
            let running = async move {
                let served = serving.await;
                worker.stop().await;
                served
            };
            Ok(running.boxed() as RunningPart)
        }
        .boxed()
    }
}
