//! Numbers of people: cards, bank accounts, telephones and social security; and their e-mail addresses.
//!
//! At each place where one may begin, at most a fixed number of characters is read.

use std::ops::Range;

use memchr::memchr_iter;

use super::What;

/// The fewest digits of a card.
pub(super) const SHORTEST_CARD: usize = 13;
const LONGEST_CARD: usize = 19;
/// The longest that a card, an account or a telephone may be spelled.
const LONGEST: usize = 48;
const LONGEST_IBAN: usize = 34;
const LOCAL_PART: usize = 64;
const DOMAIN: usize = 253;

/// Countries with how long their accounts are (ISO 13616).
const COUNTRIES: [(&[u8; 2], usize); 78] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NL", 18),
    (b"NO", 15),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"XK", 20),
];

/// Finds numbers of all kinds.
pub(super) fn find(text: &str, steps: &mut u64, take: &mut impl FnMut(What, Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        *steps += 1;
        let begins = at == 0 || !is_word(bytes[at - 1]);
        let end = match bytes[at] {
            b'0'..=b'9' if begins => in_digits(bytes, at, steps),
            b'A'..=b'Z' if begins => iban(bytes, at, steps).map(|end| (What::Iban, end)),
            b'+' | b'(' if begins => phone(bytes, at, steps).map(|end| (What::Phone, end)),
            _ => None,
        };
        match end {
            Some((what, end)) => {
                take(what, at..end);
                at = end;
            }
            None => at += 1,
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Whether what ends here is not a part of something longer.
fn ends(bytes: &[u8], end: usize) -> bool {
    bytes.get(end).is_none_or(|byte| !is_word(*byte))
}

fn in_digits(bytes: &[u8], at: usize, steps: &mut u64) -> Option<(What, usize)> {
    if let Some(end) = card(bytes, at, steps) {
        return Some((What::Card, end));
    }
    // The digits behind `-` or `.` belong to what stands before, such as a date.
    let is_part = at
        .checked_sub(1)
        .is_some_and(|before| matches!(bytes[before], b'-' | b'.' | b'/'));
    if is_part {
        return None;
    }
    if let Some(end) = ssn(bytes, at) {
        return Some((What::Ssn, end));
    }
    national(bytes, at).map(|end| (What::Phone, end))
}

/// A card's number: its digits, alone or in groups, of an issuer that there is, with a check digit (ISO 7812, Luhn).
fn card(bytes: &[u8], start: usize, steps: &mut u64) -> Option<usize> {
    let mut digits = [0u8; LONGEST_CARD];
    let mut count = 0;
    let mut found = None;
    let mut at = start;
    loop {
        *steps += 1;
        match bytes.get(at) {
            Some(digit @ b'0'..=b'9') => {
                if count == LONGEST_CARD {
                    break;
                }
                digits[count] = digit - b'0';
                count += 1;
                at += 1;
                // A group has ended, or all.
                let is_whole = bytes.get(at).is_none_or(|next| !next.is_ascii_digit());
                if is_whole && ends(bytes, at) && is_card(&digits[..count]) {
                    found = Some(at);
                }
            }
            Some(b' ' | b'-') if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => at += 1,
            _ => break,
        }
    }
    found
}

fn is_card(digits: &[u8]) -> bool {
    let begins = |count: usize| {
        digits[..count]
            .iter()
            .fold(0u32, |number, digit| number * 10 + u32::from(*digit))
    };
    let length = digits.len();
    if length < SHORTEST_CARD {
        return false;
    }
    let is_issued = match (begins(1), begins(2), begins(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 51..=55, _) | (_, _, 2_221..=2_720) => length == 16,
        (_, 34 | 37, _) => length == 15,
        (_, 36 | 38 | 39, _) | (_, _, 3_000..=3_059) => length == 14,
        (_, _, 3_528..=3_589) => (16..=19).contains(&length),
        (_, 60 | 62 | 64 | 65 | 81, _) => (16..=19).contains(&length),
        (_, 50 | 56..=58 | 61 | 63 | 67, _) => true,
        _ => false,
    };
    is_issued && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// An account's number, alone or in groups of four, as long as its country has them, with check digits (ISO 7064, mod 97-10).
fn iban(bytes: &[u8], start: usize, steps: &mut u64) -> Option<usize> {
    let country: &[u8; 2] = bytes.get(start..start + 2)?.try_into().ok()?;
    let (_, length) = COUNTRIES.iter().find(|(known, _)| *known == country)?;
    let mut letters = [0u8; LONGEST_IBAN];
    let mut count = 0;
    let mut at = start;
    while count < *length {
        *steps += 1;
        match *bytes.get(at)? {
            letter @ (b'A'..=b'Z' | b'0'..=b'9') => {
                letters[count] = letter;
                count += 1;
            }
            b' ' if count % 4 == 0 && bytes[at - 1] != b' ' => {}
            _ => return None,
        }
        at += 1;
    }
    let letters = &letters[..count];
    let is_numbered = letters[2].is_ascii_digit() && letters[3].is_ascii_digit();
    (is_numbered && ends(bytes, at) && mod_97(letters) == 1).then_some(at)
}

fn mod_97(letters: &[u8]) -> u32 {
    letters[4..]
        .iter()
        .chain(&letters[..4])
        .fold(0, |rest, letter| match letter {
            b'0'..=b'9' => (rest * 10 + u32::from(letter - b'0')) % 97,
            _ => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
        })
}

/// Three, two and four digits, of those that are given out.
fn ssn(bytes: &[u8], at: usize) -> Option<usize> {
    let text = bytes.get(at..at + 11)?;
    let fits = text.iter().enumerate().all(|(at, byte)| match at {
        3 | 6 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let is_given = &text[..3] != b"000"
        && &text[..3] != b"666"
        && text[0] != b'9'
        && &text[4..6] != b"00"
        && &text[7..] != b"0000";
    (fits && is_given && ends(bytes, at + 11) && bytes.get(at + 11) != Some(&b'-')).then_some(at + 11)
}

/// Ten digits as North America writes them: `212-555-2368` or `212.555.2368`.
fn national(bytes: &[u8], at: usize) -> Option<usize> {
    let text = bytes.get(at..at + 12)?;
    let mark = text[3];
    let fits = matches!(mark, b'-' | b'.')
        && text.iter().enumerate().all(|(at, byte)| match at {
            3 | 7 => *byte == mark,
            0 | 4 => matches!(byte, b'2'..=b'9'),
            _ => byte.is_ascii_digit(),
        });
    let goes_on = matches!(bytes.get(at + 12), Some(b'-'));
    (fits && !goes_on && ends(bytes, at + 12)).then_some(at + 12)
}

/// With a country's code behind `+`, or with the area in brackets: as many groups as make a number.
fn phone(bytes: &[u8], start: usize, steps: &mut u64) -> Option<usize> {
    let window = &bytes[start..bytes.len().min(start + LONGEST)];
    let is_digit = |at: usize| window.get(at).is_some_and(u8::is_ascii_digit);
    let is_fit = |digits: usize| match window[0] {
        b'+' => (8..=15).contains(&digits) && window.get(1).is_some_and(|first| matches!(first, b'1'..=b'9')),
        _ => digits == 10 && (1..4).all(is_digit) && window.get(4) == Some(&b')'),
    };
    let (mut digits, mut end, mut open) = (0, None, false);
    for (at, byte) in window.iter().enumerate() {
        *steps += 1;
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                if !is_digit(at + 1) && is_fit(digits) && ends(bytes, start + at + 1) {
                    end = Some(start + at + 1);
                }
            }
            b'+' if at == 0 => {}
            b'(' if !open && digits < 4 => open = true,
            b')' if open && is_digit(at - 1) => open = false,
            // One mark between groups.
            b' ' | b'-' | b'.' if at > 0 && !matches!(window[at - 1], b' ' | b'-' | b'.' | b'+' | b'(') => {}
            _ => break,
        }
    }
    end
}

/// Finds e-mail addresses: what stands around each `@`.
pub(super) fn emails(text: &str, steps: &mut u64, take: &mut impl FnMut(What, Range<usize>)) {
    let bytes = text.as_bytes();
    *steps += bytes.len() as u64;
    let is_local =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-');
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    for at in memchr_iter(b'@', bytes) {
        let local = bytes[..at]
            .iter()
            .rev()
            .take(LOCAL_PART)
            .take_while(|byte| is_local(byte))
            .count();
        let rest = &bytes[at + 1..];
        let domain = rest
            .iter()
            .take(DOMAIN)
            .take_while(|byte| is_domain(byte))
            .count();
        *steps += (local + domain) as u64;
        let domain = text[at + 1..at + 1 + domain].trim_end_matches(['.', '-']);
        let local = text[at - local..at].trim_start_matches('.');
        let top = domain
            .rsplit_once('.')
            .filter(|(rest, _)| !rest.is_empty())
            .map(|(_, top)| top);
        let is_named =
            top.is_some_and(|top| top.len() > 1 && top.bytes().all(|byte| byte.is_ascii_alphabetic()));
        if is_named && !local.is_empty() {
            take(What::Email, at - local.len()..at + 1 + domain.len());
        }
    }
}
