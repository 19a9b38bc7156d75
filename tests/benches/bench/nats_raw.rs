//! A NATS client that does no more than a request and its answer need: the floor that the bus is held against.
//!
//! It reads what has come, answers all of it, and writes once. The benchmark has it because only `runtime` may use the
//! client library, and because a floor should hold nothing that could be left out.

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// One connection.
pub(crate) struct RawNats {
    stream: TcpStream,
    inbound: Vec<u8>,
    outbound: Outbound,
}

/// What is written at the next flush.
#[derive(Default)]
pub(crate) struct Outbound(BytesMut);

/// A message as it stands in the buffer.
pub(crate) struct Message<'a> {
    pub(crate) subject: &'a str,
    pub(crate) reply: &'a str,
    pub(crate) payload: &'a [u8],
}

impl Outbound {
    /// Publishes a message; an empty reply subject is none.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        self.word("PUB ");
        self.word(subject);
        self.word(" ");
        if !reply.is_empty() {
            self.word(reply);
            self.word(" ");
        }
        self.number(payload.len());
        self.word("\r\n");
        self.0.extend_from_slice(payload);
        self.word("\r\n");
    }

    /// Takes over what somebody else wants to be written.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.0.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.0.extend_from_slice(&other.0);
            other.0.clear();
        }
    }

    /// Subscribes; everything that comes is handed to the one who receives.
    pub(crate) fn subscribe(&mut self, subject: &str) {
        self.word("SUB ");
        self.word(subject);
        self.word(" 1\r\n");
    }

    fn word(&mut self, word: &str) {
        self.0.extend_from_slice(word.as_bytes());
    }

    fn number(&mut self, mut number: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
    }
}

impl RawNats {
    /// Connects with the credentials in the URL, and waits until the broker has taken them.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let rest = url.trim_start_matches("nats://");
        let (login, host) = rest.rsplit_once('@').context("the URL has credentials")?;
        let (user, password) = login.split_once(':').context("the URL has a password")?;
        let stream = TcpStream::connect(host).await.context("cannot connect to NATS")?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream,
            inbound: Vec::with_capacity(READ_BYTES),
            outbound: Outbound::default(),
        };
        let hello = json!({
            "verbose": false, "pedantic": false, "user": user, "pass": password, "name": "bench", "lang": "rust",
            "version": "0", "protocol": 1, "headers": true, "no_responders": true,
        });
        client.outbound.word(&format!("CONNECT {hello}\r\n"));
        client.round_trip().await?;
        Ok(client)
    }

    /// What the next flush writes.
    pub(crate) fn outbound(&mut self) -> &mut Outbound {
        &mut self.outbound
    }

    /// Waits until the broker has taken everything before. Messages that come meanwhile are dropped.
    pub(crate) async fn round_trip(&mut self) -> anyhow::Result<()> {
        self.outbound.word("PING\r\n");
        self.flush().await?;
        let mut answered = false;
        while !answered {
            self.step(|step, _| {
                answered |= matches!(step, Step::Pong);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Writes everything that waits, in one go if the system takes it. What is left when this is dropped goes out next time.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        while !self.outbound.0.is_empty() {
            self.stream.write_buf(&mut self.outbound.0).await?;
        }
        Ok(())
    }

    /// Reads what has come, hands on every message that is whole, and writes what that has led to. May be dropped at any time.
    pub(crate) async fn receive(
        &mut self,
        mut take: impl FnMut(Message<'_>, &mut Outbound) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.step(|step, out| match step {
            Step::Message(message) => take(message, out),
            _ => Ok(()),
        })
        .await
    }

    async fn step(
        &mut self,
        mut take: impl FnMut(Step<'_>, &mut Outbound) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.read().await?;
        let mut done = 0;
        while let Some((step, left)) = next_step(&self.inbound[done..])? {
            done = self.inbound.len() - left;
            if matches!(step, Step::Ping) {
                self.outbound.word("PONG\r\n");
            }
            take(step, &mut self.outbound)?;
        }
        self.inbound.drain(..done);
        self.flush().await
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.inbound.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.inbound).await? == 0 {
            bail!("the broker has closed the connection");
        }
        Ok(())
    }
}

enum Step<'a> {
    Message(Message<'a>),
    Ping,
    Pong,
    Nothing,
}

/// Takes one step of the protocol off a buffer, and tells how many bytes are left; `None` when it is not whole yet.
fn next_step(buffer: &[u8]) -> anyhow::Result<Option<(Step<'_>, usize)>> {
    let Some(end) = find(buffer, b"\r\n") else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&buffer[..end])?;
    let rest = &buffer[end + 2..];
    if let Some(head) = line.strip_prefix("MSG ") {
        let fields: [&str; 4] = fields(head).context("a MSG line has three or four fields")?;
        let length: usize = fields[3].parse()?;
        if rest.len() < length + 2 {
            return Ok(None);
        }
        let message = Message {
            subject: fields[0],
            reply: fields[2],
            payload: &rest[..length],
        };
        return Ok(Some((Step::Message(message), rest.len() - length - 2)));
    }
    match line.split(' ').next().unwrap_or_default() {
        "PING" => Ok(Some((Step::Ping, rest.len()))),
        "PONG" => Ok(Some((Step::Pong, rest.len()))),
        "+OK" | "INFO" => Ok(Some((Step::Nothing, rest.len()))),
        // A message with headers would be "no responders".
        _ => bail!("the broker says `{line}`"),
    }
}

/// Subject, subscription, reply subject (which may be missing, and then is empty) and length.
fn fields(head: &str) -> Option<[&str; 4]> {
    let mut words = head.split(' ');
    let (subject, subscription, third) = (words.next()?, words.next()?, words.next()?);
    Some(match words.next() {
        Some(length) => [subject, subscription, third, length],
        None => [subject, subscription, "", third],
    })
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = buffer[from..].iter().position(|byte| *byte == first) {
        if buffer[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
