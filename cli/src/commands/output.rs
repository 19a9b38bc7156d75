//! What commands print: tables for people, JSON for programs.

use std::io::Write as _;

use serde::Serialize;

/// Prints a line. A reader that has gone, such as `head`, is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a value as one line of JSON.
pub(super) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

/// Prints rows under their headings, each column as wide as it must be. The last column is not padded.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(at, heading)| {
            rows.iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
                .max(heading.len())
        })
        .collect();
    let print = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        line(padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print(
        &headings
            .iter()
            .map(|heading| (*heading).to_owned())
            .collect::<Vec<_>>(),
    );
    for row in rows {
        print(row);
    }
}

/// Cuts a text to one line of at most `limit` characters.
pub(super) fn short(text: &str, limit: usize) -> String {
    let first = text.lines().next().unwrap_or_default();
    if first.chars().count() <= limit {
        return first.to_owned();
    }
    let kept: String = first.chars().take(limit.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Says beside what is printed that something is not as it should be.
#[expect(
    clippy::print_stderr,
    reason = "it is for people, and no part of what programs read"
)]
pub(super) fn warn(text: &str) {
    eprintln!("warning: {text}");
}
