//! The `trunkline` program: reads the command line and gives the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline::run()
}
