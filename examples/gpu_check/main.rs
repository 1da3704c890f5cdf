//! Checks and measures the CUDA path on a machine that has a GPU: `scripts/gpu-check` runs it.
//!
//! Prints a Markdown report. Ends with status 1 where a check fails, 2 where there is no GPU. No network is needed;
//! weights are random unless a file is given.

#[path = "../../tests/it/golden.rs"]
#[allow(dead_code)] // the tests use more of it
mod golden;
mod parity;
mod report;
mod speed;
mod study;

use candle_core::Device;
use hpsearch::nn::cuda::device;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command-line options; see [`USAGE`].
struct Options {
    gpu: usize,
    program: Option<PathBuf>,
    torch: Option<PathBuf>,
    seconds: u64,
    /// Whether speed is measured; on a device made of software it says nothing.
    speed: bool,
}

const USAGE: &str = "gpu_check [--gpu N] [--program HPSEARCH] [--torch FIGURES.json] [--seconds N] [--speed yes|no]";

fn options() -> Result<Options, String> {
    let mut options = Options { gpu: 0, program: None, torch: None, seconds: 420, speed: true };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("usage: {USAGE}"))?;
        let number = || value.parse().map_err(|_| format!("{word}: `{value}` is no number"));
        match word.as_str() {
            "--gpu" => options.gpu = number()? as usize,
            "--seconds" => options.seconds = number()?,
            "--speed" => options.speed = value == "yes",
            "--program" => options.program = Some(value.into()),
            "--torch" => options.torch = Some(value.into()),
            _ => return Err(format!("usage: {USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let gpu = match device::open(options.gpu) {
        Ok(gpu) => gpu,
        Err(error) => {
            // candle's errors may carry a backtrace.
            let text = error.to_string();
            eprintln!("gpu_check: no GPU {}: {}", options.gpu, text.lines().next().unwrap_or_default());
            return ExitCode::from(2);
        }
    };
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut report = Report::new(until);
    report.title(&heading(&gpu));
    report.section("Golden figures", |r| parity::golden(r, &gpu));
    report.section("Gradients and steps against the CPU", |r| parity::against_cpu(r, &gpu));
    report.section("Finite differences", |r| parity::differences(r, &gpu));
    if options.speed {
        report.section("Speed", |r| speed::measure(r, &gpu, options.torch.as_deref()));
    }
    match &options.program {
        Some(program) => report.section("Studies", |r| study::check(r, program, options.gpu, options.speed)),
        None => report.line("No study was run: `--program` was not given."),
    }
    report.finish()
}

fn heading(gpu: &Device) -> String {
    let name = device::name(gpu).unwrap_or_else(|| "a GPU without a name".to_owned());
    let gib = device::memory(gpu).map_or(0.0, |m| m.total as f64 / f64::from(1 << 30));
    format!("{name}, {gib:.0} GiB, {}", device::versions().unwrap_or_default())
}
