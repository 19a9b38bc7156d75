//! nats-server as `trunkline up` starts it.

use std::path::PathBuf;

use anyhow::Context as _;
use bus_schema::subject::CallerClass;
use runtime::nats_server::{Clients, NatsServer, NatsServerOptions};
use tests::nats::program;

use super::{input_ended, ready};

pub(super) async fn serve(folder: PathBuf) -> anyhow::Result<()> {
    let options = NatsServerOptions {
        program: Some(program()),
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder,
        clients: Clients::Anybody,
        tenants: Vec::new(),
    };
    let server = NatsServer::start(options).await?;
    let password = server.secrets().password(CallerClass::Node);
    let login = format!("nats://{}:{password}@", CallerClass::Node.as_str());
    ready(
        server.url().replacen("nats://", &login, 1),
        server.pid().context("nats-server runs")?,
    )?;
    input_ended().await;
    server.stop().await;
    Ok(())
}
