//! Records real trials as a table on which searches can be played; driven by `benches/quality/record.py`.
//!
//! `record STUDY.toml OUT.jsonl STATE [MINUTES]` trains the configurations that the study's random sampler draws, one after
//! another, and appends a line for each: its parameters, its price, and after every epoch the metrics on the validation
//! images and on those held out (images whose path begins with `test/`; the study has them in its validation set, so that
//! the program scores them like any other). What is in OUT already is not trained again, so a record may take several
//! sittings; after MINUTES no further trial begins.
//!
//! Trials that cost more than a tenth of the most expensive one stop after epoch 2 or 4 if they are then in the worse half of
//! all so far; such rows are marked `"thinned": true`.

use hpsearch::data::DataSummary;
use hpsearch::engine::{EpochReport, Paid, Prices, WorkOrder};
use hpsearch::ids::{Epoch, OrderId, TrialNumber};
use hpsearch::metrics::{Metrics, Predictions, evaluate, predictions};
use hpsearch::runner::image::{ImagePrices, ImageRunner};
use hpsearch::runner::{Continue, DeviceSlot, EpochSink, SinkClosed, Start, TrialRunner};
use hpsearch::sampler::drawn;
use hpsearch::spec::Device;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Epochs after which expensive trials may be thinned.
const LOOKS: [u32; 2] = [2, 4];
const HELD_OUT: &str = "test/";

/// Takes down an epoch at a time.
struct Recorder<'a> {
    folder: &'a Path,
    rows: Vec<Value>,
    /// Values of all trials so far after each of [`LOOKS`]; `None`: this trial is not thinned.
    others: Option<&'a BTreeMap<u32, Vec<f64>>>,
    thinned: bool,
}

impl EpochSink for Recorder<'_> {
    fn epoch(&mut self, report: EpochReport) -> Result<Continue, SinkClosed> {
        let Some(file) = &report.predictions else { return Err(SinkClosed) };
        let Ok(all) = predictions::read_csv(&self.folder.join(&file.path)) else { return Err(SinkClosed) };
        let part = |held_out: bool| {
            let is_held_out = |row: &&predictions::Prediction| row.image.starts_with(HELD_OUT);
            let rows = all.rows.iter().filter(|row| is_held_out(row) == held_out).cloned().collect();
            evaluate(&Predictions { rows, ..all.clone() }, 0.5)
        };
        let (validation, test) = (part(false), part(true));
        let figures = |m: &Metrics| json!({ "roc_auc": m.roc_auc, "pr_auc": m.pr_auc, "log_loss": m.log_loss, "recall": m.recall, "f1": m.f1 });
        self.rows.push(json!({
            "epoch": report.epoch, "seconds": report.seconds, "train_loss": report.train_loss,
            "validation": figures(&validation), "test": figures(&test),
        }));
        if let Some(others) = self.others
            && let (Some(known), Some(value)) = (others.get(&report.epoch.0), validation.roc_auc)
        {
            let better = known.iter().filter(|other| **other > value).count();
            self.thinned = 2 * better > known.len();
        }
        Ok(if self.thinned { Continue::Stop } else { Continue::Go })
    }
}

/// Seconds of all cores that this process has used: unlike wall time, hardly touched by whatever else the machine does.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: Vec<f64> = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    // `proc(5)`: user and system time in clock ticks, which are hundredths of a second on Linux.
    Some(ticks.iter().sum::<f64>() / 100.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    hpsearch::nn::memory::keep_pages();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [study, out, state, rest @ ..] = arguments.as_slice() else {
        return Err("record STUDY OUT.jsonl STATE [MINUTES]".into());
    };
    let minutes: f64 = rest.first().map_or(Ok(f64::INFINITY), |text| text.parse())?;
    let (out, state, began) = (Path::new(out), PathBuf::from(state), Instant::now());
    for folder in ["checkpoints", "predictions"] {
        std::fs::create_dir_all(state.join(folder))?;
    }
    let loaded = hpsearch::config::load(Path::new(study)).map_err(|e| e.to_string())?;
    let spec = loaded.spec;
    let (epochs, trials) = (spec.runner.epochs(), spec.budget.n_trials.ok_or("n_trials is missing")?);
    let mut done: BTreeMap<u64, Value> = BTreeMap::new();
    if let Ok(file) = std::fs::File::open(out) {
        for line in std::io::BufReader::new(file).lines() {
            let row: Value = serde_json::from_str(&line?)?;
            done.insert(row["trial"].as_u64().ok_or("a line without its trial")?, row);
        }
    }
    let slot = DeviceSlot {
        device: Device::Cpu,
        threads: rayon::current_num_threads(),
        study_dir: state.clone(),
        cache_dir: state.join("cache"),
        worker: 0,
    };
    let mut runner = ImageRunner::new(&spec, &loaded.base);
    let mut nothing = Recorder { folder: &state, rows: Vec::new(), others: None, thinned: false };
    let summary: DataSummary = runner.data(&slot, &mut nothing)?.clone();
    let prices = ImagePrices::new(&spec.runner, &summary);
    let most = {
        let mut most = 0;
        for trial in 0..trials {
            most =
                most.max(prices.price(&drawn(&spec.space, spec.seed, TrialNumber(trial), 0), 0..1, &Paid::new()).epoch);
        }
        most
    };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(out)?;
    for trial in 0..trials {
        if done.contains_key(&u64::from(trial)) {
            continue;
        }
        if began.elapsed().as_secs_f64() > 60.0 * minutes {
            break;
        }
        let params = drawn(&spec.space, spec.seed, TrialNumber(trial), 0);
        let price = prices.price(&params, 0..epochs, &Paid::new());
        let looks: BTreeMap<u32, Vec<f64>> = LOOKS
            .iter()
            .map(|&look| {
                let value = |row: &Value| row["epochs"][look as usize - 1]["validation"]["roc_auc"].as_f64();
                (look, done.values().filter_map(value).collect())
            })
            .collect();
        let may_be_thinned = price.epoch > most / 10 && done.len() >= 20;
        let mut recorder =
            Recorder { folder: &state, rows: Vec::new(), others: may_be_thinned.then_some(&looks), thinned: false };
        let order = WorkOrder {
            order: OrderId(trial),
            trial: TrialNumber(trial),
            params: params.clone(),
            from: Epoch(0),
            to: Epoch(epochs),
            stop: None,
            bracket: 0,
            rung: None,
            planned_trials: trials,
            price: Some(price),
        };
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let failure = runner.run(&order, &Start::default(), &slot, &mut recorder).err().map(|e| e.reason);
        let row = json!({
            "trial": trial, "params": params, "price": price, "seconds": started.elapsed().as_secs_f64(),
            "cpu_seconds": cpu_seconds().zip(cpu).map(|(now, then)| now - then), "failure": failure, "thinned": recorder.thinned, "epochs": recorder.rows,
        });
        writeln!(file, "{row}")?;
        file.sync_data()?;
        let last = &row["epochs"][row["epochs"].as_array().map_or(0, |e| e.len().saturating_sub(1))];
        eprintln!(
            "trial {trial}: {:.0} s, {}, {}",
            started.elapsed().as_secs_f64(),
            last["validation"]["roc_auc"],
            row["params"]
        );
        done.insert(u64::from(trial), row);
        for folder in ["checkpoints", "predictions"] {
            for entry in std::fs::read_dir(state.join(folder))? {
                let path = entry?.path();
                if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
            }
        }
    }
    Ok(())
}
