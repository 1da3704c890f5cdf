//! Measures this processor's peaks of multiply-adds and of memory traffic, and the share of them that InceptionV3's
//! forward passes and training steps reach. Prints tables for docs/performance.md.
//!
//! Operations are counted by the definition of a convolution. 3x3 convolutions need fewer than half of them
//! ([`hpsearch::nn::kernel::winograd`]), so a share can exceed 100 %.
//!
//! `cargo run --release --example roofline` (RAYON_NUM_THREADS sets the threads; a machine at rest is assumed)

use candle_core::{Device, Tensor};
use hpsearch::nn::inception_v3::{self, InceptionV3, Work};
use hpsearch::nn::kernel::Isa;
use hpsearch::nn::{Backbone, Mode, SuffixOptions, backward};
use hpsearch::spec::{BatchNormMode, PoolPadding};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 8;
const STAGES: usize = 18;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    hpsearch::nn::memory::keep_pages();
    let threads = rayon::current_num_threads();
    let isa = Isa::best();
    let multiply = best(5, || {
        let rounds = 5_000_000;
        let began = Instant::now();
        let done: u64 = (0..threads).into_par_iter().map(|_| multiply_adds(isa, rounds)).sum();
        2e-9 * done as f64 / began.elapsed().as_secs_f64()
    });
    let memory = best(5, || triad(threads));
    println!(
        "{threads} threads, {isa:?}: {multiply:.0} GFLOP/s of multiply-adds in registers, {memory:.1} GB/s to memory"
    );
    println!("(a x + y over 96 MiB; 12 bytes an element). Ridge: {:.1} FLOP a byte.\n", multiply / memory);
    println!("| work, batch 8 | GFLOP | MB at least | FLOP a byte | ms | GFLOP/s | share of peak |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    let device = Device::Cpu;
    let network = InceptionV3::new(&inception_v3::random(1.0, 1, &device)?, 1.0, PoolPadding::Counted, &device)?;
    for side in [299, 150] {
        let x = images(side)?;
        let seconds = fastest(5, || network.prefix(0, STAGES, &x).map(drop))?;
        line(&format!("forward, {side} px"), &[(work(side, 0, STAGES)?, 1)], seconds, multiply);
    }
    let x = images(150)?;
    for (from, mode, name) in [
        (16, BatchNormMode::Frozen, "step, last two blocks"),
        (0, BatchNormMode::Frozen, "step, all layers"),
        (0, BatchNormMode::Train, "step, all layers, batch norm in training mode"),
    ] {
        let suffix = network.suffix(from, STAGES, SuffixOptions { batch_norm: mode })?;
        let seconds = fastest(5, || {
            let features = suffix.forward(&network.prefix(0, from, &x)?, Mode::Train)?;
            backward(&features.mean((1, 2))?.sqr()?.mean_all()?, Some(&*suffix)).map(drop)
        })?;
        // Forward, the gradient of the input, the gradient of the weights.
        let parts = [(work(150, 0, from)?, 1), (work(150, from, STAGES)?, 3)];
        line(&format!("{name}, 150 px"), &parts, seconds, multiply);
    }
    Ok(())
}

fn work(side: usize, from: usize, to: usize) -> Result<Work, String> {
    inception_v3::work(1.0, side, from, to).ok_or_else(|| format!("images of {side} px are too small"))
}

/// `parts`: work, and how often it is done.
fn line(name: &str, parts: &[(Work, u64)], seconds: f64, peak: f64) {
    let sum = |f: fn(&Work) -> u64| parts.iter().map(|(work, times)| times * f(work)).sum::<u64>() as f64;
    let flop = 2.0 * BATCH as f64 * sum(|w| w.multiply_adds);
    // Every feature map is written and read once, every weight read once.
    let bytes = 4.0 * (2.0 * BATCH as f64 * sum(|w| w.activations) + sum(|w| w.weights));
    let pace = 1e-9 * flop / seconds;
    println!(
        "| {name} | {:.1} | {:.0} | {:.0} | {:.0} | {pace:.0} | {:.0} % |",
        1e-9 * flop,
        1e-6 * bytes,
        flop / bytes,
        1e3 * seconds,
        100.0 * pace / peak
    );
}

fn images(side: usize) -> candle_core::Result<Tensor> {
    let count = BATCH as usize * side * side * 3;
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 255) as f32 / 127.5 - 1.0).collect();
    Tensor::from_vec(values, (BATCH as usize, side, side, 3), &Device::Cpu)
}

fn best(rounds: usize, mut f: impl FnMut() -> f64) -> f64 {
    (0..rounds).map(|_| f()).fold(0.0, f64::max)
}

fn fastest(rounds: usize, mut f: impl FnMut() -> candle_core::Result<()>) -> candle_core::Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..rounds + 2 {
        let began = Instant::now();
        f()?;
        least = least.min(began.elapsed().as_secs_f64());
    }
    Ok(least)
}

/// GB/s of `a[i] = b[i] + s * c[i]`, too large for any cache.
fn triad(threads: usize) -> f64 {
    const LENGTH: usize = 8 << 20;
    let (mut a, b, c) = (vec![0f32; LENGTH], vec![1f32; LENGTH], vec![2f32; LENGTH]);
    let share = LENGTH.div_ceil(threads);
    let began = Instant::now();
    a.par_chunks_mut(share).zip(b.par_chunks(share).zip(c.par_chunks(share))).for_each(|(a, (b, c))| {
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            *a = b + 3.0 * c;
        }
    });
    black_box(&a);
    12e-9 * LENGTH as f64 / began.elapsed().as_secs_f64()
}

/// Multiply-adds on registers alone, in enough independent chains to hide an instruction's latency; returns how many.
fn multiply_adds(isa: Isa, rounds: u64) -> u64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::best` returns only what the processor has.
        Isa::Avx512 => unsafe { chains_avx512(rounds) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { chains_avx2(rounds) },
        _ => chains(rounds),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn chains_avx512(rounds: u64) -> u64 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (factor, summand) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut sums = [_mm512_set1_ps(1.0); 16];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, summand);
        }
    }
    black_box(sums);
    rounds * 16 * 16
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chains_avx2(rounds: u64) -> u64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (factor, summand) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    let mut sums = [_mm256_set1_ps(1.0); 10];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, summand);
        }
    }
    black_box(sums);
    rounds * 8 * 10
}

fn chains(rounds: u64) -> u64 {
    let (factor, summand) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut sums = black_box([1f32; 32]);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * factor + summand;
        }
    }
    black_box(sums);
    rounds * 32
}
