//! The part of TOML 1.0 that settings need: a `key = value` a line, with comments. A value is a string in single or double
//! quotes, a whole number, `true` or `false`, or a list of strings. Tables, dates and what else TOML has is refused by
//! name, so every file that is taken means here what it means to any reader of TOML.

use std::fmt;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The line that it begins on, from 1.
    pub line: usize,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number, as digits after an optional `-`.
    Number(String),
    /// `true` or `false`.
    Truth(bool),
    /// A list of strings.
    List(Vec<String>),
}

/// What is wrong, and on which line, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The line.
    pub line: usize,
    /// What is wrong there and what would be right.
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for Error {}

/// Reads a file's settings in their order.
///
/// # Errors
/// [`Error`]: it is not TOML, has what is not taken here, or a key twice.
pub fn parse(text: &str) -> Result<Vec<Entry>, Error> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        reader.skip_lines()?;
        if reader.rest.is_empty() {
            return Ok(entries);
        }
        let line = reader.line;
        let key = reader.key()?;
        if let Some(first) = entries.iter().find(|e| e.key == key) {
            return Err(reader.error(format!("{key} is there twice, first on line {}", first.line)));
        }
        reader.skip_blanks();
        if !reader.take("=") {
            return Err(reader.error(format!("after {key} comes = and a value")));
        }
        reader.skip_blanks();
        let value = reader.value()?;
        reader.end_of_line()?;
        entries.push(Entry { key, value, line });
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, text: impl Into<String>) -> Error {
        Error { line: self.line, text: text.into() }
    }

    fn take(&mut self, what: &str) -> bool {
        self.rest.strip_prefix(what).inspect(|rest| self.rest = rest).is_some()
    }

    /// The characters at the front that are `wanted`.
    fn run(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn skip_blanks(&mut self) {
        self.run(|c| c == ' ' || c == '\t');
    }

    fn newline(&mut self) -> bool {
        let found = self.take("\n") || self.take("\r\n");
        self.line += usize::from(found);
        found
    }

    /// A comment, if there is one.
    fn comment(&mut self) -> Result<(), Error> {
        if self.take("#") {
            self.run(|c| c == '\t' || !c.is_control());
            if !self.rest.is_empty() && !self.rest.starts_with(['\n', '\r']) {
                return Err(self.error("a control character in a comment"));
            }
        }
        Ok(())
    }

    /// Blanks, comments and ends of lines.
    fn skip_lines(&mut self) -> Result<(), Error> {
        loop {
            self.skip_blanks();
            self.comment()?;
            if !self.newline() {
                return Ok(());
            }
        }
    }

    fn end_of_line(&mut self) -> Result<(), Error> {
        self.skip_blanks();
        self.comment()?;
        if self.rest.is_empty() || self.newline() {
            return Ok(());
        }
        Err(self.error("after a value comes the end of the line, or a # comment"))
    }

    fn key(&mut self) -> Result<String, Error> {
        if self.rest.starts_with('[') {
            return Err(self.error("there are no [tables] here: every setting is at the top"));
        }
        let key = if self.rest.starts_with(['"', '\'']) {
            self.text()?
        } else {
            self.run(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_').to_owned()
        };
        if key.is_empty() {
            return Err(self.error("a line is NAME = VALUE, or a # comment"));
        }
        if self.rest.trim_start_matches([' ', '\t']).starts_with('.') {
            return Err(self.error("there are no dotted names here"));
        }
        Ok(key)
    }

    fn value(&mut self) -> Result<Value, Error> {
        match self.rest.chars().next() {
            Some('"' | '\'') => self.text().map(Value::Text),
            Some('[') => self.list().map(Value::List),
            Some('{') => Err(self.error("there are no {tables} here: use a string, a number, true, false or a list")),
            _ => self.word(),
        }
    }

    /// A value without quotes.
    fn word(&mut self) -> Result<Value, Error> {
        let word = self.run(|c| !c.is_control() && !" ,#]".contains(c));
        match word {
            "true" => return Ok(Value::Truth(true)),
            "false" => return Ok(Value::Truth(false)),
            "" => return Err(self.error("the value is missing: use a string, a number, true, false or a list")),
            _ => {}
        }
        let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
        let groups = || digits.split('_');
        let plain = groups().all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
        if !plain || digits.len() > 1 && digits.starts_with('0') {
            return Err(self.error(format!("{word:?} is no whole number: put text in quotes, such as \"{word}\"")));
        }
        let sign = if word.starts_with('-') { "-" } else { "" };
        Ok(Value::Number(groups().fold(sign.to_owned(), |number, group| number + group)))
    }

    /// A list of strings, on one line or more.
    fn list(&mut self) -> Result<Vec<String>, Error> {
        let mut list = Vec::new();
        self.take("[");
        loop {
            self.skip_lines()?;
            if self.take("]") {
                return Ok(list);
            }
            if !self.rest.starts_with(['"', '\'']) {
                return Err(self.error("a list holds strings in quotes, with commas between them, and ends with ]"));
            }
            list.push(self.text()?);
            self.skip_lines()?;
            if !self.take(",") && !self.rest.starts_with(']') {
                return Err(self.error("a list holds strings in quotes, with commas between them, and ends with ]"));
            }
        }
    }

    /// A string of one line.
    fn text(&mut self) -> Result<String, Error> {
        if self.rest.starts_with("\"\"\"") || self.rest.starts_with("'''") {
            return Err(self.error("there are no strings of several lines here"));
        }
        let literal = self.rest.starts_with('\'');
        let quote = if literal { '\'' } else { '"' };
        self.take(if literal { "'" } else { "\"" });
        let mut text = String::new();
        loop {
            text.push_str(self.run(|c| c != quote && (literal || c != '\\') && (c == '\t' || !c.is_control())));
            match self.rest.chars().next() {
                Some(c) if c == quote => {
                    self.rest = self.rest.get(1..).unwrap_or_default();
                    return Ok(text);
                }
                Some('\\') if !literal => text.push(self.escape()?),
                _ => return Err(self.error(format!("the string does not end with {quote} on its line"))),
            }
        }
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Result<char, Error> {
        let wrong = |reader: &Self| {
            reader
                .error("a wrong escape: there are \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX; 'text' takes none")
        };
        let kind = self.rest.chars().nth(1).filter(char::is_ascii).ok_or_else(|| wrong(self))?;
        self.rest = self.rest.get(2..).unwrap_or_default();
        let digits = match kind {
            'b' => return Ok('\u{8}'),
            't' => return Ok('\t'),
            'n' => return Ok('\n'),
            'f' => return Ok('\u{c}'),
            'r' => return Ok('\r'),
            '"' | '\\' => return Ok(kind),
            'u' => 4,
            'U' => 8,
            _ => return Err(wrong(self)),
        };
        let code = self.rest.get(..digits).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let c = code.and_then(|d| u32::from_str_radix(d, 16).ok()).and_then(char::from_u32);
        self.rest = self.rest.get(digits..).unwrap_or_default();
        c.ok_or_else(|| wrong(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, Value)> {
        parse(text).unwrap().into_iter().map(|e| (e.key, e.value)).collect()
    }

    #[test]
    fn settings_are_read_with_comments_and_lists_over_lines() {
        let text = "\u{feff}# a board\nhttp = \":80\"  # the door\r\n\n\t'queue'= 1_000\nread-only=true\nlog = 'C:\\x'\n\
                    runtime-image = [\n  \"nodejs=a\", # one\n  'binary=b',\n]\nempty = []\nx = -5";
        let strings = |list: &[&str]| Value::List(list.iter().map(|s| (*s).to_owned()).collect());
        let expected = [
            ("http", Value::Text(":80".into())),
            ("queue", Value::Number("1000".into())),
            ("read-only", Value::Truth(true)),
            ("log", Value::Text("C:\\x".into())),
            ("runtime-image", strings(&["nodejs=a", "binary=b"])),
            ("empty", strings(&[])),
            ("x", Value::Number("-5".into())),
        ];
        assert_eq!(values(text), expected.map(|(key, value)| (key.to_owned(), value)));
        let lines: Vec<usize> = parse(text).unwrap().iter().map(|e| e.line).collect();
        assert_eq!(lines, [2, 4, 5, 6, 7, 11, 12]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn escapes_are_those_of_toml() {
        let text = r#"a = "\b\t\n\f\r\"\\\u00e4\U0001F600#""#;
        assert_eq!(values(text)[0].1, Value::Text("\u{8}\t\n\u{c}\r\"\\ä😀#".into()));
        for wrong in [r#"a = "\x41""#, r#"a = "\u12"#, r#"a = "\ud800""#, r#"a = "\ü""#, "a = \"\\", r#"a = "\u+123""#]
        {
            assert!(parse(wrong).unwrap_err().text.contains("a wrong escape"), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, says) in [
            ("[server]\n", 1, "no [tables]"),
            ("\na.b = 1", 2, "no dotted names"),
            ("a = { b = 1 }", 1, "no {tables}"),
            ("a = \"\"\"x\"\"\"", 1, "several lines"),
            ("a = 30s", 1, "\"30s\" is no whole number: put text in quotes"),
            ("a = 1.5", 1, "no whole number"),
            ("a = 007", 1, "no whole number"),
            ("a = 1__0", 1, "no whole number"),
            ("a = ", 1, "the value is missing"),
            ("a", 1, "comes = and a value"),
            ("= 1", 1, "NAME = VALUE"),
            ("a = 1\n\na = 2", 3, "first on line 1"),
            ("a = \"x\nb = 1", 1, "does not end"),
            ("a = 'x", 1, "does not end"),
            ("a = 1 b = 2", 1, "the end of the line"),
            ("a = [\n1]", 2, "holds strings"),
            ("a = ['x' 'y']", 1, "commas"),
            ("a = ['x',\n", 2, "ends with ]"),
            ("# \u{7}", 1, "control character"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.text.contains(says), "{text:?}: {error}");
        }
    }
}
