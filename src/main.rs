//! The `evermesh` program: everything is in the library.

fn main() -> std::process::ExitCode {
    evermesh::cli::main()
}
