//! Limits when the broker dies without a word, is away for a while, and comes back.

use tests::eventually;

use super::{HOUR, bridges, status};
use crate::processes::Cluster;

/// What each of two bridges asks before the broker dies.
const BEFORE: u64 = 4;
const CALLS: u64 = 20;

/// Calls a tool at both bridges in turns until both refuse it; gives how many were allowed, and whether what was refused was refused by a
/// limit alone.
async fn use_up(clients: &[tests::http::Client; 2], tool: &str) -> u64 {
    let (mut allowed, mut full) = (0, [false; 2]);
    for at in (0..2).cycle().take(200) {
        match status(&clients[at], tool).await {
            200 => {
                allowed += 1;
                full[at] = false;
            }
            429 => full[at] = true,
            other => panic!("status {other}"),
        }
        if full == [true; 2] {
            return allowed;
        }
    }
    panic!("{allowed} calls, and no end");
}

#[tokio::test]
async fn calls_go_on_when_the_broker_has_died_and_come_back_and_a_days_count_is_still_right() {
    let mut cluster = Cluster::start().await;
    let limits = format!(
        "[[limits]]\nname = \"day\"\nfor = [\"whoami__whoami\"]\ndaily = {CALLS}\n\
         [[limits]]\nname = \"hour\"\nfor = [\"whoami__other\"]\ncalls = {CALLS}\n{HOUR}"
    );
    let (mut running, host) = bridges(&cluster, &limits, 2).await;
    let clients = [running[0].client("whoami"), running[1].client("whoami")];
    for tool in ["whoami", "other"] {
        for client in &clients {
            for _ in 0..BEFORE {
                assert_eq!(status(client, tool).await, 200);
            }
        }
    }
    let while_away = async {
        // Nobody can be asked, and nothing can be called: the call fails, and not by a limit.
        for client in &clients {
            let told = status(client, "whoami").await;
            assert!(told >= 500, "status {told}");
        }
    };
    cluster.nats.die_while(while_away).await;
    // The same bridges call again, by themselves.
    for client in &clients {
        eventually("calls go on", async || {
            matches!(status(client, "other").await, 200 | 429)
        })
        .await;
    }
    // Each may have counted by itself for a moment, as documented: two bridges allow up to twice as much then.
    let of_day = use_up(&clients, "whoami").await;
    let whole = 2 * BEFORE + of_day;
    // What was asked while the broker was away may have been counted for nothing.
    assert!(
        (CALLS - 2..=2 * CALLS).contains(&whole),
        "{whole} of {CALLS} a day"
    );
    // What an hour counts was in the broker's memory and begins anew.
    let of_hour = use_up(&clients, "other").await;
    assert!(of_hour <= 2 * CALLS, "{of_hour} of {CALLS} an hour");
    for bridge in &mut running {
        bridge
            .program
            .logged("counted with the other processes' calls")
            .await;
    }
    // A bridge that knows nothing but what the broker has kept allows no more of the day.
    drop(running);
    host.stop().await;
    let (running, _host) = bridges(&cluster, &limits, 2).await;
    for bridge in &running {
        assert_eq!(status(&bridge.client("whoami"), "whoami").await, 429);
    }
}
