//! The NATS wire by hand: a client that keeps no rules, and a cable that can be cut.

use std::net::SocketAddr;

use bus_schema::{ContentType, Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::within;

/// A client that publishes whatever it is told to.
pub struct RawClient(TcpStream);

impl RawClient {
    /// Connects with the credentials in the URL.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn connect(url: &str) -> Self {
        Self::connect_as(url, "").await
    }

    /// Connects under the name that an instance of ours would have.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn connect_as(url: &str, name: &str) -> Self {
        let rest = url.trim_start_matches("nats://");
        let (login, host) = rest.rsplit_once('@').expect("credentials");
        let (user, password) = login.split_once(':').expect("a password");
        let mut stream = TcpStream::connect(host).await.expect("connects");
        let hello = serde_json::json!({ "verbose": false, "user": user, "pass": password, "name": name, "headers": true });
        stream
            .write_all(format!("CONNECT {hello}\r\n").as_bytes())
            .await
            .expect("writes");
        let mut client = Self(stream);
        client.round_trip().await;
        client
    }

    /// Publishes a request with any reply subject.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn publish(&mut self, subject: &str, reply: &str, request: &Request) {
        let payload = ContentType::MessagePack.encode(request).expect("encodes");
        let head = format!("PUB {subject} {reply} {}\r\n", payload.len());
        self.0
            .write_all(&[head.as_bytes(), &payload, b"\r\n"].concat())
            .await
            .expect("writes");
        self.round_trip().await;
    }

    /// Publishes several messages at once, so that whoever hears them has them all before it looks at the first.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn publish_together(&mut self, messages: &[(String, Vec<u8>)]) {
        let mut bytes = Vec::new();
        for (subject, payload) in messages {
            bytes.extend_from_slice(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.write_all(&bytes).await.expect("writes");
        self.round_trip().await;
    }

    /// Joins the queue group of the hosts for a subject.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn join_hosts(&mut self, subject: &str) {
        let subscribe = format!("SUB {subject} {} 1\r\n", bus_schema::subject::QUEUE_GROUP);
        self.0.write_all(subscribe.as_bytes()).await.expect("writes");
        self.round_trip().await;
    }

    /// Subscribes to what passes.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn subscribe(&mut self, subject: &str) {
        let subscribe = format!("SUB {subject} 1\r\n");
        self.0.write_all(subscribe.as_bytes()).await.expect("writes");
        self.round_trip().await;
    }

    /// Waits for a message that has a word in it, and gives everything that has come up to its end.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn heard(&mut self, word: &str) -> String {
        let mut heard = String::new();
        let mut buffer = [0; 4096];
        within(&format!("a message with `{word}`"), async {
            while !heard.contains(word) {
                let read = self.0.read(&mut buffer).await.expect("reads");
                assert!(read > 0, "the broker closed the connection: {heard}");
                heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        })
        .await;
        heard
    }

    /// Waits for a message to what was subscribed to, and forgets it.
    ///
    /// # Panics
    /// When the connection is gone.
    pub async fn take_and_forget(&mut self) {
        let mut buffer = [0; 4096];
        let read = within("a message", self.0.read(&mut buffer))
            .await
            .expect("reads");
        let heard = String::from_utf8_lossy(&buffer[..read]);
        assert!(heard.contains("MSG "), "{heard}");
    }

    /// Waits until the broker has taken everything before.
    async fn round_trip(&mut self) {
        self.0.write_all(b"PING\r\n").await.expect("writes");
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        within("the broker's answer", async {
            while !seen.ends_with(b"PONG\r\n") {
                let read = self.0.read(&mut buffer).await.expect("reads");
                assert!(
                    read > 0,
                    "the broker closed the connection: {}",
                    String::from_utf8_lossy(&seen)
                );
                seen.extend_from_slice(&buffer[..read]);
            }
        })
        .await;
    }
}

/// A cable to a NATS that can be cut, as a killed process or a pulled plug would.
pub struct Cable {
    local: SocketAddr,
    cut: CancellationToken,
}

impl Cable {
    /// Lays a cable to the host of a URL.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(url: &str) -> Self {
        let target = url.rsplit(['@', '/']).next().expect("a host").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let local = listener.local_addr().expect("an address");
        let cut = CancellationToken::new();
        let cutting = cut.clone();
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = cutting.cancelled() => return,
                };
                let Ok((mut near, _)) = accepted else { return };
                let (target, cutting) = (target.clone(), cutting.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! { _ = copy_bidirectional(&mut near, &mut far) => {} () = cutting.cancelled() => {} }
                });
            }
        });
        Self { local, cut }
    }

    /// The URL with its host exchanged for this end of the cable.
    ///
    /// # Panics
    /// When the URL has no host.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let host = url.rsplit(['@', '/']).next().expect("a host");
        url.replace(host, &self.local.to_string())
    }

    /// Cuts it for good.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}
