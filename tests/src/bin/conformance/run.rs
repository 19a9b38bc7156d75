//! The suite against all servers, and the table of what came of it.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, stream};
use tests::conformance::{
    baseline::Baseline,
    cell::{self, Through},
    report::{Detail, Report},
    suite::Wire,
    upstream::Upstream,
};

use crate::args::Run;

/// Plays the cells that were asked for; fails when one of them differs from the baseline.
#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
pub(crate) async fn run(options: &Run) -> anyhow::Result<ExitCode> {
    let baseline = Baseline::load()?;
    let upstreams = chosen(&options.only)?;
    let wires = options.wire.map_or(Wire::ALL.to_vec(), |wire| vec![wire]);
    let through = if options.direct {
        Through::Nothing
    } else {
        Through::Platform
    };
    let mut outcomes: Vec<_> = stream::iter(upstreams)
        .map(|upstream| cell::play(upstream, through, &wires))
        .buffered(options.jobs.max(1))
        .collect()
        .await;
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    if wanted(cell::CLIENT) && !options.direct {
        let own = std::env::current_exe().context("a program has a path")?;
        let program = format!("{} client", own.display());
        outcomes.push(cell::play_client(&program, &wires).await);
    }
    let detail = if options.all {
        Detail::Everything
    } else {
        Detail::News
    };
    let report = Report::new(&baseline, outcomes.concat(), detail);
    print!("{report}");
    if report.is_as_expected() {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Upstream>> {
    let all = Upstream::all();
    let known: Vec<String> = all.iter().map(|upstream| upstream.name()).collect();
    let is_known = |name: &str| name == cell::CLIENT || known.iter().any(|known| known == name);
    if let Some(wrong) = names.iter().find(|name| !is_known(name)) {
        bail!(
            "there is no server `{wrong}`; there are: {}, and {}",
            known.join(", "),
            cell::CLIENT
        );
    }
    let wanted = |upstream: &Upstream| names.is_empty() || names.contains(&upstream.name());
    Ok(all.into_iter().filter(wanted).collect())
}
