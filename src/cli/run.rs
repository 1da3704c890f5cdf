//! `hpsearch run`: trains what a study file asks for and is not on record yet.

use super::args::{Global, complain};
use super::exit::{CliError, Exit, store_exit};
use super::progress;
use crate::clock;
use crate::data::{DataSet, sheet};
use crate::engine::Plan;
use crate::run::{self, Elsewhere, Notifier, RunError, RunOptions, Verdict};
use crate::runner::device;
use crate::runner::image::{measured_pace, usable};
use crate::spec::{Device, Devices, RunnerSpec, StudySpec};
use crate::store::StoreError;
use crate::study::{ImagesError, Study, StudyError, WarmStartError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Run a study, or go on with it: whatever stopped it, the same command continues
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// Worker processes, instead of the study's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Worker processes on each device, instead of the study's
    #[arg(long, value_name = "N", conflicts_with = "workers", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers_per_device: Option<u32>,
    /// Threads of each worker, instead of the study's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// cpu, cuda, cuda:N, cuda:N,M or auto, instead of the study's
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Devices>,
    /// The seed, instead of the study's: this makes it another study, which needs another --state or name
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// While another run has the study, or its database cannot be reached: wait, and go on then
    #[arg(long)]
    pub wait: bool,
}

/// Runs the study to its end, and prints the best trial.
///
/// # Errors
/// If the study file has mistakes, another run holds the study, or it cannot go on.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let loaded = global.load(&args.study)?;
    let mut spec = loaded.spec;
    if let Some(workers) = args.workers {
        (spec.run.workers, spec.run.workers_per_device) = (workers, None);
    }
    spec.run.workers_per_device = args.workers_per_device.or(spec.run.workers_per_device);
    spec.run.threads = args.threads.or(spec.run.threads);
    spec.run.device = args.device.unwrap_or(spec.run.device);
    spec.seed = args.seed.unwrap_or(spec.seed);
    let (devices, found) = devices(&spec)?;
    let elsewhere = spec.cluster.clone().map(|cluster| Elsewhere::new(cluster, spec.run.device.clone()));
    if let Some(found) = found.filter(|_| !global.quiet && !global.json) {
        writeln!(std::io::stdout(), "device auto: {found}")?;
    }
    if let Some(remark) = device::remark(&spec, &devices) {
        complain(&format!("warning: {remark}\n"));
    }
    // Workers elsewhere start in other folders.
    let here = std::env::current_dir().map_err(|e| CliError::new("find the working directory", e))?;
    let whole = |path: PathBuf| if elsewhere.is_some() { here.join(path) } else { path };
    let state = whole(global.state.clone());
    let options = RunOptions {
        program: std::env::current_exe().map_err(|e| CliError::new("find this program", e))?,
        base: whole(loaded.base),
        cache_dir: whole(global.cache_dir()),
        workers: device::workers(spec.run.workers, spec.run.workers_per_device, devices.len()),
        threads: spec.run.threads,
        devices,
        silence: if elsewhere.is_some() { RunOptions::SILENCE_ELSEWHERE } else { RunOptions::SILENCE },
        elsewhere,
        patience: RunOptions::patience_with(&spec.runner),
    };
    if matches!(spec.runner, RunnerSpec::External { .. }) {
        return Err(run_error(&spec.name, RunError::External));
    }
    let mut observer = progress::observer(global);
    let mut notifier = Notifier::new(&spec, &options.base, observer.as_mut())
        .map_err(|e| CliError::new(format!("run study `{}`", spec.name), e).exit(Exit::Missing))?;
    let backend = global.backend_in(&state)?;
    let mut study = if args.wait {
        when_free(&spec.name, global, || Study::open_in(&*backend, &state, &spec, &options.base))
    } else {
        Study::open_in(&*backend, &state, &spec, &options.base)
    }
    .map_err(|e| open_error(&spec.name, e))?;
    if study.engine().orders().is_empty() && !global.quiet && !global.json {
        for warm in study.engine().warm_starts() {
            writeln!(std::io::stdout(), "note: {warm}")?;
        }
        // Before the first order: later the number cannot change.
        let pretended = spec.run.virtual_workers;
        if spec.learns() && options.workers < pretended {
            writeln!(
                std::io::stdout(),
                "note: the search decides as if {pretended} workers were under way, and there {}; with `virtual_workers = {}` in \
                 `[run]`, from the start, it knows more when it decides",
                if options.workers == 1 { "is 1".to_owned() } else { format!("are {}", options.workers) },
                options.workers
            )?;
        }
    }
    if matches!(spec.runner, RunnerSpec::Image { .. }) && !matches!(study.engine().plan(), Plan::Done(_)) {
        let doing = || format!("run study `{}`", spec.name);
        let weights = usable(&spec, &options.base).map_err(|e| CliError::new(doing(), e).exit(Exit::Missing))?;
        study.identify_weights(weights).map_err(|e| images_error(doing(), e))?;
    }
    look_at_data(&mut study, &options, global)?;
    let verdict = run::run(&mut study, &options, &mut notifier);
    for complaint in notifier.finish(verdict.as_ref().err()) {
        complain(&format!("warning: {complaint}\n"));
    }
    let verdict = verdict.map_err(|e| run_error(&spec.name, e))?;
    drop(observer);
    conclude(&study, &verdict, &args.study, global)?;
    Ok(exit_of(&verdict))
}

/// The devices of this run, and for `auto` what was found, looked for before anything else is done. Only image trials need them checked: any other
/// program is just told what the study says.
fn devices(spec: &StudySpec) -> Result<(Vec<Device>, Option<String>), CliError> {
    match (&spec.runner, &spec.run.device) {
        _ if spec.cluster.is_some() => Ok((vec![Device::Cpu], None)), // workers look where they are
        (RunnerSpec::Image { .. }, devices) => {
            device::found(devices).map_err(|e| CliError::new("find the device", e).exit(Exit::Missing))
        }
        (_, devices) => Ok((devices.each(), None)),
    }
}

/// Opens the study as soon as no other run has it and, if a server keeps it, that can be reached.
fn when_free(name: &str, global: &Global, open: impl Fn() -> Result<Study, StudyError>) -> Result<Study, StudyError> {
    /// Between two looks.
    const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
    let mut told = String::new();
    loop {
        let why = match open() {
            Err(StudyError::Store(StoreError::Locked { holder, .. })) => {
                let who = holder.map_or_else(|| "another run".to_owned(), |holder| holder.to_string());
                format!("for the end of study {name}'s run: {who}")
            }
            Err(
                StudyError::Store(StoreError::Unreachable { place, source })
                | StudyError::WarmStart(WarmStartError::Store {
                    source: StoreError::Unreachable { place, source }, ..
                }),
            ) => {
                let cause = source.source().map_or_else(String::new, |cause| format!(": {cause}"));
                format!("for {place}: {source}{cause}")
            }
            opened => return opened,
        };
        if why != told && !global.quiet {
            complain(&format!("waiting {why}\n"));
        }
        told = why;
        std::thread::sleep(PAUSE);
    }
}

/// Opens the images of an image study before any worker starts, so that bad data ends the run at once and does not fail
/// every trial; prints their counts, and stores the counts and two pictures for the report.
fn look_at_data(study: &mut Study, options: &RunOptions, global: &Global) -> Result<(), CliError> {
    let RunnerSpec::Image { data, .. } = study.spec().runner.clone() else { return Ok(()) };
    let (name, seed) = (study.spec().name.clone(), study.spec().seed);
    let data = DataSet::open(&data, seed, &options.base, &options.cache_dir, &progress::Images::new(global))
        .map_err(|e| CliError::new("open the data", e).exit(Exit::Missing))?;
    if !global.quiet && !global.json {
        let mut out = std::io::stdout().lock();
        for strip in sheet::samples(&data, 1, data.summary().size, seed) {
            writeln!(out, "{}", strip.heading)?;
        }
        for remark in data.summary().remarks() {
            writeln!(out, "note: {remark}")?;
        }
    }
    for skipped in data.skipped() {
        complain(&format!("warning: skipped {}: {}\n", skipped.path, skipped.reason));
    }
    let doing = || format!("go on with study `{name}`");
    study.identify_images(data.summary(), &options.base).map_err(|e| images_error(doing(), e))?;
    if study.wants_pace() {
        let device = options.devices.first().copied().unwrap_or(Device::Cpu);
        let pace = measured_pace(study.spec(), &options.base, data.summary(), device)
            .map_err(|e| CliError::new("measure this machine's pace", e).exit(Exit::Missing))?;
        study.record_pace(pace * options.devices.len().max(1) as f64).map_err(|e| CliError::new(doing(), e))?;
    }
    if let (Some(budget), false) = (study.engine().work_budget(), global.quiet || global.json) {
        let giga = |mega: u64| mega / 1000;
        let spent = giga(study.engine().charged_work());
        writeln!(std::io::stdout(), "work: {spent} of {} giga-operations are spent", giga(budget))?;
    }
    if let Some(when) = study.tested_ms().map_err(|e| CliError::store(doing(), e))? {
        let when = clock::utc(when);
        complain(&format!(
            "warning: the test images were opened on {when}; what is trained now can no longer be tested on them\n"
        ));
    }
    study.keep_pictures(&data).map_err(|e| images_error(doing(), e))
}

fn images_error(doing: String, error: ImagesError) -> CliError {
    let exit = if matches!(error, ImagesError::Others(_) | ImagesError::OtherWeights { .. }) {
        Exit::Missing
    } else {
        Exit::Error
    };
    CliError::new(doing, error).exit(exit)
}

/// A study that cannot be opened, with its exit code.
pub fn open_error(name: &str, error: StudyError) -> CliError {
    let exit = study_exit(&error);
    CliError::new(format!("open study `{name}`"), error).exit(exit)
}

/// The exit code of a study's error.
pub fn study_exit(error: &StudyError) -> Exit {
    match error {
        StudyError::Changed { .. } => Exit::Usage,
        StudyError::WarmStart(error) => warm_start_exit(error),
        StudyError::Store(error) => store_exit(error),
        _ => Exit::Error,
    }
}

/// The exit code of a study that cannot start warm.
pub fn warm_start_exit(error: &WarmStartError) -> Exit {
    match error {
        WarmStartError::Store { source, .. } => store_exit(source),
        WarmStartError::Missing { .. } | WarmStartError::NoFile { .. } => Exit::Missing,
        WarmStartError::Itself(_)
        | WarmStartError::Objective { .. }
        | WarmStartError::Objectives { .. }
        | WarmStartError::WhichStudy { .. }
        | WarmStartError::NothingFits(_) => Exit::Usage,
        _ => Exit::Error,
    }
}

fn run_error(name: &str, error: RunError) -> CliError {
    match error {
        RunError::Study(error) => {
            let exit = study_exit(&error);
            CliError::new(format!("run study `{name}`"), error).exit(exit)
        }
        RunError::Missing { .. } => CliError::new(format!("run study `{name}`"), error).exit(Exit::Missing),
        RunError::External => CliError::new(format!("run study `{name}`"), error).exit(Exit::Usage),
        error => CliError::new(format!("run study `{name}`"), error),
    }
}

fn exit_of(verdict: &Verdict) -> Exit {
    use crate::engine::DoneReason;
    match verdict {
        Verdict { signal: Some(2), .. } => Exit::Interrupted,
        Verdict { signal: Some(_), .. } => Exit::Terminated,
        Verdict { done: Some(DoneReason::FailureLimit), .. } => Exit::Error,
        Verdict { best: None, .. } => Exit::NoSuccess,
        Verdict { out_of_time: true, .. }
        | Verdict { done: Some(DoneReason::EpochBudget | DoneReason::WorkBudget), .. } => Exit::BudgetSpent,
        _ => Exit::Done,
    }
}

/// Says how it ended, which trial is best, and what to do next.
fn conclude(study: &Study, verdict: &Verdict, file: &Path, global: &Global) -> Result<(), CliError> {
    use crate::engine::DoneReason;
    if global.json {
        return Ok(()); // the last event says it
    }
    let spec = study.spec();
    let mut out = std::io::stdout().lock();
    let how = match verdict {
        Verdict { signal: Some(_), .. } => Some("interrupted; the same command goes on from the last checkpoints"),
        Verdict { out_of_time: true, .. } => Some("the wall time is spent; raise `budget.wall_time` to go on"),
        Verdict { done: Some(DoneReason::EpochBudget), .. } => {
            Some("the epochs are spent; raise `budget.epochs` to go on")
        }
        Verdict { done: Some(DoneReason::WorkBudget), .. } => {
            Some("the next trial does not fit into the rest of the work; raise `budget.work` to go on")
        }
        Verdict { done: Some(DoneReason::FailureLimit), .. } => Some("too many trials failed (`budget.max_failures`)"),
        Verdict { done: Some(DoneReason::SpaceExhausted), .. } => Some("every configuration was tried"),
        _ => None,
    };
    if let Some(how) = how {
        writeln!(out, "study {}: {how}", spec.name)?;
    }
    if let Some(best) = verdict.best
        && let Some(trial) = study.engine().trial(best.trial)
    {
        writeln!(
            out,
            "best: trial {} with {} {:.4} after {} epochs",
            best.trial, spec.objective.metric, best.value, best.epoch
        )?;
        for (name, value) in searched(spec, &trial.params) {
            writeln!(out, "  {name} = {value}")?;
        }
    } else {
        writeln!(out, "no trial has a value")?;
        for trial in study.engine().trials().filter(|t| t.failure.is_some()).take(3) {
            if let Some(failure) = &trial.failure {
                writeln!(out, "  trial {} failed: {}", trial.number, failure.reason)?;
            }
        }
    }
    let state = global.state_flag();
    if verdict.signal.is_some() {
        writeln!(out, "next: hpsearch {state}run {}", file.display())?;
    } else if verdict.best.is_some() {
        writeln!(out, "next: hpsearch {state}report {}", spec.name)?;
    }
    Ok(())
}

fn searched<'a>(
    spec: &'a StudySpec,
    params: &'a crate::space::Params,
) -> impl Iterator<Item = (&'a str, &'a crate::space::Value)> {
    spec.space.searched().filter_map(|p| Some((p.name.as_str(), params.get(&p.name)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DoneReason;

    #[test]
    fn exit_codes_tell_how_it_ended() {
        let best = crate::run::Standing { trial: Default::default(), value: 0.5, epoch: Default::default() };
        let done =
            |reason| Verdict { done: Some(reason), signal: None, out_of_time: false, best: Some(best), seconds: 1.0 };
        assert_eq!(exit_of(&done(DoneReason::Complete)).code(), 0);
        assert_eq!(exit_of(&done(DoneReason::EpochBudget)).code(), 3);
        assert_eq!(exit_of(&done(DoneReason::WorkBudget)).code(), 3);
        assert_eq!(exit_of(&done(DoneReason::FailureLimit)).code(), 1);
        assert_eq!(exit_of(&Verdict { best: None, ..done(DoneReason::Complete) }).code(), 4);
        let ended = Verdict { done: None, ..done(DoneReason::Complete) };
        assert_eq!(exit_of(&Verdict { out_of_time: true, ..ended }).code(), 3);
        assert_eq!(exit_of(&Verdict { signal: Some(2), ..ended }).code(), 130);
        assert_eq!(exit_of(&Verdict { signal: Some(15), ..ended }).code(), 143);
    }
}
