//! The `hpsearch` program: all of it is in the library.

/// Feature maps and gradients come and go in large blocks, the same ones in every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    hpsearch::nn::memory::keep_pages();
    hpsearch::cli::main()
}
