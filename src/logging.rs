//! The logger: one line a record to standard error, `LEVEL message`, or a JSON object.
//!
//! There is no time in a line of text: the journal, Docker and syslog each add their own. Where standard error is a journal
//! of systemd's, lines begin with their priority (sd-daemon(3)), which the journal takes off.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::call_id::CallId;

/// Longest line in bytes, its end included; what passes it is cut. It lives on the stack.
const MAX_LINE: usize = 1024;

/// What a cut line ends with.
const CUT: &[u8] = b"...";

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// `LEVEL message`.
    #[default]
    Text,
    /// A JSON object with `time`, `level`, `message`, and `function` and `call` where the line is about one.
    Json,
}

/// How lines look now: [`JSON`] and [`JOURNAL`].
static LOOK: AtomicU8 = AtomicU8::new(0);
const JSON: u8 = 1;
const JOURNAL: u8 = 2;

struct Stderr;

/// Sends records up to `level` to standard error; a second call only changes how.
pub fn init(level: LevelFilter, format: Format) {
    let json = if format == Format::Json { JSON } else { 0 };
    LOOK.store(json | if is_journal() { JOURNAL } else { 0 }, Ordering::Relaxed);
    // An error means that a logger is set already, which is then this one or a test's.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(level);
}

/// Takes a level's name: `off`, `error`, `warn`, `info`, `debug` or `trace`.
///
/// # Errors
/// One line that names them.
pub fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| format!("unknown log level {text:?}: use off, error, warn, info, debug or trace"))
}

/// Takes a format's name: `text` or `json`.
///
/// # Errors
/// One line that names them.
pub fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("unknown log format {text:?}: use text or json")),
    }
}

/// Logs a line about the call with the id `call`, and the function it is of where that is known.
pub fn about_call(level: Level, function: Option<&str>, call: &CallId, message: fmt::Arguments<'_>) {
    if level <= log::max_level() {
        write(level, function, Some(call.as_str()), message);
    }
}

/// Whether standard error is the journal's socket that systemd names (systemd.exec(5), `JOURNAL_STREAM`), and not what
/// somebody put in its place.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == named)
}

/// A level as syslog(3) numbers it.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Crates below us (hyper, h2, rustls) are of interest only to who hunts a fault in them. bollard never: it logs what
        // it sends, and that holds the secrets of functions.
        let target = metadata.target();
        let others = log::max_level() == LevelFilter::Trace && !target.starts_with("bollard");
        others || target.starts_with("tinyfaas")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            write(record.level(), None, None, *record.args());
        }
    }

    fn flush(&self) {}
}

fn write(level: Level, function: Option<&str>, call: Option<&str>, message: fmt::Arguments<'_>) {
    #[expect(clippy::disallowed_methods, reason = "only shown to people")]
    let now = SystemTime::now();
    let mut line = Line::new();
    line.record(LOOK.load(Ordering::Relaxed), now, level, function, call, message);
    // One write a line: lines of several threads do not mix. Nobody is left to tell of an error.
    let _ = std::io::stderr().write_all(line.finish());
}

/// A line of text with a bound.
struct Line {
    bytes: [u8; MAX_LINE],
    len: usize,
    cut: bool,
    /// Whether what is written stands in a JSON string.
    quoted: bool,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; MAX_LINE], len: 0, cut: false, quoted: false }
    }

    /// Puts a record in; one that is too long says so in its end.
    fn record(
        &mut self,
        look: u8,
        now: SystemTime,
        level: Level,
        function: Option<&str>,
        call: Option<&str>,
        message: fmt::Arguments<'_>,
    ) {
        if look & JOURNAL != 0 {
            self.put(priority(level).as_bytes());
        }
        let about = [("function", function), ("call", call)];
        let about = about.into_iter().filter_map(|(key, value)| Some((key, value?)));
        if look & JSON == 0 {
            let _ = write!(self, "{level} ");
            for (key, value) in about {
                let _ = write!(self, "{key}={value} ");
            }
            let _ = self.write_fmt(message);
            return;
        }
        self.put(b"{\"time\":\"");
        let _ = write!(self, "{}", humantime::format_rfc3339_millis(now));
        self.put(b"\",\"level\":\"");
        let _ = write!(self, "{}", level.as_str().to_ascii_lowercase());
        for (key, value) in about {
            self.put(b"\",\"");
            self.put(key.as_bytes());
            self.put(b"\":\"");
            self.quoted = true;
            let _ = self.write_str(value);
        }
        self.put(b"\",\"message\":\"");
        self.quoted = true;
        let _ = self.write_fmt(message);
    }

    /// The line with its end.
    fn finish(&mut self) -> &[u8] {
        if self.cut {
            self.put(CUT);
        }
        self.put(if self.quoted { b"\"}\n" } else { b"\n" });
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Appends bytes of ours.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

/// Bytes kept for the end of a line: [`CUT`], and the end of an object.
const END: usize = CUT.len() + 3;

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let mut bytes = [0; 4];
            let control;
            // A stranger's text must not forge a line or move a terminal's cursor.
            let shown = match c {
                '"' if self.quoted => "\\\"",
                '\\' if self.quoted => "\\\\",
                c if c.is_ascii_control() && self.quoted => {
                    control = format!("\\u{:04x}", u32::from(c));
                    &control
                }
                c if c.is_ascii_control() => " ",
                c => c.encode_utf8(&mut bytes),
            };
            if self.len + shown.len() > MAX_LINE - END {
                self.cut = true;
                return Err(fmt::Error);
            }
            self.put(shown.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn looks(look: u8, function: Option<&str>, call: Option<&str>, text: &str) -> String {
        let mut line = Line::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        line.record(look, now, Level::Info, function, call, format_args!("{text}"));
        String::from_utf8(line.finish().to_vec()).unwrap()
    }

    fn line(text: &str) -> String {
        looks(0, None, None, text)
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        assert_eq!(line("hello"), "INFO hello\n");
        assert_eq!(line("a\r\nERROR forged\x1b[2J\t."), "INFO a  ERROR forged [2J .\n");
    }

    #[test]
    fn a_long_record_is_cut_and_says_so() {
        for (text, json) in
            [("x", 'x'.into()), ("\u{fc}", "\u{fc}".to_owned()), ("\"", "\\\"".into()), ("\n", "\\u000a".into())]
        {
            let long = line(&text.repeat(5000));
            assert!(long.len() <= MAX_LINE && long.len() > MAX_LINE - 10, "{}", long.len());
            assert!(long.ends_with("...\n"));
            let long = looks(JSON, None, None, &text.repeat(5000));
            assert!(long.len() <= MAX_LINE && long.len() > MAX_LINE - 10, "{}", long.len());
            assert!(long.ends_with(&format!("{json}...\"}}\n")), "{long}");
            let read: serde_json::Value = serde_json::from_str(&long).unwrap();
            assert!(read["message"].as_str().unwrap().starts_with(text));
        }
    }

    #[test]
    fn a_record_as_json_says_the_same_and_of_which_call() {
        let said = looks(JSON, Some("f"), Some("1-2"), "a \"b\"\\\r\n\u{fc}");
        assert!(said.ends_with("}\n") && said.lines().count() == 1, "{said}");
        let read: serde_json::Value = serde_json::from_str(&said).unwrap();
        let expected = serde_json::json!({"time": "1970-01-01T00:00:01.500Z", "level": "info", "function": "f", "call": "1-2",
            "message": "a \"b\"\\\r\n\u{fc}"});
        assert_eq!(read, expected);
        let alone: serde_json::Value = serde_json::from_str(&looks(JSON, None, None, "x")).unwrap();
        assert_eq!(alone.as_object().unwrap().len(), 3);
    }

    #[test]
    fn a_journal_is_told_the_priority() {
        assert_eq!(looks(JOURNAL, Some("f"), Some("1-2"), "x"), "<6>INFO function=f call=1-2 x\n");
        assert!(looks(JOURNAL | JSON, None, None, "x").starts_with("<6>{\"time\":"));
        assert_eq!([Level::Error, Level::Warn, Level::Debug].map(priority), ["<3>", "<4>", "<7>"]);
    }

    #[test]
    fn levels_and_formats_are_plain_words() {
        assert_eq!(level("info"), Ok(LevelFilter::Info));
        assert_eq!(level("OFF"), Ok(LevelFilter::Off));
        assert!(level("tinyfaas=debug").unwrap_err().contains("use off, error"));
        assert_eq!((format("text"), format("json")), (Ok(Format::Text), Ok(Format::Json)));
        assert!(format("xml").unwrap_err().contains("use text or json"));
    }
}
