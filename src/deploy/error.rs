//! Why a deployment or a deletion failed.

use crate::backend::{BackendError, BackendErrorKind};
use crate::wire::zip;

/// Why a deployment or a deletion failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployError {
    /// The HTTP status that fits.
    pub status: u16,
    /// What was wrong and what would be right; the tail of a log may follow on further lines.
    pub text: String,
}

impl DeployError {
    /// An error with its line of text.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// It was done, but the disk does not say that it lasts.
    pub(super) fn unsure(what: &str, e: &std::io::Error) -> Self {
        log::error!("{what} after a power cut: cannot sync the state directory: {e}");
        Self::new(500, format!("{what} after a power cut: cannot sync the state directory: {e}"))
    }

    pub(super) fn disk(what: &str, e: &std::io::Error) -> Self {
        Self::new(500, format!("cannot {what} the state directory: {e}"))
    }
}

impl std::fmt::Display for DeployError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<BackendError> for DeployError {
    fn from(e: BackendError) -> Self {
        let status = match e.kind {
            BackendErrorKind::Function => 422,
            BackendErrorKind::Engine => 500,
            BackendErrorKind::Unreachable => 503,
        };
        Self::new(status, e.text)
    }
}

impl From<zip::Error> for DeployError {
    fn from(e: zip::Error) -> Self {
        match e {
            zip::Error::Refused(text) => Self::new(422, text),
            zip::Error::TooLarge(text) => Self::new(413, text),
            zip::Error::Io(e) => Self::disk("read the archive from", &e),
        }
    }
}
