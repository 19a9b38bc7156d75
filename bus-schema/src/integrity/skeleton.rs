//! Names that look alike: what remains of a name when everything is taken away that a reader may overlook.

use std::collections::BTreeMap;

use unicode_security::confusable_detection::skeleton as confusable;

use super::{Pins, hidden::is_hidden};
use crate::ServerId;

/// What a name looks like: names with the same skeleton can be taken for each other.
///
/// Hidden characters, case, the characters between words, and which of several characters of the same look is used (UTS 39) do not count.
#[must_use]
pub fn skeleton(name: &str) -> String {
    let seen: String = name
        .chars()
        .filter(|c| !is_hidden(*c))
        .flat_map(char::to_lowercase)
        .collect();
    // Case comes back where a small letter looks like a large one of another script.
    let bare: String = confusable(&seen).flat_map(char::to_lowercase).collect();
    confusable(&bare)
        .filter(|c| !matches!(c, '_' | '-' | '.' | ' '))
        .collect()
}

/// The tools of all servers, by what their names look like.
pub struct Lookalikes(BTreeMap<String, Vec<(ServerId, String)>>);

impl Lookalikes {
    /// Of everything that was ever seen.
    #[must_use]
    pub fn of(all: &BTreeMap<ServerId, Pins>) -> Self {
        let mut alike: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, pins) in all {
            for name in pins.tools.keys() {
                alike
                    .entry(skeleton(name))
                    .or_default()
                    .push((id.clone(), name.clone()));
            }
        }
        Self(alike)
    }

    /// The tools of other servers that a server's tool of this name can be taken for.
    pub fn of_others<'a>(
        &'a self,
        server: &'a ServerId,
        name: &str,
    ) -> impl Iterator<Item = &'a (ServerId, String)> {
        let alike = self.0.get(&skeleton(name)).map(Vec::as_slice).unwrap_or_default();
        alike.iter().filter(move |(other, _)| other != server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_have_one_skeleton() {
        for (a, b) in [
            ("search", "Search"),
            ("search", "sеarch"),
            ("search", "ѕеаrсһ"),
            ("search", "ｓｅａｒｃｈ"),
            ("search", "sea\u{200B}rch"),
            ("search", "sea\u{E0041}rch"),
            ("get_item", "get-item"),
            ("get_item", "GET.ITEM"),
            ("getItem", "get_item"),
            ("pay1", "payl"),
            ("transfer", "trаnsfer"),
            ("ping", "ρing"),
            ("modern", "rnodern"),
        ] {
            assert_eq!(skeleton(a), skeleton(b), "{a} {b}");
        }
    }

    #[test]
    fn names_that_do_not_look_alike_have_several() {
        for (a, b) in [
            ("search", "research"),
            ("get_a", "get_b"),
            ("list", "lists"),
            ("über", "uber"),
        ] {
            assert_ne!(skeleton(a), skeleton(b), "{a} {b}");
        }
    }
}
