//! Front doors: each translates a protocol into a [`crate::call::Call`] and its outcome back.
//!
//! They know nothing of engines, and nothing of each other.

pub mod coap;
pub mod grpc;
pub mod http;
