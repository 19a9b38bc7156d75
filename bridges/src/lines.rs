//! Framing on a pipe: one message a line, read with a bound.
//!
//! A line over the bound is skipped as it comes, so that a child cannot make its reader hold more than that. Its two ends are kept:
//! they may tell which call it was meant to answer.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// The longest message: the largest body of the bus, and room for what the bus does not see of it.
pub(crate) const MAX_LINE_BYTES: usize = bus_schema::envelope::MAX_BODY_BYTES + 64 * 1024;
/// A line without end is no MCP any more.
const MAX_SKIPPED_BYTES: u64 = 256 * 1024 * 1024;
/// How much is kept of each end of a line that is skipped.
const END_BYTES: usize = 256;
const CHUNK_BYTES: usize = 64 * 1024;

/// Takes a stream of bytes apart into lines.
pub(crate) struct Lines<R> {
    from: BufReader<R>,
    max_bytes: usize,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    TooLong(Skipped),
}

/// What is left of a line that was too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) bytes: u64,
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R, max_bytes: usize) -> Self {
        Self {
            from: BufReader::with_capacity(CHUNK_BYTES, from),
            max_bytes,
        }
    }

    /// The next line; `None` when the stream has ended. What stands after the last line end is a line too.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut skipped: Option<Skipped> = None;
        loop {
            let mut chunk = self.from.fill_buf().await?;
            let (available, kept) = (chunk.len(), line.len());
            // The standard library looks for the byte a word at a time.
            io::BufRead::read_until(&mut chunk, b'\n', &mut line)?;
            let taken = available - chunk.len();
            self.from.consume(taken);
            let ended = available == 0 || line.len() > kept && line.ends_with(b"\n");
            if let Some(skipped) = &mut skipped {
                skipped.go_on(&mut line, taken)?;
            } else if line.len() > self.max_bytes {
                skipped = Some(Skipped::begin(&mut line));
            }
            if !ended {
                continue;
            }
            if available == 0 && kept == 0 && skipped.is_none() {
                return Ok(None);
            }
            line.truncate(line.trim_ascii_end().len());
            return Ok(Some(match skipped {
                Some(skipped) => Line::TooLong(Skipped {
                    tail: line,
                    ..skipped
                }),
                None => Line::Whole(line),
            }));
        }
    }
}

impl Skipped {
    /// What is kept of a message that was read and is too long all the same.
    pub(crate) fn of(message: &[u8]) -> Self {
        Self {
            bytes: message.len() as u64,
            head: message[..END_BYTES.min(message.len())].to_vec(),
            tail: message[message.len().saturating_sub(END_BYTES)..].to_vec(),
        }
    }

    /// Begins to skip what has grown too long, and leaves only the end of it in `line`.
    pub(crate) fn begin(line: &mut Vec<u8>) -> Self {
        let skipped = Self {
            bytes: line.len() as u64,
            head: line[..END_BYTES.min(line.len())].to_vec(),
            tail: Vec::new(),
        };
        line.drain(..line.len().saturating_sub(END_BYTES));
        line.shrink_to_fit();
        skipped
    }

    /// Counts what came, and keeps only the end of it in `line`.
    pub(crate) fn go_on(&mut self, line: &mut Vec<u8>, taken: usize) -> io::Result<()> {
        self.bytes += taken as u64;
        line.drain(..line.len().saturating_sub(END_BYTES));
        if self.bytes > MAX_SKIPPED_BYTES {
            return Err(io::Error::other("a line without end"));
        }
        Ok(())
    }

    /// The number of the call that the line answers, when it is an answer that names it at one of its ends, as they all do.
    pub(crate) fn answered_call(&self) -> Option<u64> {
        let head = std::str::from_utf8(utf8_part(&self.head)).ok()?;
        let answer_at = ["\"result\"", "\"error\""]
            .into_iter()
            .filter_map(|key| head.find(key))
            .min()?;
        let before = &head[..answer_at];
        if before.contains("\"method\"") {
            return None;
        }
        if let Some((_, id)) = before.split_once("\"id\"") {
            let id = id.trim_start().strip_prefix(':')?.trim_start();
            return id[..id.find(|c: char| !c.is_ascii_digit())?].parse().ok();
        }
        id_at_end(&self.tail)
    }
}

/// Reads `,"id":7}` at the end of a message, where a number before the last brace can only be a member of the whole.
fn id_at_end(tail: &[u8]) -> Option<u64> {
    let rest = tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    let digits = rest.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, digits) = rest.split_at(rest.len() - digits);
    let key = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    key.strip_suffix(b"\"id\"")?.trim_ascii_end().strip_suffix(b",")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A text that was cut may end within a character.
fn utf8_part(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes,
        Err(error) => &bytes[..error.valid_up_to()],
    }
}

/// What a log may show of a line that somebody else wrote: its beginning, without control characters.
pub(crate) fn excerpt(line: &[u8], max_chars: usize) -> String {
    let cut = &line[..line.len().min(max_chars * 4)];
    let text = String::from_utf8_lossy(cut);
    let mut shown: String = text.trim().chars().take(max_chars).collect();
    if shown.len() < text.trim().len() || cut.len() < line.len() {
        shown.push('…');
    }
    shown.replace(|c: char| c.is_control() && c != '\t', " ")
}

/// Ends a message for a pipe. Line ends within, which JSON allows between its tokens only, become blanks.
pub(crate) fn end_line(mut message: Vec<u8>) -> Vec<u8> {
    if message.contains(&b'\n') || message.contains(&b'\r') {
        for byte in &mut message {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    message.push(b'\n');
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], max_bytes: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, max_bytes);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn lines_come_apart_and_the_last_needs_no_end() {
        let expected = vec![whole("a"), whole(""), whole("bc"), whole("d")];
        assert_eq!(lines(b"a\n\nbc\r\nd", 10).await, expected);
        assert_eq!(lines(b"", 10).await, Vec::new());
        assert_eq!(lines(b"a\n", 10).await, vec![whole("a")]);
    }

    #[tokio::test]
    async fn a_line_over_the_bound_is_skipped_and_the_next_is_read() {
        let long = format!(
            "{{\"result\":\"{}\",\"jsonrpc\":\"2.0\",\"id\":7}}",
            "x".repeat(CHUNK_BYTES * 3)
        );
        let input = format!("a\n{long}\nb\n");
        let mut read = lines(input.as_bytes(), 1000).await;
        let Line::TooLong(skipped) = read.remove(1) else {
            panic!("the long line was read");
        };
        assert_eq!(skipped.bytes as usize, long.len() + 1);
        assert_eq!(skipped.answered_call(), Some(7));
        assert!(skipped.head.len() <= END_BYTES && skipped.tail.len() <= END_BYTES);
        assert_eq!(read, vec![whole("a"), whole("b")]);
    }

    #[test]
    fn an_answer_names_its_call_at_one_of_its_ends() {
        for (head, tail, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"x":"#, "…}}", Some(7)),
            (r#"{"id": 12 ,"jsonrpc":"2.0", "error":{"#, "…}}", Some(12)),
            (r#"{"result":{"id":3"#, r#"x"},"jsonrpc":"2.0","id":8 }"#, Some(8)),
            (r#"{"result":{"#, r#""id":8}}"#, None),
            (r#"{"result":{"#, r#"{"id":8}"#, None),
            (r#"{"jsonrpc":"2.0","id":"x","result":{"#, "}", None),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"a","params":{"result":"#,
                "}}",
                None,
            ),
            (
                r#"{"method":"a","params":{"#,
                r#"},"jsonrpc":"2.0","id":7}"#,
                None,
            ),
            ("garbage", "garbage", None),
        ] {
            let skipped = Skipped {
                bytes: 1,
                head: head.into(),
                tail: tail.into(),
            };
            assert_eq!(skipped.answered_call(), expected, "{head}…{tail}");
        }
    }

    #[test]
    fn logs_show_the_beginning_of_a_line_and_no_control_characters() {
        assert_eq!(excerpt(b"  plain \n", 10), "plain");
        assert_eq!(excerpt(b"\x1b[31mred", 10), " [31mred");
        assert_eq!(excerpt("éééé".as_bytes(), 2), "éé…");
        assert_eq!(excerpt(b"\xff\xfe", 10), "\u{fffd}\u{fffd}");
    }
}
