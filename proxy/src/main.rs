//! The program `outgate`: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    outgate::cli::main(std::env::args_os())
}
