//! Integration tests: one binary, so that it links once.

// What helpers of tests meet unexpectedly ends the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod attacks;
mod binary_handler;
mod board;
mod cli;
mod coap;
mod coap_fuzz;
mod coap_net;
mod coap_observe;
mod configuration;
mod contained;
mod contract_functions;
mod contract_http;
mod contract_management;
mod docker;
mod documents;
mod endpoints;
mod engine;
mod export;
mod failures;
mod fake_handler;
mod first_function;
mod floods;
mod grpc;
mod grpc_connections;
mod grpc_door;
mod grpc_floods;
mod grpc_frames;
mod grpc_fuzz;
mod grpc_health;
mod grpc_peers;
mod grpc_raw;
mod idle;
mod image;
mod kills;
mod limits;
mod load;
mod memory;
mod metrics;
mod packaging;
mod provision;
mod runtimes;
mod scripted;
mod service_manager;
mod shipped;
mod smoke;
mod status;
mod supervision;
mod tools;
mod upgrade;
mod watch;
mod wire_fuzz;
