//! `trunkline completions`: a script for a shell.

use clap::CommandFactory as _;

use super::output;
use crate::args::{Arguments, Completions};

pub(crate) fn print(completions: &Completions) {
    let mut script = Vec::new();
    clap_complete::generate(
        completions.shell,
        &mut Arguments::command(),
        "trunkline",
        &mut script,
    );
    output::line(String::from_utf8_lossy(&script).trim_end());
}
