//! The `hpsearch` program: all of it is in the library.

/// Feature maps come and go in large blocks; this allocator keeps them mapped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    hpsearch::cli::main()
}
