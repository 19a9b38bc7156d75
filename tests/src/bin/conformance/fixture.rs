//! The fixture as a process of its own.

use anyhow::Context as _;
use tests::conformance::fixture::serve;
use tokio::io::AsyncReadExt as _;

use crate::args::Fixture;

/// Runs it until standard input ends, as it does when whoever has started it is gone.
#[expect(clippy::print_stdout, reason = "who has started it reads the URL there")]
pub(crate) async fn run(options: &Fixture) -> anyhow::Result<()> {
    let Some(listen) = options.listen else {
        return serve::on_stdio(options.era).await;
    };
    let serving = serve::on_http(listen, options.era)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", serving.url());
    let mut input = tokio::io::stdin();
    while input.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}
