//! The stream `AUDIT`: made by whoever has the first record, and never changed or cut by a role of ours.

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    context::CreateStreamErrorKind,
    message::PublishMessage,
    stream::{Config, DiscardPolicy, StorageType, Stream},
};
use bus_schema::{audit::Record, subject};
use tokio::time::timeout;

use super::AuditOptions;
use crate::bus::Bus;

/// Its name.
const NAME: &str = "AUDIT";
/// How long the broker may take to write a batch down.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// For how long a batch that comes again is known by its id.
const KNOWN_FOR: Duration = Duration::from_secs(10 * 60);
/// How many messages of one tenant and kind are kept, so that a flood of one kind drives out no other.
const MAX_PER_SUBJECT: i64 = 500_000;

/// Why something could not be written or read.
pub(super) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Records that go in one message, to be written as they are however often it takes.
pub(super) struct Batch {
    records: Vec<Record>,
    payload: Vec<u8>,
}

impl Batch {
    /// Records of one tenant and kind, one at least.
    pub(super) fn new(records: Vec<Record>) -> Self {
        let payload = serde_json::to_vec(&records).expect("a record is always JSON");
        Self { records, payload }
    }

    #[cfg(test)]
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }
}

/// Writes batches.
pub(super) struct Keeper {
    context: jetstream::Context,
    is_there: bool,
}

impl Keeper {
    pub(super) fn new(bus: &Bus) -> Self {
        Self {
            context: context(bus),
            is_there: false,
        }
    }

    /// Writes a batch, and waits until it is on disk.
    pub(super) async fn write(&mut self, batch: &Batch, options: AuditOptions) -> Result<(), Failed> {
        let written = timeout(REPLY_LIMIT, self.attempt(batch, options)).await;
        let written = written.unwrap_or_else(|_| Err("no answer in time".into()));
        if written.is_err() {
            // It may have been deleted, or the broker been started anew.
            self.is_there = false;
        }
        written
    }

    async fn attempt(&mut self, batch: &Batch, options: AuditOptions) -> Result<(), Failed> {
        if !self.is_there {
            self.prepare(options).await?;
            self.is_there = true;
        }
        let first = &batch.records[0];
        let message = PublishMessage::build()
            .payload(batch.payload.clone().into())
            .message_id(&first.id);
        let to = subject::audit_of(&first.tenant, first.kind);
        self.context.send_publish(to, message).await?.await?;
        Ok(())
    }

    /// Makes the stream if it is not there. One of somebody else's making, which would hand records on or lose them, is not used.
    async fn prepare(&self, options: AuditOptions) -> Result<(), Failed> {
        match self.context.create_stream(config(options)).await {
            Ok(_) => return Ok(()),
            Err(error) if is_there(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = self.context.get_stream(NAME).await?;
        check_made_by_us(&stream.cached_info().config)
    }
}

/// The stream as readers have it; `None` when nothing was ever put on record.
pub(super) async fn open(bus: &Bus) -> Result<Option<Stream>, Failed> {
    use async_nats::jetstream::context::GetStreamErrorKind;
    match context(bus).get_stream(NAME).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(error.into()),
        },
    }
}

fn context(bus: &Bus) -> jetstream::Context {
    let mut context = jetstream::new(bus.client().clone());
    context.set_timeout(REPLY_LIMIT);
    context
}

fn config(options: AuditOptions) -> Config {
    Config {
        name: NAME.to_owned(),
        subjects: vec![subject::all_audit()],
        max_messages_per_subject: MAX_PER_SUBJECT,
        max_age: options.max_age,
        max_bytes: options.max_bytes,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        duplicate_window: KNOWN_FOR,
        deny_delete: true,
        deny_purge: true,
        allow_direct: false,
        ..Config::default()
    }
}

fn check_made_by_us(config: &Config) -> Result<(), Failed> {
    let takes_its_own = config.subjects == [subject::all_audit()];
    let hands_nothing_on = config.republish.is_none() && config.mirror.is_none();
    let takes_in_nothing = config.sources.as_ref().is_none_or(Vec::is_empty);
    if takes_its_own
        && hands_nothing_on
        && takes_in_nothing
        && config.deny_delete
        && config.deny_purge
        && !config.no_ack
    {
        Ok(())
    } else {
        Err(format!(
            "the stream `{NAME}` is not as this platform makes it; look who has made it, and delete it"
        )
        .into())
    }
}

fn is_there(error: &jetstream::context::CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}
