//! A NATS client that keeps no rules, says everything to the broker by hand, and tells what the broker says to it.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::within;

/// The broker's word for an answer to a ping.
const PONG: &str = "PONG\r\n";

/// A connection whose user may be anybody.
pub struct Forger {
    stream: TcpStream,
    subscriptions: u32,
    /// What has come and was not looked at yet.
    heard: String,
}

impl Forger {
    /// Connects to `nats://[user:password@]host:port`, as whoever the URL says.
    ///
    /// # Errors
    /// What the broker says when it does not let it in.
    pub async fn enter(url: &str) -> Result<Self, String> {
        let rest = url.trim_start_matches("nats://");
        match rest.rsplit_once('@') {
            Some((login, _)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                Self::enter_with(url, json!({ "user": user, "pass": password })).await
            }
            None => Self::enter_with(url, json!({})).await,
        }
    }

    /// Connects showing a token.
    ///
    /// # Errors
    /// What the broker says when it does not let it in.
    pub async fn enter_by(url: &str, token: &str) -> Result<Self, String> {
        Self::enter_with(url, json!({ "auth_token": token })).await
    }

    /// Connects with any options.
    ///
    /// # Errors
    /// What the broker says when it does not let it in.
    ///
    /// # Panics
    /// When the broker is not there.
    pub async fn enter_with(url: &str, options: Value) -> Result<Self, String> {
        let rest = url.trim_start_matches("nats://");
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let stream = within("a connection", TcpStream::connect(host)).await;
        let mut hello = json!({ "verbose": false, "name": "forger", "headers": true, "no_responders": true });
        for (key, value) in options.as_object().into_iter().flatten() {
            hello[key] = value.clone();
        }
        let mut forger = Self {
            stream: stream.expect("connects"),
            subscriptions: 0,
            heard: String::new(),
        };
        forger.send(format!("CONNECT {hello}\r\n").as_bytes()).await;
        let said = forger.settle().await?;
        if said.contains("-ERR") {
            return Err(said);
        }
        // What the broker says of itself at first.
        forger.heard.clear();
        Ok(forger)
    }

    /// Publishes; gives whether the broker has taken it.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn publish(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) -> bool {
        let reply = reply.map(|reply| format!("{reply} ")).unwrap_or_default();
        let head = format!("PUB {subject} {reply}{}\r\n", payload.len());
        self.taken([head.as_bytes(), payload, b"\r\n"].concat()).await
    }

    /// Publishes with headers; gives whether the broker has taken it.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn publish_with(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> bool {
        let mut lines = "NATS/1.0\r\n".to_owned();
        for (name, value) in headers {
            lines.push_str(&format!("{name}: {value}\r\n"));
        }
        lines.push_str("\r\n");
        let head = format!(
            "HPUB {subject} {reply} {} {}\r\n",
            lines.len(),
            lines.len() + payload.len()
        );
        self.taken([head.as_bytes(), lines.as_bytes(), payload, b"\r\n"].concat())
            .await
    }

    /// Subscribes, in a queue group or as somebody who listens in; gives whether the broker has taken it.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn subscribe(&mut self, subject: &str, group: Option<&str>) -> bool {
        self.subscriptions += 1;
        let group = group.map(|group| format!("{group} ")).unwrap_or_default();
        let line = format!("SUB {subject} {group}{}\r\n", self.subscriptions);
        self.taken(line.into_bytes()).await
    }

    /// Waits until a word has come, and gives everything that has come since this was last asked.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn heard(&mut self, word: &str) -> String {
        within(&format!("`{word}` from the broker"), async {
            while !self.heard.contains(word) {
                let read = self.read().await;
                assert!(read, "the broker has closed the connection after: {}", self.heard);
            }
        })
        .await;
        std::mem::take(&mut self.heard)
    }

    /// Waits until the broker has closed the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(&mut self) {
        within("the end of the connection", async { while self.read().await {} }).await;
    }

    /// Everything that has come until the broker has answered a ping, and was not looked at yet.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn everything(&mut self) -> String {
        let said = self.settle().await.expect("the connection stands");
        assert!(!said.contains("-ERR"), "{said}");
        std::mem::take(&mut self.heard)
    }

    /// Whether the broker takes this without a word of refusal.
    async fn taken(&mut self, bytes: Vec<u8>) -> bool {
        self.send(&bytes).await;
        let said = self.settle().await.expect("the connection stands");
        let refused = said.contains("-ERR");
        assert!(!refused || said.contains("Permissions Violation"), "{said}");
        !refused
    }

    async fn send(&mut self, bytes: &[u8]) {
        // A broker that does not let somebody in may have closed already.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Waits for the answer to a ping, and gives what of before it was no message. Messages are kept.
    async fn settle(&mut self) -> Result<String, String> {
        self.send(b"PING\r\n").await;
        let mut said = std::mem::take(&mut self.heard);
        while !said.contains(PONG) {
            if !within("the broker's answer", self.read()).await {
                return Err(said + &self.heard);
            }
            said.push_str(&std::mem::take(&mut self.heard));
        }
        // Messages stay for whoever asks for them.
        self.heard = said.replacen(PONG, "", 1);
        let refusals = self.heard.lines().filter(|line| line.starts_with("-ERR"));
        let refusals = refusals.collect::<Vec<_>>().join("\n");
        self.heard = self
            .heard
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("-ERR"))
            .collect();
        Ok(refusals)
    }

    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(read) if read > 0 => {
                self.heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
                true
            }
            _ => false,
        }
    }
}
