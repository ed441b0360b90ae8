//! Where log lines go, made fit for it: without the secrets that this process knows, and one line for each event.

use std::fmt::Write as _;
use std::io::{self, Write};

use conductor_upstream::secret::redact_known;

/// Writes each line of a subscriber to `inner`.
#[derive(Debug)]
pub(super) struct Sink<W> {
    inner: W,
    /// The lines are coloured, by escape sequences of the subscriber's own.
    colour: bool,
}

impl<W> Sink<W> {
    pub(super) fn new(inner: W, colour: bool) -> Self {
        Self { inner, colour }
    }
}

/// A subscriber writes a whole line with each call.
impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.inner.write_all(one_line(&redact_known(&text), self.colour).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The text with its control characters spelled out, but for the end of the line and, if `colour`, escapes. Texts come from
/// clients, servers and code, and must not pass for lines of their own or reach the terminal of who reads them.
fn one_line(text: &str, colour: bool) -> String {
    let (body, end) = text.strip_suffix('\n').map_or((text, ""), |body| (body, "\n"));
    let mut out = String::with_capacity(text.len());
    for c in body.chars() {
        match c {
            '\u{1b}' if colour => out.push(c),
            '\n' => out.push_str("\\n"),
            c if c.is_control() || is_invisible(c) => {
                // As JSON has it, since the line may be JSON.
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
            }
            c => out.push(c),
        }
    }
    out + end
}

/// Separators of lines, and marks that turn the direction of what follows: a line would not read as it stands.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use conductor_upstream::secret::{Redactor, Secret};

    use super::*;

    fn written(text: &str, colour: bool) -> String {
        let mut sink = Sink::new(Vec::new(), colour);
        assert_eq!(sink.write(text.as_bytes()).expect("a Vec takes everything"), text.len());
        String::from_utf8(sink.inner).expect("is text")
    }

    #[test]
    fn an_event_is_one_line_whatever_its_text() {
        let text = "WARN a\r\n\u{1b}[31mERROR forged\u{7}\0\u{9b}\u{202e}x\u{2028}y\u{7f} é\tz\n";
        let line =
            "WARN a\\u000d\\n\\u001b[31mERROR forged\\u0007\\u0000\\u009b\\u202ex\\u2028y\\u007f é\\u0009z\n";
        assert_eq!(written(text, false), line);
        assert_eq!(written("\u{1b}[2mdim\u{1b}[0m \u{7}\n", true), "\u{1b}[2mdim\u{1b}[0m \\u0007\n");
    }

    #[test]
    fn what_is_secret_anywhere_in_the_process_is_not_written() {
        let redactor = Redactor::new([&Secret::new("s3cret-of-the-sink")]);
        assert_eq!(written("said s3cret-of-the-sink\n", false), "said [redacted]\n");
        drop(redactor);
        // Another test that writes just then may hold it for a moment more.
        let deadline = Instant::now() + Duration::from_secs(10);
        while written("said s3cret-of-the-sink\n", false) != "said s3cret-of-the-sink\n" {
            assert!(Instant::now() < deadline, "it is still redacted");
        }
    }
}
