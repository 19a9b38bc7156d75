//! Subjects: no text makes the parser panic, and what parses is spelled in exactly one way.

#![no_main]

use bus_schema::{Token, subject::Subject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(subject) = Subject::parse(text) {
        assert_eq!(subject.to_string(), text);
    }
    let token = Token::encode(text);
    assert_eq!(Token::parse(token.as_str()), Ok(token));
});
