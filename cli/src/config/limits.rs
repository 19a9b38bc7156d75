//! How often callers may have servers work: the lines `[[limits]]`.

use anyhow::Context as _;
use bus_schema::limits::{self, Limit};

/// The limits of a file. Those that hold without configuration are replaced by any that are written, also by none (`limits = []`).
pub(super) fn read(written: Option<Vec<Limit>>) -> anyhow::Result<Vec<Limit>> {
    let limits = written.unwrap_or_else(|| vec![Limit::default_of_users()]);
    limits::check(&limits).context("[[limits]] cannot be used")?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{expect_refusal, load};

    #[test]
    fn users_have_sixty_calls_a_minute_unless_the_file_says_otherwise() {
        let usual = load("").expect("loads").limits;
        assert_eq!(
            (usual.len(), usual[0].calls, usual[0].window_secs),
            (1, Some(60), 60)
        );
        assert!(load("limits = []").expect("loads").limits.is_empty());
        let text = "[[limits]]\nname = \"crm\"\nby = [\"principal\", \"server\"]\nfor = [\"crm__*\"]\ncalls = 10\nwindow_secs = 1\ndaily = 500\nconcurrent = 2";
        let limits = load(text).expect("loads").limits;
        assert_eq!((limits.len(), limits[0].name.as_str()), (1, "crm"));
    }

    #[test]
    fn a_bad_limit_is_named_with_what_would_be_right() {
        for (text, words) in [
            (
                "[[limits]]\nname = \"a\"\ncalls = 0",
                ["[[limits]]", "limit `a`", "calls = 0; use 1 to"],
            ),
            (
                "[[limits]]\nname = \"a\"\nby = \"user\"\ncalls = 1",
                ["line 3", "`user`", "principal, tool, server or tenant"],
            ),
            (
                "[[limits]]\nname = \"a\"\nfor = [\"crm\"]\ncalls = 1",
                ["line 3", "`crm` names nothing", "<server>__<name>"],
            ),
            (
                "[[limits]]\nname = \"a\"\nwho = \"nobody\"\ncalls = 1",
                ["line 3", "nobody", "authenticated"],
            ),
            (
                "[[limits]]\nname = \"a\"\ncalls = 1\n[[limits]]\nname = \"a\"\ncalls = 2",
                ["[[limits]]", "two limits are named `a`", "a name of its own"],
            ),
        ] {
            expect_refusal(text, words);
        }
    }
}
