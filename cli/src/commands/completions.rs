//! `trunkline completions`: a script for a shell.

use clap::CommandFactory as _;

use crate::args::{Arguments, Completions};

pub(crate) fn print(completions: &Completions) {
    let mut command = Arguments::command();
    clap_complete::generate(
        completions.shell,
        &mut command,
        "trunkline",
        &mut std::io::stdout(),
    );
}
