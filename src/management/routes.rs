//! Which paths there are, and what each one takes.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route<'t> {
    /// The original's calls.
    Upload,
    UploadUrl,
    Delete,
    Wipe,
    List,
    Logs,
    /// Whether the process lives, and whether its functions are up: for whoever looks after it.
    Health,
    Ready,
    Metrics,
    OpenApi,
    Functions,
    /// One function, by the name as it was sent.
    Function(&'t str),
}

/// What is said where there is no such path.
pub(super) const NO_SUCH_PATH: &str = "no such path: POST /upload, /uploadURL, /delete, /wipe, GET /list, /logs, /functions, \
     /metrics, /healthz, /readyz, or GET, PUT, DELETE /functions/NAME; GET /openapi.json describes them";

impl<'t> Route<'t> {
    /// The route of a path; `None` where there is none.
    pub(super) fn of(path: &'t str) -> Option<Self> {
        Some(match path {
            "/upload" => Self::Upload,
            "/uploadURL" => Self::UploadUrl,
            "/delete" => Self::Delete,
            "/wipe" => Self::Wipe,
            "/list" => Self::List,
            "/logs" => Self::Logs,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/openapi.json" => Self::OpenApi,
            "/functions" => Self::Functions,
            _ => Self::Function(path.strip_prefix("/functions/")?),
        })
    }

    /// The methods it takes, as the field `Allow` has them (RFC 9110 §10.2.1).
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::Upload | Self::UploadUrl | Self::Delete | Self::Wipe => "POST",
            Self::Function(_) => "GET, HEAD, PUT, DELETE",
            _ => "GET, HEAD",
        }
    }

    /// Whether it takes `method`.
    pub(super) fn takes(self, method: &str) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method)
    }

    /// Whether anybody may ask: it tells nothing, and who looks after the process has no token.
    pub(super) const fn is_open(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_routes_and_routes_their_methods() {
        assert_eq!(Route::of("/functions/f"), Some(Route::Function("f")));
        assert_eq!(Route::of("/functions/"), Some(Route::Function("")));
        for nowhere in ["/", "", "/uploads", "/functionsf", "functions"] {
            assert_eq!(Route::of(nowhere), None, "{nowhere}");
        }
        assert!(Route::Upload.takes("POST") && !Route::Upload.takes("GET") && !Route::Upload.takes("PO"));
        assert!(Route::Function("f").takes("PUT") && !Route::Function("f").takes("POST"));
        assert!(Route::Ready.is_open() && !Route::Metrics.is_open());
    }
}
