//! `docs/statements.md` names tests that are there, and leaves out no statement.

use std::fs;

use tests::root;

const STATEMENTS: u32 = 42;
/// Where a file stands that the page names without a folder, or with one of the suite's.
const SUITE: &str = "tests/tests/suite/";
/// The word of a row whose statement, or a part of it, has no test yet.
const WAITS: &str = "waits";

#[test]
fn every_statement_has_its_row_and_every_test_in_it_exists() {
    let page = fs::read_to_string(root().join("docs/statements.md")).expect("the page");
    let wrong = faults(&page, |file| fs::read_to_string(root().join(file)).ok());
    assert!(wrong.is_empty(), "docs/statements.md:\n{}", wrong.join("\n"));
}

/// What is wrong with the page, given what stands in the files of the project.
fn faults(page: &str, text: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut next = 1;
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some(number) = cells[0].parse::<u32>().ok().filter(|_| line.starts_with('|')) else {
            continue;
        };
        if number != next {
            wrong.push(format!("statement {next} is missing before {number}"));
        }
        next = number + 1;
        let [_, words, proofs] = cells.as_slice() else {
            wrong.push(format!(
                "statement {number}: a row is its number, its words, and its tests"
            ));
            continue;
        };
        let named: Vec<&str> = proofs.split('`').skip(1).step_by(2).collect();
        if words.is_empty() || (named.is_empty() && !proofs.contains(WAITS)) {
            wrong.push(format!(
                "statement {number} has no test and does not say that it {WAITS}"
            ));
        }
        for name in named {
            if !exists(name, &text) {
                wrong.push(format!("statement {number}: there is no test `{name}`"));
            }
        }
    }
    if next != STATEMENTS + 1 {
        wrong.push(format!("the last statement is {}, not {STATEMENTS}", next - 1));
    }
    wrong
}

/// Whether a `file::test` is a test of that file.
fn exists(named: &str, text: impl Fn(&str) -> Option<String>) -> bool {
    let Some((file, test)) = named.split_once("::") else {
        return false;
    };
    let Some(text) = text(&format!("{SUITE}{file}")).or_else(|| text(file)) else {
        return false;
    };
    let (mut is_marked, mut is_ignored) = (false, false);
    for line in text.lines().map(str::trim) {
        let signature = line.strip_prefix("async ").unwrap_or(line);
        match signature.strip_prefix("fn ") {
            Some(rest) if rest.split('(').next() == Some(test) => return is_marked && !is_ignored,
            Some(_) => (is_marked, is_ignored) = (false, false),
            // A test that never runs shows nothing.
            None if line.starts_with("#[ignore") => is_ignored = true,
            None => is_marked |= line == "#[test]" || line.starts_with("#[tokio::test"),
        }
    }
    false
}

#[test]
fn a_missing_row_and_a_test_that_is_not_there_are_found() {
    let files = |file: &str| match file {
        "tests/tests/suite/a.rs" => {
            Some("#[tokio::test]\nasync fn it_holds() {}\nfn no_test() {}\n".to_owned())
        }
        "bridges/src/b.rs" => Some(
            "    #[test]\n    fn it_is_kept() {}\n    #[test]\n    #[ignore]\n    fn it_is_not_run() {}\n"
                .to_owned(),
        ),
        _ => None,
    };
    let row = |number: u32, proofs: &str| format!("| {number} | It holds. | {proofs} |\n");
    let with = |one: &str| {
        let rest = (2..=STATEMENTS).map(|number| row(number, "waits for a later day"));
        format!(
            "# Page\n\n| | a | b |\n|---|---|---|\n{}{}",
            row(1, one),
            rest.collect::<String>()
        )
    };
    let right = with("`a.rs::it_holds`, `bridges/src/b.rs::it_is_kept`");
    assert_eq!(faults(&right, files), [""; 0]);
    for (proofs, fault) in [
        ("", "statement 1 has no test and does not say that it waits"),
        ("`a.rs::it_held`", "statement 1: there is no test `a.rs::it_held`"),
        (
            "`bridges/src/b.rs::it_is_not_run`",
            "statement 1: there is no test `bridges/src/b.rs::it_is_not_run`",
        ),
        ("`a.rs::no_test`", "statement 1: there is no test `a.rs::no_test`"),
        (
            "`c.rs::it_holds`",
            "statement 1: there is no test `c.rs::it_holds`",
        ),
        ("`it_holds`", "statement 1: there is no test `it_holds`"),
        (
            "waits | more",
            "statement 1: a row is its number, its words, and its tests",
        ),
    ] {
        assert_eq!(faults(&with(proofs), files), [fault], "{proofs}");
    }
    let gap = right.replace(&row(7, "waits for a later day"), "");
    assert_eq!(faults(&gap, files), ["statement 7 is missing before 8"]);
    let short = right.replace(&row(STATEMENTS, "waits for a later day"), "");
    assert_eq!(faults(&short, files), ["the last statement is 41, not 42"]);
}
