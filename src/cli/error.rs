//! Why a command ended without doing what was asked, and the exit code that says so.

use std::fmt;

/// An error; its text is one line, or a line and a log's tail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// What kind it is: decides the exit code.
    pub(super) kind: ErrorKind,
    /// What was wrong and what would be right.
    pub(super) text: String,
}

/// What kind of error it is: its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorKind {
    /// The server or the function answered an error, or the server could not start.
    Failed = 1,
    /// The command line or a local file is wrong.
    Usage = 2,
    /// No connection, or it broke.
    Unreachable = 3,
    /// No such function, or the function itself answered so.
    NotFound = 4,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(super) fn failed(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, text)
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, text)
    }

    pub(super) fn unreachable(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unreachable, text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
