//! Times InceptionV3 on request, for `benches/compare/forward_step.py`, which alternates between this and PyTorch.
//!
//! Reads lines `forward SIDE BATCH [TO]` or `step SIDE BATCH FROM frozen|train`, runs each once and prints the seconds and
//! the processor seconds. A step is the frozen prefix up to position FROM, the trained suffix, global average pooling,
//! a loss, and all gradients. `work SIDE FROM TO` prints multiply-adds, those of Winograd's convolutions, activations and
//! weights of a part of the network, for one image. The last line, `memory`, asks for the peak resident set in MiB.
//!
//! An argument, `f32` (the default) or `amp`, says how convolutions multiply.

use candle_core::{Device, Result, Tensor};
use hpsearch::nn::cuda::set_precision;
use hpsearch::nn::inception_v3::{self, InceptionV3};
use hpsearch::nn::{Backbone, Mode, Suffix, SuffixOptions, backward};
use hpsearch::spec::{BatchNormMode, PoolPadding};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    hpsearch::nn::memory::keep_pages();
    set_precision(std::env::args().nth(1).as_deref().unwrap_or("f32").parse()?);
    let device = Device::Cpu;
    let network = InceptionV3::new(&inception_v3::random(1.0, 1, &device)?, 1.0, PoolPadding::Counted, &device)?;
    let mut suffixes: HashMap<(usize, bool), Box<dyn Suffix>> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let reply = match *words.as_slice() {
            ["forward", side, batch, ref to @ ..] => {
                let (x, to) = (images(side.parse()?, batch.parse()?)?, to.first().unwrap_or(&"18").parse()?);
                timed(|| network.prefix(0, to, &x).map(drop))?
            }
            ["step", side, batch, from, mode] => {
                let (from, train) = (from.parse()?, mode == "train");
                let x = images(side.parse()?, batch.parse()?)?;
                let batch_norm = if train { BatchNormMode::Train } else { BatchNormMode::Frozen };
                if !suffixes.contains_key(&(from, train)) {
                    suffixes.clear();
                    suffixes.insert((from, train), network.suffix(from, 18, SuffixOptions { batch_norm })?);
                }
                let suffix = &suffixes[&(from, train)];
                timed(|| {
                    let features = suffix.forward(&network.prefix(0, from, &x)?, Mode::Train)?;
                    let loss = features.mean((1, 2))?.sqr()?.mean_all()?;
                    backward(&loss, Some(&**suffix)).map(drop)
                })?
            }
            ["work", side, from, to] => {
                let too_small = || format!("images of {side} px are too small");
                let w = inception_v3::work(1.0, side.parse()?, from.parse()?, to.parse()?).ok_or_else(too_small)?;
                println!("{} {} {} {}", w.multiply_adds, w.winograd, w.activations, w.weights);
                std::io::stdout().flush()?;
                continue;
            }
            ["memory"] => (peak_mib()?, 0.0),
            _ => return Err(format!("unknown request `{line}`").into()),
        };
        println!("{} {}", reply.0, reply.1);
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn images(side: usize, batch: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..batch * side * side * 3).map(|i| ((i * 7919) % 255) as f32 / 127.5 - 1.0).collect();
    Tensor::from_vec(values, (batch, side, side, 3), &Device::Cpu)
}

fn timed(f: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let (begin, used) = (Instant::now(), processor_seconds()?);
    f()?;
    Ok((begin.elapsed().as_secs_f64(), processor_seconds()? - used))
}

/// Time that this process's threads have run, as Linux reports it.
fn processor_seconds() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds * 1e-9)
}

/// The largest resident set so far, as Linux reports it.
fn peak_mib() -> std::result::Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
