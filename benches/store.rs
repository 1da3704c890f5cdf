//! What a trial costs the engine: 10,000 trials of 20 epochs through the real, durable write path, and resumed.
//!
//! `cargo bench --bench store [-- TRIALS [IN_HAND...]]`. Suggestions are random, so that storage is what is measured.
//! `in hand` is how many trials report at a time: reports that arrive together share a transaction, as with so many workers.
//! Every epoch is on the disk (`synchronous = FULL`) before its trial goes on. With the address of a PostgreSQL database
//! in HPSEARCH_DATABASE (and `--features postgres`) studies are kept there; use an empty one.

use hpsearch::engine::EpochReport;
use hpsearch::ids::Epoch;
use hpsearch::spec::StudySpec;
use hpsearch::store::{in_folder, in_server};
use hpsearch::study::{Ask, Study, Trial};
use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const EPOCHS: u32 = 20;

fn spec(name: &str, trials: u32) -> Result<StudySpec, Box<dyn Error>> {
    let text = format!(
        "name = \"{name}\"\nrunner = {{ kind = \"external\", epochs = {EPOCHS} }}\nscheduler = {{ kind = \"none\" }}\n\
         budget = {{ n_trials = {trials} }}\n[space]\nx = {{ type = \"float\", low = 0.0, high = 1.0 }}\n"
    );
    Ok(hpsearch::config::from_text(&text)?.spec)
}

/// Trains all trials of a study, `in_hand` at a time, with a flush after each epoch of all.
fn record(study: &mut Study, in_hand: usize) -> Result<(), Box<dyn Error>> {
    let mut trials: VecDeque<(Trial, u32)> = VecDeque::new();
    loop {
        while trials.len() < in_hand {
            match study.lease(0)? {
                Ask::Trial(trial) => trials.push_back((trial, 0)),
                _ => break,
            }
        }
        if trials.is_empty() {
            study.flush()?;
            return Ok(());
        }
        for _ in 0..trials.len() {
            let Some((mut trial, done)) = trials.pop_front() else { break };
            let value = f64::from(trial.number().0 % 97) / 97.0 + f64::from(done) * 1e-3;
            let metrics = [("f1".to_owned(), value / 3.0), ("recall".to_owned(), value / 2.0)].into();
            let report = EpochReport {
                epoch: Epoch(done + 1),
                value: Some(value),
                metrics,
                train_loss: Some(1.0 - value),
                seconds: 0.01,
                images: 640,
                ..EpochReport::default()
            };
            if study.note_epoch(&mut trial, report)?.is_stop() {
                study.finish(trial)?;
            } else {
                trials.push_back((trial, done + 1));
            }
        }
        study.flush()?;
    }
}

/// Resident memory in MB; `None` where the system does not report it.
fn resident() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

fn megabytes(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |m| m.len() as f64 / 1e6)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<u32>().ok());
    let trials = numbers.next().unwrap_or(10_000);
    let given: Vec<usize> = numbers.map(|n| n as usize).collect();
    let state = tempfile::tempdir_in(".")?; // a disk, not a memory file system
    let backend = match std::env::var("HPSEARCH_DATABASE") {
        Ok(address) => in_server(&address, state.path())?,
        Err(_) => in_folder(state.path()),
    };
    let open = |spec: &StudySpec| Study::open_in(&*backend, state.path(), spec, Path::new("."));
    for in_hand in if given.is_empty() { vec![1, 8, 64] } else { given } {
        // One at a time commits every epoch for itself; a tenth shows the pace.
        let trials = if in_hand == 1 { trials / 10 } else { trials };
        let spec = spec(&format!("in-hand-{in_hand}"), trials)?;
        let mut study = open(&spec)?;
        let (began, before) = (Instant::now(), resident());
        record(&mut study, in_hand)?;
        let seconds = began.elapsed().as_secs_f64();
        let grown = resident().zip(before).map_or(0.0, |(after, before)| after - before);
        drop(study);
        let began = Instant::now();
        let study = open(&spec)?;
        let resume = began.elapsed().as_secs_f64();
        drop(study);
        let reader = backend.read(&spec.name)?;
        let began = Instant::now();
        let outline = reader.outline()?;
        let outlined = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let tables = reader.tables()?;
        let whole = began.elapsed().as_secs_f64();
        assert_eq!(outline.epochs.len(), tables.epochs.len());
        let study = open(&spec)?;
        assert!(study.engine().trials().all(|t| t.value.is_some()), "all is on record");
        println!(
            "{in_hand:>2} in hand: {trials} trials x {EPOCHS} epochs in {seconds:.2} s = {:.0} trials/s durable, \
             resumed in {resume:.2} s, read in {outlined:.2} s without metrics, {whole:.2} s with, {:.0} MB on disk, memory grew by {grown:.0} MB",
            f64::from(trials) / seconds,
            megabytes(&study.dir().join("study.db")),
        );
    }
    Ok(())
}
