//! HTTP by hand over TCP: a client that keeps no rules, or does not read.

use std::net::SocketAddr;

use bus_schema::{ProtocolVersion, header};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{http::modern_body, within};

/// What bytes come and go by.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to an HTTP door.
pub struct Raw {
    stream: Box<dyn Stream>,
    /// What was read and not yet taken.
    ahead: Vec<u8>,
}

/// An answer with a body of known length.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Everything before the body.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(to)).await;
        Self::over(stream.expect("connects"))
    }

    /// Connects with as small a receive buffer as the system gives, so that soon nothing more arrives that nobody reads.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn connect_narrow(to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = within("a connection", socket.connect(to)).await;
        Self::over(stream.expect("connects"))
    }

    /// The same over a connection that was made otherwise.
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            ahead: Vec::new(),
        }
    }

    /// Sends bytes; gives whether they could be sent.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("the door's reading", self.stream.write_all(bytes.as_ref()))
            .await
            .is_ok()
    }

    /// Says that nothing more will be sent.
    pub async fn finish_sending(&mut self) {
        // The door may have closed already.
        let _ = self.stream.shutdown().await;
    }

    /// Reads what is there, which may be little; nothing when the door has closed or cut the connection.
    pub async fn read_some(&mut self) -> Vec<u8> {
        if !self.ahead.is_empty() {
            return std::mem::take(&mut self.ahead);
        }
        let mut some = vec![0; 64 * 1024];
        let read = within("more to read", self.stream.read(&mut some)).await;
        some.truncate(read.unwrap_or(0));
        some
    }

    /// Reads until the door closes or cuts the connection.
    pub async fn read_to_end(&mut self) -> String {
        let mut all = Vec::new();
        loop {
            let some = self.read_some().await;
            if some.is_empty() {
                return String::from_utf8_lossy(&all).into_owned();
            }
            all.extend(some);
        }
    }

    /// Reads one answer; `None` when the door closes without one.
    ///
    /// # Panics
    /// When what comes is no HTTP answer with a length.
    pub async fn reply(&mut self) -> Option<Reply> {
        let mut all = Vec::new();
        let head_end = loop {
            if let Some(at) = all.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let some = self.read_some().await;
            if some.is_empty() {
                assert!(all.is_empty(), "half a head: {}", String::from_utf8_lossy(&all));
                return None;
            }
            all.extend(some);
        };
        let head = String::from_utf8(all[..head_end].to_vec()).expect("ASCII");
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length:").map(|n| n.trim().to_owned()))
            .map_or(0, |length| length.parse().expect("a number"));
        while all.len() < head_end + length {
            let some = self.read_some().await;
            assert!(!some.is_empty(), "the body was cut off");
            all.extend(some);
        }
        self.ahead = all.split_off(head_end + length);
        Some(Reply {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .expect("a status"),
            body: String::from_utf8(all.split_off(head_end)).expect("text"),
            head,
        })
    }
}

/// The resident memory of a process in bytes, as the kernel counts it.
///
/// # Panics
/// When the process has ended, or this system has no `/proc`.
#[must_use]
pub fn resident(pid: rustix::process::Pid) -> usize {
    let pid = pid.as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.expect("its resident memory") * 1024
}

/// A modern request as bytes on the wire.
#[must_use]
pub fn modern(path: &str, called: &str, name: &str, params: Value) -> String {
    post(
        path,
        &[
            (header::PROTOCOL_VERSION, ProtocolVersion::MODERN.as_str()),
            (header::METHOD, called),
            (header::NAME, name),
        ],
        &modern_body(called, params).to_string(),
    )
}

/// A POST of a body as bytes on the wire.
#[must_use]
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut head = format!("{}content-length: {}\r\n", head(path), body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    format!("{head}\r\n{body}")
}

/// The beginning of a POST, to which further headers can be added.
#[must_use]
pub fn head(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n"
    )
}
