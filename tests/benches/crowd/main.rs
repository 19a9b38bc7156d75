//! What twenty failing servers cost the calls to a hundred and eighty others, in one run: the same calls with and without them, in turns.
//!
//! Beside the calls that are measured others are made at a steady pace: to servers that are well, and then to those that fail. So the
//! machine has the same to do, and the difference is what failing costs. At the end nothing may be left open or running.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::Parser;
use rustix::process::Signal;
use serde_json::Value;
use tests::{
    crowd::{Crowd, failing_lines, percentile},
    eventually,
    mark::Mark,
    program::Program,
    within,
};
use tokio::time::Duration;

/// What a platform opens for other reasons.
const MORE_FILES: usize = 8;
/// The percentiles that are shown.
const SHOWN: [usize; 3] = [50, 90, 99];

/// Measures what failing servers cost the others.
#[derive(Clone, Debug, Parser)]
#[command(name = "crowd")]
struct Options {
    /// How many calls are measured each time
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    calls: usize,
    /// How many of them are under way at once
    #[arg(long, default_value_t = 16, value_name = "N")]
    callers: usize,
    /// How many times both are measured, in turns; the last line has the medians
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: u32,
    /// How long each of the eight callers beside waits between two calls, in milliseconds
    #[arg(long, default_value_t = 20, value_name = "MS")]
    pace_ms: u64,
    /// Fail when the median of the ratios of the p99 is more than this
    #[arg(long, value_name = "TIMES")]
    most: Option<f64>,
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a program goes to the terminal"
)]
fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(&options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let (calls, callers, rounds) = (options.calls, options.callers, options.rounds);
    ensure!(
        callers > 0 && calls >= callers && rounds > 0 && options.pace_ms > 0,
        "--callers, --rounds and --pace-ms are 1 at least, and --calls no fewer than --callers"
    );
    let (folder, mark) = (tempfile::tempdir()?, Mark::new());
    let file = folder.path().join("trunkline.toml");
    std::fs::write(&file, "")?;
    let (mut program, base) = platform(folder.path()).await?;
    let process = program.child.id().context("the platform has ended")?;
    let crowd = Crowd::of(&base, process).await;
    let lines = failing_lines(&mark);
    // It says much, and somebody has to read it.
    let read = async {
        while let Ok(Some(_)) = program.log.next_line().await {}
        std::future::pending().await
    };
    let mut ratios: Vec<f64> = tokio::select! {
        ratios = read => ratios,
        ratios = measure(options, &crowd, &file, &lines) => ratios?,
    };
    program.signal(Signal::TERM);
    within("its end", program.child.wait()).await?;
    mark.expect_gone().await;
    say("nothing is left: no process, no connection");
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    say(&format!(
        "p99 with failing servers: {median:.2} of that without, by the median of {rounds} rounds"
    ));
    if let Some(most) = options.most {
        ensure!(
            median <= most,
            "the p99 is {median:.2} times as long, and {most} are the most"
        );
    }
    Ok(())
}

/// Starts the platform, and gives where its HTTP is.
async fn platform(folder: &Path) -> anyhow::Result<(Program, String)> {
    let text = |path: &Path| path.display().to_string();
    let (config, data) = (text(&folder.join("trunkline.toml")), text(&folder.join("data")));
    let listens = ["--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"];
    let files = ["--config", &config, "--data-dir", &data, "--json"];
    let mut program = Program::start(&[&["up"][..], &listens, &files].concat());
    let ready = within("the ready banner", program.output.next_line()).await?;
    let ready: Value = serde_json::from_str(&ready.context("the platform does not start")?)?;
    let base = ready["http"].as_str().context("no HTTP")?.to_owned();
    Ok((program, base))
}

/// Measures in turns, and gives for each round how many times as long the p99 is with those that fail.
async fn measure(options: &Options, crowd: &Crowd, file: &Path, lines: &str) -> anyhow::Result<Vec<f64>> {
    let pace = Some(Duration::from_millis(options.pace_ms));
    let before = crowd.open_files();
    crowd.register(crowd.all_healthy()).await;
    crowd.are_well(&crowd.all_healthy()).await;
    crowd.measure(options.calls, options.callers).await;
    let mut ratios = Vec::new();
    say("| round | without: p50 µs | p90 | p99 | with: p50 µs | p90 | p99 | p99, times | failing calls |");
    say("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for round in 1..=options.rounds {
        crowd.register(crowd.stand_ins()).await;
        crowd.are_well(&crowd.stand_ins()).await;
        let beside = crowd.call_stand_ins(pace);
        let without = crowd.measure(options.calls, options.callers).await;
        beside.end().await;
        crowd.remove(ids(crowd.stand_ins())).await;
        crowd.register(crowd.failing()).await;
        std::fs::write(file, lines)?;
        let beside = crowd.call_failing(pace);
        crowd.are_down().await;
        let with = crowd.measure(options.calls, options.callers).await;
        let failed = beside.end().await;
        crowd.remove(ids(crowd.failing())).await;
        std::fs::write(file, "")?;
        let [without, with] = [without, with].map(|took| SHOWN.map(|percent| percentile(&took, percent)));
        let times = with[2].as_secs_f64() / without[2].as_secs_f64();
        let cells: Vec<_> = without
            .iter()
            .chain(&with)
            .map(|time| time.as_micros().to_string())
            .collect();
        say(&format!(
            "| {round} | {} | {times:.2} | {failed} |",
            cells.join(" | ")
        ));
        ratios.push(times);
    }
    crowd.remove(Crowd::healthy()).await;
    eventually("all connections are closed", async || {
        crowd.open_files() <= before + MORE_FILES
    })
    .await;
    Ok(ratios)
}

fn ids(servers: Vec<(String, String)>) -> impl Iterator<Item = String> {
    servers.into_iter().map(|(id, _)| id)
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn say(line: &str) {
    println!("{line}");
}
