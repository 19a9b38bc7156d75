//! A team's own actor: a plain NATS client that answers on a subject, written against the protocol and nothing of ours.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::within;

/// One at work; it leaves when it is dropped.
pub struct Actor {
    /// What it was asked.
    pub asked: mpsc::UnboundedReceiver<Value>,
    task: JoinHandle<()>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Actor {
    /// Connects to `nats://host:port` with these options, listens on a subject, and answers each question with what `answer` makes of it,
    /// or not at all.
    ///
    /// # Panics
    /// When the broker does not let it in or does not let it listen.
    pub async fn on(
        url: &str,
        options: Value,
        subject: &str,
        answer: impl Fn(&Value) -> Option<String> + Send + 'static,
    ) -> Self {
        let host = url.trim_start_matches("nats://");
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let stream = within("a connection", TcpStream::connect(host)).await;
        let (read, mut write) = stream.expect("connects").into_split();
        let mut read = BufReader::new(read);
        let mut hello = json!({ "verbose": false, "headers": true, "no_responders": true });
        for (key, value) in options.as_object().into_iter().flatten() {
            hello[key] = value.clone();
        }
        let hello = format!("CONNECT {hello}\r\nSUB {subject} team 1\r\nPING\r\n");
        write.write_all(hello.as_bytes()).await.expect("writes");
        within("the broker lets the actor listen", async {
            let mut line = String::new();
            while line.trim() != "PONG" {
                line.clear();
                let read = read.read_line(&mut line).await.expect("a line");
                assert!(read > 0 && !line.starts_with("-ERR"), "{line}");
            }
        })
        .await;
        let (asked_in, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut line = String::new();
            loop {
                line.clear();
                if read.read_line(&mut line).await.unwrap_or_default() == 0 {
                    return;
                }
                let words: Vec<&str> = line.split_whitespace().collect();
                let reply = match words.as_slice() {
                    ["PING"] => {
                        let _ = write.write_all(b"PONG\r\n").await;
                        continue;
                    }
                    // The broker adds headers to what comes from another account.
                    ["HMSG", _, _, reply, head, bytes] => {
                        let length = |text: &str| text.parse::<usize>().expect("a length");
                        let (head, bytes) = (length(head), length(bytes));
                        let mut message = vec![0; bytes + 2];
                        read.read_exact(&mut message).await.expect("a message");
                        let question: Value =
                            serde_json::from_slice(&message[head..bytes]).expect("plain JSON");
                        let answered = answer(&question);
                        let _ = asked_in.send(question);
                        answered.map(|answer| ((*reply).to_owned(), answer))
                    }
                    _ => continue,
                };
                if let Some((reply, answer)) = reply {
                    let line = format!("PUB {reply} {}\r\n{answer}\r\n", answer.len());
                    let _ = write.write_all(line.as_bytes()).await;
                }
            }
        });
        Self { asked, task }
    }

    /// The next question that it was asked.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn question(&mut self) -> Value {
        within("a question", self.asked.recv())
            .await
            .expect("the actor works")
    }
}
