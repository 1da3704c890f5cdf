//! The `hpsearch` program: all of it is in the library.

/// Every training step allocates and frees the same large blocks, for feature maps and gradients.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    hpsearch::nn::memory::keep_pages();
    hpsearch::cli::main()
}
