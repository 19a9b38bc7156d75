//! Request and reply with the client library alone, as what a call on the bus is held against: `make bench` starts both roles.
//!
//! `raw_nats responder URL` answers what comes; `raw_nats requester URL CALLERS SECONDS BODY` asks, and prints one JSON line.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_nats::ConnectOptions;
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;

const SUBJECT: &str = "bench.echo";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["responder", url] => respond(url).await,
        ["requester", url, callers, seconds, body] => {
            ask(
                url,
                callers.parse()?,
                Duration::from_secs_f64(seconds.parse()?),
                body,
            )
            .await
        }
        _ => Err("usage: raw_nats responder URL | raw_nats requester URL CALLERS SECONDS BODY".into()),
    }
}

/// The library leaves the credentials of a URL alone.
async fn connect(url: &str) -> Result<async_nats::Client, Box<dyn std::error::Error>> {
    let login = url
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .and_then(|(login, _)| login.split_once(':'));
    let options = match login {
        Some((user, password)) => {
            ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        None => ConnectOptions::new(),
    };
    Ok(options.connect(url).await?)
}

/// Answers until standard input closes.
async fn respond(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let client = connect(url).await?;
    let mut requests = client.subscribe(SUBJECT).await?;
    client.flush().await?;
    let answering = async {
        while let Some(message) = requests.next().await {
            if let Some(reply) = message.reply {
                client.publish(reply, message.payload).await?;
            }
        }
        Ok(())
    };
    let mut rest = Vec::new();
    let mut input = tokio::io::stdin();
    tokio::select! { answered = answering => answered, _ = input.read_to_end(&mut rest) => Ok(()) }
}

#[expect(clippy::print_stdout, reason = "the result is what this program is for")]
async fn ask(
    url: &str,
    callers: usize,
    time: Duration,
    body: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let client = connect(url).await?;
    let body = bytes::Bytes::from(body.to_owned());
    let times = Arc::new(Mutex::new(Vec::new()));
    let end = Instant::now() + time;
    let asking = (0..callers).map(|_| {
        let (client, body, times) = (client.clone(), body.clone(), Arc::clone(&times));
        async move {
            let mut own = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                client.request(SUBJECT, body.clone()).await?;
                own.push(start.elapsed().as_nanos());
            }
            times.lock().expect("nobody panics").extend(own);
            Ok::<(), async_nats::RequestError>(())
        }
    });
    for asked in futures::future::join_all(asking).await {
        asked?;
    }
    let mut times = std::mem::take(&mut *times.lock().expect("nobody panics"));
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!(
        "{{\"calls\":{},\"p50Nanos\":{},\"p99Nanos\":{}}}",
        times.len(),
        at(50),
        at(99)
    );
    Ok(())
}
