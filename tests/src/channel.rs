//! A channel of messages to a door that holds a conversation: a WebSocket, HTTP+SSE, a pair of pipes in this process, or those of
//! a `trunkline bridge stdio` of its own.

use bridges::{front::Endpoint, stdio};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
        duplex, split,
    },
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use tokio_util::sync::CancellationToken;

use crate::{platform::Platform, program::Program, stream::Stream, within};

/// How many bytes wait in a pipe within this process.
const PIPE_BYTES: usize = 64 * 1024;

/// An open channel, whichever its door.
pub enum Channel {
    /// To the WebSocket door.
    Socket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    /// To the HTTP+SSE door.
    Events {
        /// Where messages are posted to.
        post: String,
        /// Where they come.
        stream: Box<Stream>,
    },
    /// To a stdio door in this process.
    Pipe {
        /// What the door reads.
        input: WriteHalf<DuplexStream>,
        /// What the door writes.
        output: Lines<BufReader<ReadHalf<DuplexStream>>>,
    },
    /// To a stdio door that is a child process.
    Child(Box<Program>),
}

impl Channel {
    /// Opens a WebSocket.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn socket(platform: &Platform, path: &str) -> Self {
        let url = platform.url(path).replacen("http", "ws", 1);
        let (socket, _) = within("the connection", connect_async(url))
            .await
            .expect("connects");
        Self::Socket(Box::new(socket))
    }

    /// Opens a WebSocket as somebody.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn socket_with(platform: &Platform, path: &str, token: &str) -> Self {
        let url = platform.url(path).replacen("http", "ws", 1);
        let mut request = url.into_client_request().expect("a request");
        let value = format!("Bearer {token}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
        let (socket, _) = within("the connection", connect_async(request))
            .await
            .expect("connects");
        Self::Socket(Box::new(socket))
    }

    /// Opens an event stream of HTTP+SSE, and learns where to post to.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn events(platform: &Platform, path: &str) -> Self {
        let response = reqwest::get(platform.url(path));
        let mut stream = Stream::of(within("the stream", response).await.expect("an answer"));
        let first = stream.event().await.and_then(|event| event.data);
        Self::Events {
            post: platform.url(&first.expect("where to post")),
            stream: Box::new(stream),
        }
    }

    /// Opens a stdio door in this process.
    ///
    /// # Panics
    /// When there is no bus.
    pub async fn pipe(platform: &mut Platform, endpoint: Endpoint) -> Self {
        let (near, far) = duplex(PIPE_BYTES);
        let front = platform.node.front(&platform.config).await.expect("a front");
        let (read, write) = split(far);
        tokio::spawn(stdio::serve(
            front,
            endpoint,
            read,
            write,
            CancellationToken::new(),
        ));
        let (read, write) = split(near);
        Self::Pipe {
            input: write,
            output: BufReader::new(read).lines(),
        }
    }

    /// Starts a stdio door as a client would, for one server.
    #[must_use]
    pub fn child(platform: &Platform, server: &str) -> Self {
        let command = platform.stdio_bridge(server);
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        Self::Child(Box::new(Program::start(&arguments)))
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the channel is closed.
    pub async fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        match self {
            Self::Socket(socket) => socket
                .send(Message::text(message.to_string()))
                .await
                .expect("sent"),
            Self::Events { post, .. } => {
                let request = reqwest::Client::new()
                    .post(post.as_str())
                    .header("content-type", "application/json")
                    .body(line);
                let taken = within("an answer", request.send()).await.expect("an answer");
                assert_eq!(taken.status(), 202, "{taken:?}");
            }
            Self::Pipe { input, .. } => input.write_all(line.as_bytes()).await.expect("sent"),
            Self::Child(program) => {
                let input = program.input.as_mut().expect("its side is open");
                input.write_all(line.as_bytes()).await.expect("sent");
            }
        }
    }

    /// Waits for the next message.
    ///
    /// # Panics
    /// When the channel ends before it.
    pub async fn receive(&mut self) -> Value {
        self.next().await.expect("a further message")
    }

    /// Waits for the next message; `None` when the door has closed the channel.
    ///
    /// # Panics
    /// When what comes is no message.
    pub async fn next(&mut self) -> Option<Value> {
        let text = within("a message", async {
            match self {
                Self::Socket(socket) => loop {
                    match socket.next().await?.expect("a frame") {
                        Message::Text(text) => return Some(text.to_string()),
                        Message::Close(_) => return None,
                        _ => {}
                    }
                },
                Self::Events { stream, .. } => {
                    let next = stream.event().await?;
                    next.data
                }
                Self::Pipe { output, .. } => output.next_line().await.expect("readable"),
                Self::Child(program) => program.output.next_line().await.expect("readable"),
            }
        })
        .await?;
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    /// Closes this side; the door may still have something to say.
    ///
    /// # Panics
    /// When it is closed already.
    pub async fn close(&mut self) {
        match self {
            Self::Socket(socket) => socket.close().await.expect("closed"),
            // A client leaves by dropping its stream.
            Self::Events { .. } => {}
            Self::Pipe { input, .. } => input.shutdown().await.expect("closed"),
            Self::Child(program) => drop(program.input.take().expect("its side is open")),
        }
    }

    /// Closes this side and waits until the door has closed its own.
    ///
    /// # Panics
    /// When it does not.
    pub async fn end(&mut self) {
        self.close().await;
        if matches!(self, Self::Events { .. }) {
            return;
        }
        while self.next().await.is_some() {}
        if let Self::Child(program) = self {
            within("the end of the bridge", program.child.wait())
                .await
                .expect("it ends");
        }
    }

    /// Sends a message and waits for the next.
    pub async fn ask(&mut self, message: &Value) -> Value {
        self.send(message).await;
        self.receive().await
    }
}
