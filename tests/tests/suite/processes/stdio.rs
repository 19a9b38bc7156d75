//! `trunkline bridge stdio`: the child of a desktop client, which ends with it and loses nothing.

use bus_schema::{mcp::method, subject::DISCONNECTS};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{http::modern_body, program::Program, wire::RawClient, within};
use tokio::io::AsyncWriteExt as _;

use super::{Cluster, ends_well};

async fn write(program: &mut Program, message: &Value) {
    let input = program.input.as_mut().expect("its side is open");
    input
        .write_all(format!("{message}\n").as_bytes())
        .await
        .expect("it reads");
}

async fn read(program: &mut Program) -> Option<Value> {
    let line = within("a message", program.output.next_line())
        .await
        .expect("output")?;
    Some(serde_json::from_str(&line).expect("a line of JSON"))
}

/// A bridge with a long call under way.
async fn begin_call(cluster: &Cluster) -> Program {
    let mut program = cluster.begin(&["bridge", "stdio", "--server", "products"]);
    let arguments = json!({ "batch_size": 60, "pause_ms": 50 });
    let params = json!({ "name": "reindex", "arguments": arguments, "_meta": { "progressToken": 1 } });
    write(&mut program, &modern_body(method::TOOLS_CALL, params)).await;
    let begun = read(&mut program).await.expect("a message");
    assert_eq!(begun["method"], method::PROGRESS, "{begun}");
    program
}

/// Reads on until the call is answered.
async fn expect_answer(program: &mut Program) {
    let answer = loop {
        let message = read(program).await.expect("an answer");
        if message["method"] != method::PROGRESS {
            break message;
        }
    };
    assert_eq!(answer["result"]["structuredContent"]["products"], 420, "{answer}");
}

#[tokio::test]
async fn a_stdio_bridge_whose_client_closes_the_pipe_answers_what_has_begun_and_ends() {
    let cluster = Cluster::start().await;
    let _replica = cluster.serve(&["products"]).await;
    let mut program = begin_call(&cluster).await;
    drop(program.input.take());
    expect_answer(&mut program).await;
    ends_well(program).await;
}

#[tokio::test]
async fn a_stdio_bridge_that_is_asked_to_end_answers_what_has_begun_and_ends() {
    let cluster = Cluster::start().await;
    let _replica = cluster.serve(&["products"]).await;
    let mut program = begin_call(&cluster).await;
    program.signal(Signal::TERM);
    expect_answer(&mut program).await;
    // The client's side of the pipe is still open.
    ends_well(program).await;
}

#[tokio::test]
async fn only_messages_stand_on_the_standard_output_of_a_stdio_bridge() {
    let cluster = Cluster::start().await;
    let _replica = cluster.serve(&["products"]).await;
    let mut program = cluster.begin(&["bridge", "stdio", "--log", "debug"]);
    let input = program.input.as_mut().expect("piped");
    input.write_all(b"this is no JSON\n\n").await.expect("it reads");
    let refused = read(&mut program).await.expect("a message");
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&Value::Null, &json!(-32700))
    );
    let arguments = json!({ "name": "products__get", "arguments": { "sku": "OFF-0001" } });
    write(&mut program, &modern_body(method::TOOLS_CALL, arguments)).await;
    let answer = read(&mut program).await.expect("a message");
    assert_eq!(
        answer["result"]["structuredContent"]["sku"], "OFF-0001",
        "{answer}"
    );
    drop(program.input.take());
    assert_eq!(read(&mut program).await, None);
}

#[tokio::test]
async fn a_stdio_bridge_that_ends_is_not_taken_for_a_lost_host() {
    let cluster = Cluster::start().await;
    let mut broker = RawClient::connect(&cluster.nats.core_url()).await;
    broker.subscribe(DISCONNECTS).await;
    let mut program = cluster.begin(&["bridge", "stdio"]);
    write(&mut program, &modern_body(method::DISCOVER, json!({}))).await;
    assert!(read(&mut program).await.is_some(), "it is on the bus");
    drop(program.input.take());
    ends_well(program).await;
    // Whoever has this name is known to host nothing; of anybody else, calls that wait for a host would begin to fear.
    let heard = broker.heard(r#""reason""#).await;
    assert!(heard.contains(r#""name":"cli-"#), "{heard}");
}
