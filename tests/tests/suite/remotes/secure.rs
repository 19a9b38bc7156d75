//! Where the platform connects, and what it never tells.

use bus_schema::mcp::method;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tests::{
    http::Client,
    platform::Platform,
    program::{Program, http_of},
    remote::{local, server},
    scripted::{Asked, Scripted, status},
    within,
};
use tokio::net::TcpListener;

use super::failure;

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to_unless_its_line_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let file = server("streamable", &format!("https://localhost:{port}/mcp"), "")
        + &server("socket", &format!("wss://localhost:{port}/mcp"), "")
        + &server(
            "sse",
            &format!("https://localhost:{port}/sse"),
            "transport = \"sse\"",
        );
    let platform = Platform::start(&file, &["streamable", "socket", "sse"]).await;
    for id in ["streamable", "socket", "sse"] {
        let why = failure(&platform, id).await;
        for words in ["`localhost`", "a loopback address", "allow_private = true"] {
            assert!(why.contains(words), "{id}: {why}");
        }
    }
    platform.stop().await;
    let connected = listener.into_std().expect("a socket").accept();
    assert!(connected.is_err(), "somebody has connected");
}

#[tokio::test]
async fn a_token_is_in_no_log_and_in_no_error() {
    const TOKEN: &str = "a-token-that-nobody-may-see";
    let refuses = Scripted::start(|asked: Asked| async move {
        match asked.called() {
            method::TOOLS_CALL => status(401),
            _ => asked.modern(&json!([{ "name": "t", "inputSchema": { "type": "object" } }])),
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).expect("the file is written");
    let more = format!(
        "bearer_file = {}\nheaders = {{ X-Key = \"{TOKEN}\" }}",
        json!(file)
    );
    let config = folder.path().join("trunkline.toml");
    std::fs::write(&config, local("there", &refuses.url(), &more)).expect("the file is written");
    let data = folder.path().join("data");
    let mut up = Program::talkative(&config, &data);
    let pid = up.pid();
    let use_it = async {
        let base = http_of(&mut up.output).await;
        let client = Client::new(format!("{base}/servers/there/mcp"));
        let answer = within("an error", client.call("t", json!({}))).await;
        let words = answer["error"]["message"].as_str().expect("a message");
        assert!(words.contains("HTTP 401"), "{answer}");
        assert!(!answer.to_string().contains(TOKEN));
        kill_process(pid, Signal::TERM).expect("it runs");
    };
    let read_log = async {
        let mut lines = 0;
        while let Some(line) = up.log.next_line().await.expect("the log can be read") {
            assert!(!line.contains(TOKEN), "{line}");
            lines += 1;
        }
        lines
    };
    let ((), lines) = tokio::join!(use_it, within("the end of the log", read_log));
    assert!(
        lines > 100,
        "the log has {lines} lines, and everything was to be logged"
    );
    let shown = &refuses.asked(method::TOOLS_CALL)[0];
    assert_eq!(shown.header("authorization"), format!("Bearer {TOKEN}"));
}
