//! `hpsearch audit`: duplicates, doubtful labels and shortcuts among a study's images.

use super::args::{Global, complain, put};
use super::exit::{CliError, Exit};
use super::progress::Images;
use crate::audit::{AuditError, Verdicts, audit};
use crate::data::Watch;
use crate::engine::{EpochReport, FailureClass};
use crate::metrics::Predictions;
use crate::report::audit::{Audit, Place, TrialsJudged};
use crate::runner::{Continue, EpochSink, Phase, SinkClosed, device};
use crate::spec::{Device, Devices};
use crate::study::{self, FINALISTS, keep_audit};
use crate::wording::{counted, listed};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Look for pictures that appear twice, doubtful labels, and shortcuts that a network could learn
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// Write all findings to this file as a table: duplicates, doubtful labels, shortcuts; `-`: standard output
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Where to compute: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    pub device: Devices,
}

/// Findings of a kind that are printed.
const SHOWN: usize = 8;

/// Shows progress of reading images and computing features.
struct Shown(Images);

impl EpochSink for Shown {
    fn epoch(&mut self, _: EpochReport) -> Result<Continue, SinkClosed> {
        Ok(Continue::Go)
    }
    fn progress(&mut self, phase: Phase, done: u64, total: u64) {
        if let Phase::Prepare(task) = phase {
            self.0.progress(task, done, total);
        }
    }
    fn warn(&mut self, message: &str) {
        self.0.warn(message);
    }
}

/// Audits the images of a study and keeps what was found for its reports.
///
/// # Errors
/// If the study file is bad, images or network are missing, or a file cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    if global.json && args.csv.as_deref() == Some(Path::new("-")) {
        let why = "`--csv -` and `--json` both write to standard output\nhint: name a file for the table";
        return Err(CliError::new("audit the images", why).exit(Exit::Usage));
    }
    let loaded = global.load(&args.study)?;
    let name = &loaded.spec.name;
    let doing = || format!("audit study `{name}`");
    let device = device::resolve(&args.device)
        .map_err(|e| CliError::new("find the device", e).exit(Exit::Missing))?
        .first()
        .copied()
        .unwrap_or(Device::Cpu);
    let dir = global.study_dir(name);
    let slot = global.slot(device, None, &dir);
    let verdicts = verdicts(name, global)?;
    let mut sink = Shown(Images::new(global));
    let found = audit(&loaded.spec, &loaded.base, verdicts.as_ref(), &slot, &mut sink).map_err(|e| {
        let exit = match &e {
            AuditError::NotImages => Exit::Usage,
            AuditError::Manifest(_) | AuditError::TooFew { .. } => Exit::Missing,
            AuditError::Image(e) if e.class() == FailureClass::BadInput => Exit::Missing,
            _ => Exit::Error,
        };
        CliError::new(doing(), e).exit(exit)
    })?;
    drop(sink);
    let folder = keep_audit(&dir, &found).map_err(|e| CliError::new(format!("write into `{}`", dir.display()), e))?;
    if let Some(path) = &args.csv {
        put(path, &table(&found).map_err(|e| CliError::new("make the table", e))?)?;
        if path == Path::new("-") {
            return Ok(Exit::Done);
        }
    }
    if global.json {
        let folder = folder.display().to_string();
        writeln!(std::io::stdout(), "{}", serde_json::json!({ "folder": folder, "audit": found }))?;
    } else {
        print(&found)?;
        if !global.quiet {
            complain(&format!("pictures in {}; `hpsearch report` shows all of it\n", folder.display()));
        }
    }
    Ok(Exit::Done)
}

/// What the leading trials of the study say of images that they were not trained on, if it was run.
fn verdicts(name: &str, global: &Global) -> Result<Option<Verdicts>, CliError> {
    let doing = || format!("read the trials of study `{name}`");
    let backend = global.backend()?;
    if !backend.exists(name).map_err(|e| CliError::store(doing(), e))? {
        return Ok(None);
    }
    let reader = backend.read(name).map_err(|e| CliError::store(doing(), e))?;
    let Some(images) = reader.images().map_err(|e| CliError::store(doing(), e))? else { return Ok(None) };
    let record =
        study::record(&*reader, &global.study_dir(name), FINALISTS).map_err(|e| CliError::record(doing(), e))?;
    let scores: Vec<&Predictions> = record.finalists.iter().map(|finalist| &finalist.validation).collect();
    let trials = record.finalists.iter().map(|finalist| finalist.trial).collect();
    Ok(Predictions::mean(&scores).map(|scores| Verdicts { images: images.digest, trials, scores }))
}

fn print(audit: &Audit) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let more = |out: &mut std::io::StdoutLock<'_>, n: usize| {
        if n > SHOWN { writeln!(out, "  and {} more", n - SHOWN) } else { Ok(()) }
    };
    let all = audit.duplicates.len();
    let across = audit.duplicates.iter().filter(|d| d.across).count();
    writeln!(out, "pictures that appear twice, of {}", counted(audit.looked_at, "image"))?;
    writeln!(out, "  {}, {across} across sets", counted(all, "pair"))?;
    let mut order: Vec<_> = audit.duplicates.iter().collect();
    order.sort_by_key(|d| !d.across); // stable: most alike first within
    for d in order.into_iter().take(SHOWN) {
        let remarks = [(d.mirrored, "mirrored"), (d.contradict(), "labels differ")];
        let remarks: Vec<&str> = remarks.iter().filter(|r| r.0).map(|r| r.1).collect();
        let line = |place: &Place| format!("{:<10} {}", place.set, place.image);
        writeln!(out, "  {:.2}  {}", d.similarity, line(&d.first))?;
        writeln!(out, "        {}  {}", line(&d.second), remarks.join(", "))?;
    }
    more(&mut out, all)?;
    let labels = &audit.labels;
    writeln!(out, "labels that the images contradict, of {}", counted(labels.judged_of(audit.developed), "image"))?;
    match labels.wrong {
        Some(wrong) => writeln!(out, "  about {wrong} wrong; {} named", labels.suspects.len())?,
        None => writeln!(out, "  not judged: the features tell the classes apart too badly")?,
    }
    if let Some(judged @ TrialsJudged { trials, images, roc_auc, features }) = &labels.trials {
        let whose = if trials.len() == 1 { "trial" } else { "the mean of trials" };
        if judged.is_better() {
            writeln!(out, "  {images} scored by {whose} {}, ROC-AUC {roc_auc:.3}", listed(trials))?;
        } else {
            writeln!(out, "  not by {whose} {}: ROC-AUC {roc_auc:.3}, features {features:.3}", listed(trials))?;
        }
    }
    for s in labels.suspects.iter().take(SHOWN) {
        writeln!(out, "  {} {:.2}, {} {:.2}  {}", s.label, s.score, s.instead, s.score_instead, s.image)?;
    }
    more(&mut out, labels.suspects.len())?;
    writeln!(out, "what tells the classes apart, ROC-AUC")?;
    for (i, s) in audit.shortcuts.iter().enumerate() {
        let interval = s.interval.map_or_else(String::new, |[low, high]| format!("  {low:.3} to {high:.3}"));
        let star = if i > 0 && s.better_than_chance() { "  better than chance" } else { "" };
        writeln!(out, "  {:<24} {:.3}{interval}{star}", s.by, s.roc_auc)?;
        if let Some((most, area)) = s.most.as_ref().filter(|_| s.better_than_chance()) {
            writeln!(out, "    most by {most} ({area:.3} alone)")?;
        }
    }
    Ok(())
}

/// All pairs, suspects and possible shortcuts, a row each. Only shortcuts fill the last three columns.
fn table(audit: &Audit) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let head = ["finding", "image", "set", "label", "other", "other_set", "other_label", "measure"];
    csv.write_record(head.into_iter().chain(["low", "high", "most"]))?;
    for d in &audit.duplicates {
        let class = |place: &Place| place.class.clone().unwrap_or_default();
        let finding = if d.across { "duplicate across sets" } else { "duplicate" };
        csv.write_record([
            finding,
            &d.first.image,
            &d.first.set,
            &class(&d.first),
            &d.second.image,
            &d.second.set,
            &class(&d.second),
            &d.similarity.to_string(),
            "",
            "",
            "",
        ])?;
    }
    for s in &audit.labels.suspects {
        let by = s.by.to_string();
        let score = s.score.to_string();
        csv.write_record(["label", &s.image, "", &s.label, &by, "", &s.instead, &score, "", "", ""])?;
    }
    for (i, s) in audit.shortcuts.iter().enumerate() {
        let finding = match i {
            0 => "picture", // as the network sees it, for comparison
            _ if s.better_than_chance() => "shortcut",
            _ => "no shortcut",
        };
        let [low, high] = [0, 1].map(|end| s.interval.map_or_else(String::new, |interval| interval[end].to_string()));
        let most = s.most.as_ref().map_or("", |(most, _)| most.as_str());
        csv.write_record([finding, "", "", "", &s.by, "", "", &s.roc_auc.to_string(), &low, &high, most])?;
    }
    Ok(csv.into_inner()?)
}
