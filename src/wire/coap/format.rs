//! Content-Format numbers (RFC 7252 §12.3 and its registry) and status codes between HTTP and CoAP (RFC 8075 §7).

use super::message::Code;

/// `text/plain;charset=utf-8`.
pub const TEXT: u16 = 0;
/// `application/link-format`, RFC 6690.
pub const LINK_FORMAT: u16 = 40;
/// `application/octet-stream`.
pub const OCTET_STREAM: u16 = 42;

/// Number and media type, the number ascending.
const REGISTRY: [(u16, &str); 22] = [
    (TEXT, "text/plain;charset=utf-8"),
    (21, "image/gif"),
    (22, "image/jpeg"),
    (23, "image/png"),
    (LINK_FORMAT, "application/link-format"),
    (41, "application/xml"),
    (OCTET_STREAM, "application/octet-stream"),
    (47, "application/exi"),
    (50, "application/json"),
    (51, "application/json-patch+json"),
    (52, "application/merge-patch+json"),
    (60, "application/cbor"),
    (61, "application/cwt"),
    (63, "application/cbor-seq"),
    (110, "application/senml+json"),
    (111, "application/sensml+json"),
    (112, "application/senml+cbor"),
    (113, "application/sensml+cbor"),
    (310, "application/senml+xml"),
    (10002, "application/javascript"),
    (20000, "text/css"),
    (30000, "image/svg+xml"),
];

/// The media type of a Content-Format.
pub fn media_type(number: u16) -> Option<&'static str> {
    REGISTRY.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

/// The Content-Format of a `content-type` field, whose parameters do not matter; `None` where the registry has none.
pub fn number(content_type: &str) -> Option<u16> {
    let wanted = essence(content_type);
    REGISTRY.iter().find(|(_, name)| essence(name).eq_ignore_ascii_case(wanted)).map(|(n, _)| *n)
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// The response code for a function's HTTP status, which is read against RFC 8075's table; `method` tells the 204s apart.
pub fn code_of_status(status: u16, method: Code) -> Code {
    match status {
        201 => Code::CREATED,
        204 | 205 => match method {
            Code::DELETE => Code::DELETED,
            Code::GET | Code::FETCH => Code::CONTENT,
            _ => Code::CHANGED,
        },
        304 => Code::VALID,
        401 => Code::UNAUTHORIZED,
        403 => Code::FORBIDDEN,
        404 | 410 => Code::NOT_FOUND,
        405 => Code::METHOD_NOT_ALLOWED,
        406 => Code::NOT_ACCEPTABLE,
        409 => Code::CONFLICT,
        412 => Code::PRECONDITION_FAILED,
        413 => Code::TOO_LARGE,
        415 => Code::UNSUPPORTED_FORMAT,
        422 => Code::UNPROCESSABLE,
        429 => Code::TOO_MANY_REQUESTS,
        501 => Code::NOT_IMPLEMENTED,
        // A redirect leads nowhere a CoAP client could follow.
        300..=399 | 502 => Code::BAD_GATEWAY,
        503 => Code::UNAVAILABLE,
        504 => Code::GATEWAY_TIMEOUT,
        200..=299 => Code::CONTENT,
        400..=499 => Code::BAD_REQUEST,
        _ => Code::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_has_its_number_whatever_its_case_and_parameters() {
        assert_eq!(number("text/plain"), Some(0));
        assert_eq!(number("Text/Plain; charset=UTF-8"), Some(0));
        assert_eq!(number("application/json"), Some(50));
        assert_eq!(number("application/senml+cbor"), Some(112));
        assert_eq!(number("text/html"), None);
        assert_eq!(media_type(60), Some("application/cbor"));
        assert_eq!(media_type(9999), None);
    }

    #[test]
    fn a_status_becomes_the_code_of_the_table() {
        let post = |status| code_of_status(status, Code::POST).to_string();
        assert_eq!([post(200), post(201), post(202), post(204)], ["2.05", "2.01", "2.05", "2.04"]);
        assert_eq!([post(404), post(418), post(302), post(500)], ["4.04", "4.00", "5.02", "5.00"]);
        assert_eq!(code_of_status(204, Code::DELETE), Code::DELETED);
        assert_eq!(code_of_status(204, Code::GET), Code::CONTENT);
    }
}
