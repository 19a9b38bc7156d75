//! The lightest HTTP/1.1 client there can be: the same bytes go out again and again, and of an answer only its end is sought.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{Callers, window::Window};

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

pub(super) async fn start(
    window: &Arc<Window>,
    callers: usize,
    address: &str,
    request: &str,
    in_order: Option<u32>,
) -> anyhow::Result<Callers> {
    let request: Arc<[u8]> = request.as_bytes().into();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let connection = Connection::open(address).await?;
        tasks.spawn(call(
            Arc::clone(window),
            connection,
            Arc::clone(&request),
            in_order,
        ));
    }
    Ok(tasks)
}

async fn call(
    window: Arc<Window>,
    mut connection: Connection,
    request: Arc<[u8]>,
    in_order: Option<u32>,
) -> anyhow::Result<Vec<u64>> {
    let mut latencies = Vec::new();
    let first = connection.exchange(&request).await?.len();
    loop {
        let begun = Instant::now();
        let body = connection.exchange(&request).await?;
        match in_order {
            Some(count) => check_order(body, count)?,
            None => ensure!(
                body.len() == first,
                "an answer of another length than the first one"
            ),
        }
        if !window.count(begun, &mut latencies) {
            return Ok(latencies);
        }
    }
}

/// Makes one request and gives the body of its answer.
pub(crate) async fn post_once(address: &str, request: &str) -> anyhow::Result<Vec<u8>> {
    let mut connection = Connection::open(address).await?;
    Ok(connection.exchange(request.as_bytes()).await?.to_vec())
}

struct Connection {
    stream: TcpStream,
    inbound: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            inbound: Vec::with_capacity(2 * READ_BYTES),
        })
    }

    /// Sends a request, and gives the body of the answer; a chunked one comes with its chunks' heads.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        self.stream.write_all(request).await?;
        self.inbound.clear();
        let head = loop {
            self.read().await?;
            if let Some(at) = self.inbound.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let length = read_head(&self.inbound[..head])?;
        while match length {
            Some(length) => self.inbound.len() < head + length,
            None => !self.inbound.ends_with(LAST_CHUNK),
        } {
            self.read().await?;
        }
        Ok(&self.inbound[head..])
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.inbound.reserve(READ_BYTES);
        ensure!(
            self.stream.read_buf(&mut self.inbound).await? > 0,
            "the server has closed the connection"
        );
        Ok(())
    }
}

/// The length of the body; `None` when it comes in chunks.
fn read_head(head: &[u8]) -> anyhow::Result<Option<usize>> {
    let head = std::str::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the server answered {head}");
    for line in head.split("\r\n") {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Some(value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(None);
        }
    }
    bail!("an answer without a length")
}

/// Every notification has come, in order, and the result after them.
fn check_order(body: &[u8], count: u32) -> anyhow::Result<()> {
    const STEP: &str = "\"progress\":";
    let body = std::str::from_utf8(body)?;
    let mut expected = 0;
    let mut rest = body;
    while let Some((_, after)) = rest.split_once(STEP) {
        let number: String = after
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        expected += 1;
        ensure!(
            number.parse() == Ok(f64::from(expected)),
            "notification {number} came in place {expected}"
        );
        rest = after;
    }
    ensure!(expected == count, "{expected} notifications came and not {count}");
    ensure!(
        rest.contains("\"result\""),
        "no result came after the notifications"
    );
    Ok(())
}
