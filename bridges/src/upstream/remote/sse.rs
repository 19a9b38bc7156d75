//! Takes a stream of server-sent events apart, with a bound on what one event may hold.
//!
//! Nothing here reads a socket: bytes go in, events come out. An event over the bound is skipped as it comes, and only its two ends
//! are kept. Source: WHATWG HTML, server-sent events, interpreting an event stream.

use std::{collections::VecDeque, io, time::Duration};

use crate::lines::Skipped;

/// A longer event id is not kept; a stream that has only such cannot be resumed.
const MAX_ID_BYTES: usize = 1024;
/// The mark that a text in UTF-8 may begin with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its type; `message` when it names none.
    pub(super) kind: String,
    pub(super) data: Data,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data {
    Whole(Vec<u8>),
    TooLong(Skipped),
}

/// What becomes of the rest of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// It is held until the line ends.
    #[default]
    Held,
    /// It belongs to an event that is skipped.
    Skipped,
    /// It is of no interest.
    Dropped,
}

/// What has come of a stream so far.
pub(super) struct Parser {
    max_bytes: usize,
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// What becomes of the rest of the line.
    rest: Rest,
    /// The last byte was a carriage return, which a line feed may belong to.
    after_return: bool,
    at_start: bool,
    kind: Vec<u8>,
    /// The data of the event that has not ended yet; the end of it once it is skipped.
    data: Vec<u8>,
    has_data: bool,
    skipped: Option<Skipped>,
    id: Option<String>,
    last_id: Option<String>,
    retry: Option<Duration>,
}

impl Parser {
    /// A parser for events of no more than so many bytes.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            line: Vec::new(),
            rest: Rest::Held,
            after_return: false,
            at_start: true,
            kind: Vec::new(),
            data: Vec::new(),
            has_data: false,
            skipped: None,
            id: None,
            last_id: None,
            retry: None,
        }
    }

    /// The id of the last event that had one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the server wants to be left alone before somebody connects again.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// How many bytes are held for an event that has not ended.
    pub(super) fn held_bytes(&self) -> usize {
        self.line.len() + self.data.len()
    }

    /// Reads on.
    ///
    /// # Errors
    /// When an event does not end.
    pub(super) fn feed(&mut self, mut bytes: &[u8], events: &mut VecDeque<Event>) -> io::Result<()> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.hold(bytes);
            };
            self.hold(&bytes[..end])?;
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            events.extend(self.end_line()?);
        }
        Ok(())
    }

    /// Keeps a piece of a line, as far as it may be of use.
    fn hold(&mut self, piece: &[u8]) -> io::Result<()> {
        match (self.rest, &mut self.skipped) {
            (Rest::Dropped, _) => return Ok(()),
            (Rest::Skipped, Some(skipped)) => {
                self.data.extend_from_slice(piece);
                return skipped.go_on(&mut self.data, piece.len());
            }
            _ => self.line.extend_from_slice(piece),
        }
        if self.held_bytes() <= self.max_bytes {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let Some(value) = line.strip_prefix(b"data:") else {
            // No other field is worth so much.
            self.rest = Rest::Dropped;
            return Ok(());
        };
        self.rest = Rest::Skipped;
        self.add_data(value)?;
        self.skipped.get_or_insert_with(|| Skipped::begin(&mut self.data));
        Ok(())
    }

    fn add_data(&mut self, value: &[u8]) -> io::Result<()> {
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        match &mut self.skipped {
            Some(skipped) => skipped.go_on(&mut self.data, value.len()),
            None if self.data.len() > self.max_bytes => {
                self.skipped = Some(Skipped::begin(&mut self.data));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn end_line(&mut self) -> io::Result<Option<Event>> {
        if std::mem::take(&mut self.rest) != Rest::Held {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.at_start) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            return Ok(self.end_event());
        }
        self.read_field(&line)?;
        // Most lines are short, and their room is used again.
        line.clear();
        if line.capacity() <= 64 * 1024 {
            self.line = line;
        }
        Ok(None)
    }

    fn read_field(&mut self, line: &[u8]) -> io::Result<()> {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, rest) = line.split_at(colon);
        let value = rest.strip_prefix(b":").unwrap_or(rest);
        let trimmed = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.add_data(value)?,
            b"event" => trimmed.clone_into(&mut self.kind),
            b"id" if trimmed.len() <= MAX_ID_BYTES && !trimmed.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(trimmed).into_owned());
            }
            b"retry" if !trimmed.is_empty() && trimmed.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(trimmed)
                    .ok()
                    .and_then(|text| text.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) -> Option<Event> {
        if self.id.is_some() {
            self.last_id.clone_from(&self.id);
        }
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        let data = match self.skipped.take() {
            Some(skipped) => Data::TooLong(Skipped {
                tail: data,
                ..skipped
            }),
            None => Data::Whole(data),
        };
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        Some(Event {
            kind: if kind.is_empty() {
                "message".to_owned()
            } else {
                String::from_utf8_lossy(&kind).into_owned()
            },
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]], max_bytes: usize) -> (Parser, Vec<Event>) {
        let mut parser = Parser::new(max_bytes);
        let mut events = VecDeque::new();
        for piece in pieces {
            parser.feed(piece, &mut events).unwrap();
        }
        (parser, events.into())
    }

    fn event(kind: &str, data: &str) -> Event {
        Event {
            kind: kind.to_owned(),
            data: Data::Whole(data.as_bytes().to_vec()),
        }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (text, expected) in [
            ("data: a\n\n", vec![event("message", "a")]),
            ("data:a\r\ndata:  b\r\n\r\n", vec![event("message", "a\n b")]),
            (
                "data: a\r\rdata: b\r\r",
                vec![event("message", "a"), event("message", "b")],
            ),
            (
                ": comment\nevent: endpoint\ndata: /x\n\n",
                vec![event("endpoint", "/x")],
            ),
            ("\u{feff}data: a\n\n", vec![event("message", "a")]),
            ("event: x\n\ndata: a\n\n", vec![event("message", "a")]),
            ("data\n\n", vec![event("message", "")]),
            ("data: a\ndata\ndata: b\n\n", vec![event("message", "a\n\nb")]),
            ("unknown: 1\ndata: a\n\n", vec![event("message", "a")]),
            ("data: not ended\n", vec![]),
            ("\n\n\n", vec![]),
        ] {
            assert_eq!(read(&[text.as_bytes()], 1000).1, expected, "{text:?}");
        }
    }

    #[test]
    fn ids_and_pauses_are_kept() {
        let (parser, events) = read(
            &[b"id: 1\nretry: 250\ndata:\n\nid: 2\n\nretry: soon\nid: x\0\n\ndata: a\n\nid: 3\n"],
            1000,
        );
        assert_eq!(events, [event("message", ""), event("message", "a")]);
        assert_eq!(
            parser.last_id(),
            Some("2"),
            "an event that has not ended was not seen"
        );
        assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
        let (parser, _) = read(
            &[format!("id: {}\n\n", "x".repeat(MAX_ID_BYTES + 1)).as_bytes()],
            10_000,
        );
        assert_eq!(parser.last_id(), None);
    }

    #[test]
    fn an_event_over_the_bound_is_skipped_and_the_next_is_read() {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":7,"result":"{}"}}"#, "x".repeat(5000));
        let text = format!("data: {answer}\n\ndata: b\n\n");
        let split = format!(
            "data: {}\ndata: {}\n\ndata: b\n\n",
            &answer[..2500],
            &answer[2500..]
        );
        for text in [text, split] {
            for size in [1, 7, 100, 10_000] {
                let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let (parser, mut events) = read(&pieces, 1000);
                assert_eq!(events.pop(), Some(event("message", "b")));
                let Some(Data::TooLong(skipped)) = events.pop().map(|event| event.data) else {
                    panic!("the long event was read");
                };
                assert_eq!(skipped.answered_call(), Some(7));
                assert!(skipped.bytes as usize >= answer.len() - 2 && skipped.head.len() <= 256);
                assert!(events.is_empty() && parser.held_bytes() == 0);
            }
        }
    }

    #[test]
    fn a_line_of_no_interest_is_not_held() {
        let text = format!("{}: 1\n: {}\ndata: a\n\n", "x".repeat(5000), "y".repeat(5000));
        let (parser, events) = read(&[text.as_bytes()], 1000);
        assert_eq!(events, [event("message", "a")]);
        assert_eq!(parser.held_bytes(), 0);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_stream_is_cut(text in "((data|id|event|retry|)(: ?)?[a-z0-9é]{0,6}(\n|\r|\r\n)){0,20}", size in 1_usize..9) {
            let (whole, expected) = read(&[text.as_bytes()], 1000);
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let (cut, events) = read(&pieces, 1000);
            prop_assert_eq!(events, expected);
            prop_assert_eq!((cut.last_id(), cut.retry()), (whole.last_id(), whole.retry()));
        }

        #[test]
        fn no_bytes_panic_or_are_held_beyond_the_bound(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..50)) {
            let mut parser = Parser::new(64);
            let mut events = VecDeque::new();
            for piece in &pieces {
                parser.feed(piece, &mut events).unwrap();
                prop_assert!(parser.held_bytes() <= 64 + 256 + 50);
            }
        }
    }
}
