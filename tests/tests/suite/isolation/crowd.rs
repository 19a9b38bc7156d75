//! Two hundred servers at one platform, of which twenty fail in different ways: the others do not notice, and nothing is left behind.

use std::collections::BTreeSet;

use bus_schema::mcp::method;
use serde_json::{Value, json};
use tests::{
    crowd::{Crowd, HEALTHY, failing_lines, percentile},
    eventually,
    http::Client,
    mark::Mark,
    within,
};
use tokio::time::{Duration, Instant};

use crate::processes::{terminate, up::Up};

/// How many calls are measured at a time, by how many callers.
const CALLS: usize = 1_000;
const CALLERS: usize = 8;
/// What the slowest calls may cost more when others fail, on a machine that has much else to do: it is the order that counts here,
/// and the figures are printed. `make bench-crowd` measures them.
const MOST_TIMES: u32 = 20;
const MOST_MORE: Duration = Duration::from_secs(1);
/// A list waits for a mute server for five seconds, and this is for all else.
const LIST_WITHIN: Duration = Duration::from_secs(15);
/// What a platform opens for other reasons.
const MORE_FILES: usize = 8;

#[expect(
    clippy::print_stdout,
    reason = "the figures are for who reads what the test prints"
)]
fn show(without: &[Duration], with: &[Duration], failed: usize, listed_within: Duration) {
    println!(
        "{HEALTHY} servers that are well, calls to them without ({} of them) and with ({}) 20 others that fail under {failed} calls:",
        without.len(),
        with.len()
    );
    for percent in [50, 90, 99] {
        let (without, with) = (percentile(without, percent), percentile(with, percent));
        let times = with.as_secs_f64() / without.as_secs_f64();
        println!("p{percent} {without:?} and {with:?}, {times:.2} times");
    }
    println!("the list of all came within {listed_within:?}");
}

async fn list_of_all(client: &Client) -> Value {
    let request = client.modern(method::TOOLS_LIST, json!({}));
    let answer = within("a list", request.send()).await.expect("an answer");
    answer.json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_servers_twenty_that_fail_in_different_ways_are_not_noticed_by_the_others() {
    let mark = Mark::new();
    let mut up = Up::start(&failing_lines(&mark)).await;
    let process = up.program.child.id().expect("it runs");
    let crowd = Crowd::of(up.text("http"), process).await;
    // It says much, and somebody has to read it.
    let read = async {
        while let Ok(Some(_)) = up.program.log.next_line().await {}
        std::future::pending::<()>().await
    };
    tokio::select! {
        () = read => {}
        () = goes_well(&crowd) => {}
    }
    terminate(up.program).await;
    mark.expect_gone().await;
}

async fn goes_well(crowd: &Crowd) {
    let before = crowd.open_files();
    let healthy = Crowd::healthy();
    crowd.register(crowd.all_healthy()).await;
    crowd.are_well(&crowd.all_healthy()).await;
    crowd.measure(CALLS, CALLERS).await;
    let mut without = crowd.measure(CALLS, CALLERS).await;
    crowd.register(crowd.failing()).await;
    let beside = crowd.call_failing(None);
    crowd.are_down().await;
    let with = crowd.measure(CALLS, CALLERS).await;
    // The list of all is there in its time, with all that are well, and says whom it misses.
    let begun = Instant::now();
    let list = list_of_all(&Client::new(crowd.url("/mcp"))).await;
    let listed_within = begun.elapsed();
    let tools = list["result"]["tools"].as_array().expect("tools");
    let names: BTreeSet<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    for id in &healthy {
        assert!(names.contains(format!("{id}__work").as_str()), "{id} is missing");
    }
    let missing = list["result"]["_meta"]["io.trunkline/missing"].to_string();
    for id in ["mute-1", "mute-2"] {
        assert!(missing.contains(id), "{missing}");
    }
    assert!(listed_within < LIST_WITHIN, "{listed_within:?}");
    let failed = beside.end().await;
    // Nothing is left of them: no connection, no process.
    let failing = crowd.failing().into_iter().map(|(id, _)| id);
    crowd.remove(failing).await;
    // Before and after, as the machine has other things to do that come and go.
    without.extend(crowd.measure(CALLS, CALLERS).await);
    without.sort();
    let p99 = [percentile(&without, 99), percentile(&with, 99)];
    show(&without, &with, failed, listed_within);
    assert!(p99[1] < p99[0] * MOST_TIMES + MOST_MORE, "{p99:?}");
    assert!(failed > 20, "{failed}");
    crowd.remove(healthy).await;
    eventually("all connections are closed", async || {
        crowd.open_files() <= before + MORE_FILES
    })
    .await;
}
