//! Wire formats: pure functions and state machines from bytes to values and back.
//!
//! Nothing here does I/O, keeps a clock or knows what a function is.

pub mod chunked;
pub mod coap;
pub mod grpc;
pub mod headers;
pub mod http1;
pub mod tar;
pub mod untar;
pub mod upload;
pub mod url;
pub mod zip;
