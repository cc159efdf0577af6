//! The pure part of gRPC over HTTP/2: message framing, statuses, timeouts, metadata rules, protobuf messages.
//!
//! Follows the public document "gRPC over HTTP2" (`PROTOCOL-HTTP2.md`). HTTP/2 itself is the `h2` crate's; only
//! [`flood`] looks at its frames.

pub mod descriptor;
pub mod flood;
pub mod frame;
pub mod gzip;
pub mod message;
pub mod metadata;
pub mod status;
pub mod timeout;
