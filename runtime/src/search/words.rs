//! A text as the words that are searched for.

/// How many words of one text count.
const MOST_WORDS: usize = 4_000;

/// The words of a text, in lower case and without the ending of a plural. Names come apart at signs, and where small letters or digits
/// are followed by a capital one; such a name is also one word as a whole, as some write it so.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-') {
        if words.len() >= MOST_WORDS {
            break;
        }
        let parts = parts(run);
        if parts.len() > 1 && !run.is_empty() {
            words.push(stem(parts.concat()));
        }
        words.extend(parts.into_iter().map(stem));
    }
    words
}

/// The parts of `getUserById`, `get_user_by_id`, `HTTPServer` and the like, in lower case.
fn parts(run: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let letters: Vec<char> = run.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        if !letter.is_alphanumeric() {
            close(&mut part, &mut parts);
            continue;
        }
        let before = at.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(at + 1);
        let begins = letter.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_numeric()
                    || (before.is_uppercase() && after.is_some_and(|after| after.is_lowercase()))
            });
        // Where words are written without spaces, each sign counts.
        if begins || is_ideograph(*letter) || before.is_some_and(is_ideograph) {
            close(&mut part, &mut parts);
        }
        part.extend(letter.to_lowercase());
    }
    close(&mut part, &mut parts);
    parts
}

fn close(part: &mut String, parts: &mut Vec<String>) {
    if !part.is_empty() {
        parts.push(std::mem::take(part));
    }
}

fn is_ideograph(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Harman's rules for the plurals of English; other languages keep their words, but for a last `s`.
fn stem(word: String) -> String {
    let ends = |ending: &str| word.ends_with(ending);
    if word.len() < 4 || !ends("s") || ends("us") || ends("ss") {
        return word;
    }
    if ends("ies") && !ends("eies") && !ends("aies") {
        return format!("{}y", &word[..word.len() - 3]);
    }
    word[..word.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_as_they_are_read() {
        for (text, expected) in [
            ("get_user-by.id", "getuserby get user by id"),
            ("getUserById", "getuserbyid get user by id"),
            ("HTTPServer2Go", "httpserver2go http server2 go"),
            ("Lists all categories, statuses", "list all category statuse"),
            ("class bus", "class bus"),
            ("größeÄndern", "größeändern größe ändern"),
            ("搜索x", "搜索x 搜 索 x"),
            ("  -_- ", ""),
        ] {
            assert_eq!(words(text).join(" "), expected, "{text}");
        }
    }
}
