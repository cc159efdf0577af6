//! The `tinyfaas` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tinyfaas::cli::main()
}
