//! What allocations tell that the resident set does not. A binary of its own without the test harness: the counting
//! allocator counts for all threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod coap;
mod grpc;
#[path = "../it/grpc_door.rs"]
#[allow(dead_code)]
mod grpc_door;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    coap::datagrams_that_run_nothing_allocate_nothing();
    grpc::calls_and_connections_leave_nothing_behind();
}
