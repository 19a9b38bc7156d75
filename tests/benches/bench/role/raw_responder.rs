//! Answers every request over NATS with the same bytes.

use tokio::select;

use super::{input_ended, ready};
use crate::{load::RAW_SUBJECT, nats_raw::RawNats};

pub(super) async fn serve(nats: &str, answer: &str) -> anyhow::Result<()> {
    let mut client = RawNats::connect(nats).await?;
    client.outbound().subscribe(RAW_SUBJECT);
    client.round_trip().await?;
    ready(nats, std::process::id())?;
    let answering = async {
        loop {
            client
                .receive(|message, out| {
                    out.publish(message.reply, "", answer.as_bytes());
                    Ok(())
                })
                .await?;
        }
    };
    select! {
        ended = answering => ended,
        () = input_ended() => Ok(()),
    }
}
