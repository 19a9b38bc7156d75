//! nats-server as `trunkline up` starts it.

use std::path::PathBuf;

use anyhow::Context as _;
use runtime::nats_server::{CORE_USER, NatsServer, NatsServerOptions};
use tests::nats::program;

use super::{input_ended, ready};

pub(super) async fn serve(folder: PathBuf) -> anyhow::Result<()> {
    let options = NatsServerOptions {
        program: Some(program()),
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: folder,
    };
    let server = NatsServer::start(options).await?;
    let login = format!("nats://{CORE_USER}:{}@", server.password());
    ready(
        server.url().replacen("nats://", &login, 1),
        server.pid().context("nats-server runs")?,
    )?;
    input_ended().await;
    server.stop().await;
    Ok(())
}
