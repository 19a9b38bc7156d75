//! The texts in a JSON text, with the places where they stand: strings as their readers see them, and numbers as they are spelled.
//!
//! One scan from front to back, without a look at what the texts are members of. The JSON must be valid, which whoever cut it out of a
//! message has seen to.

use std::{borrow::Cow, ops::Range};

use memchr::memchr2;

/// What a text in JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The name of a member.
    Name,
    /// A string.
    Text,
    /// A number.
    Number,
}

/// One text.
pub(super) struct Text<'a> {
    pub(super) kind: Kind,
    /// Where it stands, with its quotes.
    pub(super) place: Range<usize>,
    raw: &'a str,
}

/// Calls `look` with each text, in the order in which they stand.
pub(super) fn each<'a>(json: &'a str, mut look: impl FnMut(&Text<'a>)) {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'"' => end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => end_of_number(bytes, at),
            _ => {
                at += 1;
                continue;
            }
        };
        let kind = match bytes[at] {
            b'"' if is_name(bytes, end) => Kind::Name,
            b'"' => Kind::Text,
            _ => Kind::Number,
        };
        look(&Text {
            kind,
            place: at..end,
            raw: &json[at..end],
        });
        at = end;
    }
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    start + bytes[start..].iter().take_while(|byte| is_part(byte)).count()
}

fn is_name(bytes: &[u8], end: usize) -> bool {
    let next = bytes[end..]
        .iter()
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    next == Some(&b':')
}

/// A text as its reader sees it, with the way back to how it is spelled.
pub(super) struct Decoded<'a> {
    pub(super) text: Cow<'a, str>,
    /// Where pieces of the text begin, and where their spelling does: one for each escape, and one for each run between. Empty when there
    /// is no escape.
    pieces: Vec<(usize, usize)>,
    start: usize,
    /// Where the spelling ends, without a quote.
    end: usize,
}

impl<'a> Text<'a> {
    pub(super) fn decode(&self) -> Decoded<'a> {
        let quote = usize::from(self.kind != Kind::Number);
        let raw = self
            .raw
            .get(quote..self.raw.len().saturating_sub(quote))
            .unwrap_or_default();
        let start = self.place.start + quote;
        let (text, pieces) = if raw.contains('\\') {
            let (text, pieces) = unescape(raw);
            (Cow::Owned(text), pieces)
        } else {
            (Cow::Borrowed(raw), Vec::new())
        };
        Decoded {
            text,
            pieces,
            start,
            end: start + raw.len(),
        }
    }
}

impl Decoded<'_> {
    /// Where a piece of the text, between characters, is spelled.
    pub(super) fn place(&self, piece: &Range<usize>) -> Range<usize> {
        self.spelled(piece.start)..self.spelled(piece.end)
    }

    fn spelled(&self, at: usize) -> usize {
        if at == self.text.len() {
            return self.end;
        }
        let before = self.pieces.partition_point(|(text, _)| *text <= at);
        match before.checked_sub(1).map(|before| self.pieces[before]) {
            Some((text, spelled)) => self.start + spelled + (at - text),
            None => self.start + at,
        }
    }
}

/// Half a character becomes U+FFFD.
fn unescape(raw: &str) -> (String, Vec<(usize, usize)>) {
    let mut text = String::with_capacity(raw.len());
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let run = raw[at..].find('\\').unwrap_or(raw.len() - at);
        if run > 0 {
            pieces.push((text.len(), at));
            text.push_str(&raw[at..at + run]);
            at += run;
            continue;
        }
        let (c, length) = escape(&raw[at..]);
        pieces.push((text.len(), at));
        text.push(c);
        at += length;
    }
    (text, pieces)
}

/// The character that an escape stands for, and how long it is spelled.
fn escape(spelled: &str) -> (char, usize) {
    let c = match spelled.as_bytes().get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{C}',
        Some(b'u') => return unicode(spelled),
        Some(b'"' | b'\\' | b'/') => char::from(spelled.as_bytes()[1]),
        // No JSON; what follows is a text of its own.
        _ => return ('\\', 1),
    };
    (c, 2)
}

fn unicode(spelled: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = spelled.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else { return ('\\', 1) };
    if let Some(c) = char::from_u32(first) {
        return (c, 6);
    }
    let pair =
        unit(6).filter(|second| (0xD800..0xDC00).contains(&first) && (0xDC00..0xE000).contains(second));
    match pair.and_then(|second| char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))) {
        Some(c) => (c, 12),
        None => (char::REPLACEMENT_CHARACTER, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(json: &str) -> Vec<(Kind, String)> {
        let mut all = Vec::new();
        each(json, |text| {
            all.push((text.kind, text.decode().text.into_owned()))
        });
        all
    }

    #[test]
    fn strings_names_and_numbers_are_told_apart() {
        let json = r#"{"a b" : "x\"y", "n":[-1.5e3,true,null,"\u0041\ud83d\ude00\ud800z"],"":""}"#;
        let expected = [
            (Kind::Name, "a b"),
            (Kind::Text, "x\"y"),
            (Kind::Name, "n"),
            (Kind::Number, "-1.5e3"),
            (Kind::Text, "A😀\u{FFFD}z"),
            (Kind::Name, ""),
            (Kind::Text, ""),
        ]
        .map(|(kind, text)| (kind, text.to_owned()));
        assert_eq!(all(json), expected);
    }

    proptest! {
        #[test]
        fn every_piece_of_a_text_is_found_again_where_it_is_spelled(
            before in ".{0,12}", piece in ".{0,12}", after in ".{0,12}", escaped in any::<bool>()
        ) {
            let text = format!("{before}{piece}{after}");
            let spelled = match escaped {
                true => text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
                false => serde_json::Value::from(text.as_str()).to_string().trim_matches('"').to_owned(),
            };
            // A trimmed quote of the text itself would leave half an escape.
            prop_assume!(!text.starts_with('"') && !text.ends_with('"'));
            let json = format!(r#"[7,"{spelled}"]"#);
            let mut seen = None;
            each(&json, |found| if found.kind == Kind::Text {
                let decoded = found.decode();
                let place = decoded.place(&(before.len()..before.len() + piece.len()));
                seen = Some((decoded.text.clone().into_owned(), json[place].to_owned()));
            });
            let (decoded, spelled) = seen.expect("a text");
            prop_assert_eq!(decoded, text);
            let piece_again: String = serde_json::from_str(&format!("\"{spelled}\"")).expect("a string");
            prop_assert_eq!(piece_again, piece);
        }

        #[test]
        fn no_text_panics(json in ".{0,80}") {
            each(&json, |text| { text.decode(); });
        }
    }
}
