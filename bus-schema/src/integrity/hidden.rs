//! Characters that people do not see and models read: they can carry instructions past whoever approves a tool.
//!
//! What writing systems need is not counted: joiners inside emoji and between letters of scripts that join, selectors after emoji
//! and ideographs, and the tags of the three flags that are spelled with them.

use serde::{Deserialize, Serialize};

use super::diff::token;
use crate::canonical::Node;

/// The most places that are told.
const MOST: usize = 32;

/// Hidden characters at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// Where, as a JSON Pointer; of a member's name, the pointer of the member.
    pub path: String,
    /// Which characters, once each, such as `U+200B`.
    pub characters: Vec<String>,
    /// How many there are.
    pub count: usize,
}

/// Finds the places of a JSON text with hidden characters; the first 32.
#[must_use]
pub fn find(node: &Node) -> Vec<Hidden> {
    let mut found = Vec::new();
    look(node, "", &mut found);
    found
}

fn look(node: &Node, path: &str, found: &mut Vec<Hidden>) {
    match node {
        Node::Object(members) => {
            for (key, value) in members {
                let path = format!("{path}/{}", token(key));
                if let Ok(name) = serde_json::from_str::<String>(key) {
                    take(&name, &path, found);
                }
                look(value, &path, found);
            }
        }
        Node::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                look(item, &format!("{path}/{at}"), found);
            }
        }
        // What lies too deep to be read is looked at as it is spelled.
        Node::Plain(spelled) => take(node.as_text().as_ref().unwrap_or(spelled), path, found),
    }
}

fn take(text: &str, path: &str, found: &mut Vec<Hidden>) {
    if found.len() < MOST
        && let Some(hidden) = in_text(text, path)
    {
        found.push(hidden);
    }
}

/// The hidden characters of one text, which is found at a path.
#[must_use]
pub fn in_text(text: &str, path: &str) -> Option<Hidden> {
    // Nothing of ASCII is hidden but controls.
    if text
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
    {
        return None;
    }
    let all: Vec<char> = text.chars().collect();
    let hidden: Vec<char> = (0..all.len())
        .filter(|at| is_hidden(all[*at]) && !is_needed(&all, *at))
        .map(|at| all[at])
        .collect();
    let mut characters: Vec<String> = hidden
        .iter()
        .map(|c| format!("U+{:04X}", u32::from(*c)))
        .collect();
    characters.sort_unstable();
    characters.dedup();
    (!hidden.is_empty()).then(|| Hidden {
        path: path.to_owned(),
        characters,
        count: hidden.len(),
    })
}

/// Whether a character shows nothing of its own.
pub(crate) fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\r' | '\t' => false,
        c if c.is_control() => true,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' => true,
        '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' => true,
        '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' => true,
        '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' => true,
        // Tags, the other variation selectors, and what is kept free for more of their kind.
        '\u{E0000}'..='\u{E0FFF}' => true,
        // Private characters look as whoever reads them has agreed; nobody has.
        '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{10FFFF}' => true,
        _ => false,
    }
}

/// Whether what is written cannot be written without it.
fn is_needed(all: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).map(|at| all[at]);
    let after = all.get(at + 1).copied();
    match all[at] {
        '\u{200D}' if before.is_some_and(is_joined_emoji) => after.is_some_and(is_emoji),
        '\u{200C}' | '\u{200D}' => {
            before.is_some_and(joins) && after.is_none_or(|c| joins(c) || !is_hidden(c))
        }
        '\u{FE0F}' if before.is_some_and(|c| c.is_ascii()) => after == Some('\u{20E3}'),
        '\u{FE0E}' | '\u{FE0F}' => before.is_some_and(is_emoji),
        '\u{FE00}'..='\u{FE02}' | '\u{E0100}'..='\u{E01EF}' => before.is_some_and(is_ideograph),
        '\u{E0000}'..='\u{E007F}' => is_in_flag(all, at),
        _ => false,
    }
}

fn is_emoji(c: char) -> bool {
    matches!(
        c,
        '#' | '*' | '0'..='9' | '\u{A9}' | '\u{AE}' | '\u{203C}' | '\u{2049}' | '\u{2122}' | '\u{2139}'
    ) || matches!(c, '\u{2190}'..='\u{2BFF}' | '\u{3030}' | '\u{303D}' | '\u{3297}' | '\u{3299}' | '\u{1F000}'..='\u{1FAFF}')
}

/// An emoji, with or without the selector that makes it one.
fn is_joined_emoji(c: char) -> bool {
    is_emoji(c) || c == '\u{FE0F}'
}

/// A letter of a script in which joiners change how letters join: Arabic to Khmer, and Mongolian.
fn joins(c: char) -> bool {
    matches!(c, '\u{600}'..='\u{109F}' | '\u{1780}'..='\u{18AF}' | '\u{FB50}'..='\u{FDFF}') && !is_hidden(c)
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{323AF}')
}

/// Whether a tag belongs to the flag of England, Scotland or Wales; no other is spelled with tags.
fn is_in_flag(all: &[char], at: usize) -> bool {
    const FLAGS: [&str; 3] = ["gbeng", "gbsct", "gbwls"];
    // A flag has six tags, so what stands further before is none of it.
    let first = at.saturating_sub(6);
    let Some(base) = all[first..at].iter().rposition(|c| *c == '\u{1F3F4}') else {
        return false;
    };
    let tags = &all[first + base + 1..];
    FLAGS.iter().any(|flag| {
        let spelled = flag
            .chars()
            .filter_map(|c| char::from_u32(u32::from(c) + 0xE0000))
            .chain(['\u{E007F}']);
        tags.len() >= 6 && spelled.eq(tags[..6].iter().copied())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::Numbers;

    #[test]
    fn characters_that_nobody_sees_are_found() {
        for (text, characters) in [
            ("a\u{200B}b\u{200B}", "U+200B"),
            ("a\u{AD}b", "U+00AD"),
            ("\u{FEFF}a", "U+FEFF"),
            ("pay \u{202E}eciov\u{202C}", "U+202C U+202E"),
            ("a\u{2066}b\u{2069}", "U+2066 U+2069"),
            ("ok\u{E0049}\u{E0067}", "U+E0049 U+E0067"),
            ("a\u{FE0F}", "U+FE0F"),
            ("\u{1F600}\u{FE0F}\u{E0101}\u{E0102}", "U+E0101 U+E0102"),
            ("a\u{200D}b", "U+200D"),
            ("a\u{200C}", "U+200C"),
            ("\u{1F3F4}\u{E0067}\u{E0062}\u{E0041}", "U+E0041 U+E0062 U+E0067"),
            ("a\u{1b}[8m", "U+001B"),
            ("a\u{85}\u{7f}", "U+007F U+0085"),
            ("\u{3164}\u{115F}\u{2800}", "U+115F U+3164"),
            ("\u{E000}\u{10FFFD}", "U+10FFFD U+E000"),
        ] {
            let found = in_text(text, "/x").unwrap_or_else(|| panic!("{characters}"));
            assert_eq!(found.characters.join(" "), characters, "{text:?}");
        }
        assert_eq!(in_text("a\u{200B}b\u{200B}", "").unwrap().count, 2);
    }

    #[test]
    fn what_people_write_is_not() {
        for text in [
            "Adds two numbers.\n\t- the first\r\n- the second",
            "Grüße, ça va, Žluťoučký, Ελληνικά, Русский, 日本語, 한국어, עברית",
            "\u{2764}\u{FE0F} 1\u{FE0F}\u{20E3} \u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{1F3F3}\u{FE0F}\u{200D}\u{1F308}",
            "می\u{200C}خواهم",
            "क्\u{200D}ष क्\u{200C}",
            "\u{845B}\u{E0100}城",
            "\u{1F3F4}\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}!",
        ] {
            assert_eq!(in_text(text, ""), None, "{text}");
        }
    }

    #[test]
    fn every_text_and_name_of_a_definition_is_looked_at() {
        let raw = r#"{"name":"a","description":"x\u200b","inputSchema":{"properties":{"p\u2060":{"enum":["ok","\u00ad"]}}}}"#;
        let found = find(&Node::read(serde_json::from_str(raw).unwrap(), Numbers::ByValue));
        let paths: Vec<_> = found.iter().map(|hidden| hidden.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/description",
                "/inputSchema/properties/p\u{2060}",
                "/inputSchema/properties/p\u{2060}/enum/1"
            ]
        );
    }
}
