/// Feature maps and gradients come and go in large blocks, the same ones in every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    hpsearch::nn::memory::keep_pages();
}
