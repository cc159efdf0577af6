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
    Errors,
    /// The status page.
    #[cfg(feature = "page")]
    Page,
    /// One function, by the name as it was sent.
    Function(&'t str),
    /// How far the deployment of that name is.
    Deployment(&'t str),
    /// A call of the function of that name, and what follows in the path.
    Call(&'t str, &'t str),
}

/// What is said where there is no such path.
pub(super) const NO_SUCH_PATH: &str = "no such path: POST /upload, /uploadURL, /delete, /wipe, GET /list, /logs, /functions, \
     /errors, /metrics, /healthz, /readyz, GET, PUT, DELETE /functions/NAME, GET /functions/NAME/deployment, or POST /functions/NAME/call; GET /openapi.json describes them";

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
            "/errors" => Self::Errors,
            #[cfg(feature = "page")]
            "/" => Self::Page,
            _ => {
                let name = path.strip_prefix("/functions/")?;
                if let Some(name) = name.strip_suffix("/deployment").filter(|name| !name.contains('/')) {
                    return Some(Self::Deployment(name));
                }
                let call = name.split_once('/').and_then(|(name, rest)| Some((name, rest.strip_prefix("call")?)));
                match call {
                    Some((name, rest)) if rest.is_empty() || rest.starts_with('/') => Self::Call(name, rest),
                    _ => Self::Function(name),
                }
            }
        })
    }

    /// The methods it takes, as the field `Allow` has them (RFC 9110 §10.2.1).
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::Upload | Self::UploadUrl | Self::Delete | Self::Wipe | Self::Call(..) => "POST",
            Self::Function(_) => "GET, HEAD, PUT, DELETE",
            _ => "GET, HEAD",
        }
    }

    /// Whether it takes `method`.
    pub(super) fn takes(self, method: &str) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method)
    }

    /// Whether anybody may ask: it tells nothing, and who looks after the process has no token; a browser has none before it has
    /// the page.
    pub(super) const fn is_open(self) -> bool {
        #[cfg(feature = "page")]
        if matches!(self, Self::Page) {
            return true;
        }
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
        assert_eq!(Route::of("/functions/f/call"), Some(Route::Call("f", "")));
        assert_eq!(Route::of("/functions/f/call/a/b"), Some(Route::Call("f", "/a/b")));
        assert_eq!(Route::of("/functions/f/calls"), Some(Route::Function("f/calls")));
        assert_eq!(Route::of("/functions/f/deployment"), Some(Route::Deployment("f")));
        assert_eq!(Route::of("/functions/f/call/deployment"), Some(Route::Call("f", "/deployment")));
        assert_eq!(Route::of("/").is_some(), cfg!(feature = "page"));
        for nowhere in ["", "/uploads", "/functionsf", "functions"] {
            assert_eq!(Route::of(nowhere), None, "{nowhere}");
        }
        assert!(Route::Upload.takes("POST") && !Route::Upload.takes("GET") && !Route::Upload.takes("PO"));
        assert!(Route::Function("f").takes("PUT") && !Route::Function("f").takes("POST"));
        assert_eq!(
            Route::Call("f", "").allow(),
            "POST",
            "a browser that is led there would show the answer as a page of ours"
        );
        assert!(Route::Ready.is_open() && !Route::Metrics.is_open());
    }
}
