//! `hpsearch test`: the one-time evaluation on the locked test images.

use super::args::{Global, complain};
use super::exit::{CliError, Exit};
use super::run::study_exit;
use crate::clock;
use crate::engine::FailureClass;
use crate::ids::TrialNumber;
use crate::report::{self, StudyRecord};
use crate::runner::device;
use crate::spec::{Change, Device, Devices};
use crate::study::{self, FINALISTS, OpeningError, OpeningOptions, Study, StudyError};
use crate::wording::counted;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Evaluate the finalists on the locked test images: once, on record
///
/// The best trial is the answer, the others are for comparison, and so is the mean of all their scores. A further call shows what
/// is on record.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
    /// How many leading trials are evaluated, 1 to 5; the first is the answer, the others are for comparison
    #[arg(long, value_name = "N", default_value_t = FINALISTS as u32, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub finalists: u32,
    /// cpu, cuda:N or auto, instead of the study's
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Devices>,
    /// Threads, instead of all that the machine has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// Open the test images although the study is not over; the record says so
    #[arg(long)]
    pub unfinished: bool,
}

/// Opens the test images, or shows the results on record.
///
/// # Errors
/// If the study is not over, has no test images or no finalists, if its images are not those it was trained on, or a
/// checkpoint is gone or damaged. Nothing is opened then.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let doing = || format!("test study `{name}`");
    let backend = global.backend()?;
    if !backend.exists(&name).map_err(|e| CliError::store(doing(), e))? {
        let why = "it has not been run\nhint: `hpsearch run` comes first";
        return Err(CliError::new(doing(), why).exit(Exit::Missing));
    }
    let opening = backend.read(&name).and_then(|r| r.opening()).map_err(|e| CliError::store(doing(), e))?;
    match opening.filter(|o| !o.results.is_empty()) {
        Some(opening) if !global.quiet => {
            let when = clock::utc(opening.unix_ms);
            complain(&format!("note: the test images were opened on {when}; these are the figures of that time\n"));
        }
        Some(_) => {}
        None => open(&args, &name, global)?,
    }
    let reader = backend.read(&name).map_err(|e| CliError::store(doing(), e))?;
    let record = study::record(&*reader, &global.study_dir(&name), 0).map_err(|e| CliError::record(doing(), e))?;
    show(&record, global)
}

/// Opens the test images.
fn open(args: &Args, name: &str, global: &Global) -> Result<(), CliError> {
    let doing = || format!("test study `{name}`");
    let failed = |e: OpeningError| {
        let exit = exit_of(&e);
        CliError::new(doing(), e).exit(exit)
    };
    let mut study = Study::open_existing_in(&*global.backend()?, &global.state, name).map_err(|e| failed(e.into()))?;
    let base = match &args.study {
        Some(file) if file.ends_with(".toml") => {
            let loaded = global.load(Path::new(file))?;
            let differences = loaded.spec.with_defaults_of(study.spec()).difference(study.spec());
            if differences.iter().any(|d| d.change != Change::Allowed) {
                return Err(failed(StudyError::Changed { name: name.to_owned(), differences }.into()));
            }
            Some(loaded.base)
        }
        _ => None,
    };
    let devices = device::resolve(args.device.as_ref().unwrap_or(&study.spec().run.device))
        .map_err(|e| CliError::new(doing(), e).exit(Exit::Missing))?;
    let device = devices.first().copied().unwrap_or(Device::Cpu);
    let slot = global.slot(device, args.threads.map(|n| n as usize), study.dir());
    let options = OpeningOptions { finalists: args.finalists as usize, unfinished: args.unfinished, base, slot };
    for note in study.open_test_images(&options).map_err(failed)? {
        complain(&format!("note: {note}\n"));
    }
    Ok(())
}

/// The exit code of an error.
fn exit_of(error: &OpeningError) -> Exit {
    match error {
        OpeningError::NotImages | OpeningError::NotOver | OpeningError::NoFolder => Exit::Usage,
        OpeningError::NoFinalists | OpeningError::Checkpoint { .. } | OpeningError::Images(_) => Exit::Missing,
        OpeningError::Image(e) if e.class() == FailureClass::BadInput => Exit::Missing,
        OpeningError::Study(e) => study_exit(e),
        _ => Exit::Error,
    }
}

/// Prints metrics with their 95 % intervals, one block per trial.
fn show(record: &StudyRecord, global: &Global) -> Result<Exit, CliError> {
    let Some((tested, method)) = report::tested(record) else { return Ok(Exit::Done) };
    let results: Vec<_> = record.test.iter().flat_map(|t| &t.results).collect();
    for gone in results.iter().filter(|result| result.predictions.rows.is_empty()) {
        complain(&format!("note: the test predictions of trial {} are gone, and its figures with them\n", gone.trial));
    }
    // All models were evaluated on the same images.
    let there = results.iter().map(|result| &result.predictions).find(|p| !p.rows.is_empty());
    let Some(all) = there else { return Ok(Exit::Missing) };
    let members: Vec<_> = results.iter().map(|result| result.trial).collect();
    let objective = record.spec.objective.metric.to_string();
    let mut out = std::io::stdout().lock();
    for tested in &tested {
        let threshold = tested.threshold.unwrap_or(0.5);
        let own = tested.constrained;
        let binary = all.classes.len() == 2;
        if global.json {
            let mut figures: BTreeMap<&str, serde_json::Value> = tested
                .figures
                .iter()
                .map(|(name, value, interval)| {
                    let ends = interval.map(|i| [i.low, i.high]);
                    (*name, serde_json::json!({ "value": value, "interval": ends }))
                })
                .collect();
            figures.extend(own.map(|value| (&*objective, serde_json::json!({ "value": value, "interval": null }))));
            let trial = tested.model.trial();
            let line = serde_json::json!({
                "trial": trial, "mean_of": trial.is_none().then_some(&members), "threshold": binary.then_some(threshold), "images": all.rows.len(), "metrics": figures,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let of = |class: u32| all.rows.iter().filter(|r| r.label == class).count();
        let images = counted(all.rows.len(), "test image");
        if binary {
            writeln!(
                out,
                "{}: {images}, {} {}; threshold {threshold:.4} from validation ({})",
                tested.model,
                of(all.positive),
                all.classes[all.positive as usize],
                record.spec.objective.operating_point
            )?;
        } else {
            let counts = (0..all.classes.len() as u32).map(of);
            let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
            let each = if least == most { format!("{least}") } else { format!("{least} to {most}") };
            writeln!(out, "{}: {images}, {each} of each of {} classes", tested.model, all.classes.len())?;
            writeln!(out, "  means over classes; the class with the highest score is called")?;
        }
        for (name, value, interval) in &tested.figures {
            let value = value.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
            let interval = interval.map_or_else(String::new, |i| format!("  {:.3} to {:.3}", i.low, i.high));
            writeln!(out, "  {name:<12} {value}{interval}")?;
        }
        if let Some(value) = own {
            writeln!(out, "  {objective} {value:.4}, at a threshold chosen on these images")?;
        }
    }
    if !global.json && !global.quiet {
        writeln!(out, "{method}")?;
        let best = record.ranking().first().map(|trial| trial.number);
        if let Some(words) = best.and_then(|best| answer(best, &members)) {
            writeln!(out, "{words}")?;
        }
    }
    Ok(Exit::Done)
}

/// Which of the tested trials is the answer, given which is best on validation; `None` where that one alone was tested.
fn answer(best: TrialNumber, tested: &[TrialNumber]) -> Option<String> {
    match tested {
        [only] if *only == best => None,
        [first, ..] if *first == best => {
            Some("The first trial, best on validation, is the answer; the others are for comparison.".to_owned())
        }
        _ if tested.contains(&best) => {
            Some(format!("Trial {best}, now best on validation, is the answer; the others are for comparison."))
        }
        _ => Some(format!("Trial {best}, best on validation, was not tested: none of these figures is its own.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_best_on_validation_and_no_other() {
        let said = |best, tested: &[u32]| {
            let tested: Vec<TrialNumber> = tested.iter().map(|n| TrialNumber(*n)).collect();
            answer(TrialNumber(best), &tested).unwrap_or_default()
        };
        assert_eq!(said(3, &[3]), "");
        assert!(said(3, &[3, 1]).starts_with("The first trial, best on validation"));
        assert!(said(1, &[3, 1]).starts_with("Trial 1, now best"));
        for tested in [&[3][..], &[3, 1]] {
            assert!(said(12, tested).starts_with("Trial 12, best on validation, was not tested"));
        }
    }
}
