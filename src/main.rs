//! The `tinyfaas` program: everything is in the library.

fn main() {}
