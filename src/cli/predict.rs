//! `hpsearch predict`: scores images with an exported model.

use super::args::{Global, complain};
use super::exit::{CliError, Exit};
use crate::data::decode;
use crate::fsx;
use crate::model::{Model, Opinion};
use crate::runner::device;
use crate::spec::{Device, Devices};
use crate::wording::counted;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Score images with a model that `hpsearch export --out` wrote
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder with the model and its card
    pub model: PathBuf,
    /// Images (JPEG, PNG or DICOM), or folders of them, searched through
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Write a table: image, decision, a score for each class, remarks, error
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Where to compute: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    pub device: Devices,
}

/// Scores the images and prints or writes what the model says.
///
/// # Errors
/// If the model cannot be used, there are no images, or the table cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let doing = || format!("use the model in `{}`", args.model.display());
    let device = device::resolve(&args.device)
        .map_err(|e| CliError::new("find the device", e).exit(Exit::Missing))?
        .first()
        .copied()
        .unwrap_or(Device::Cpu);
    let model = Model::load(&args.model, device).map_err(|e| CliError::new(doing(), e).exit(Exit::Missing))?;
    let files = found(&args.images)?;
    if files.is_empty() {
        let why = "there are no .jpg, .jpeg, .png or DICOM files";
        return Err(CliError::new("find images", why).exit(Exit::Missing));
    }
    let opinions = model.predict(&files).map_err(|e| CliError::new(doing(), e))?;
    let failed = opinions.iter().filter(|o| o.is_err()).count();
    if let Some(path) = &args.csv {
        let bytes = table(&model, &files, &opinions).map_err(|e| CliError::new("make the table", e))?;
        if path == Path::new("-") {
            std::io::stdout().lock().write_all(&bytes)?;
        } else {
            let doing = || format!("write `{}`", path.display());
            fsx::write_atomic(path, &bytes).map_err(|e| CliError::new(doing(), e))?;
        }
    } else {
        print(&model, &files, &opinions, global)?;
    }
    if !global.quiet {
        complain(&summary(&model, &opinions));
    }
    Ok(if failed > 0 { Exit::Error } else { Exit::Done })
}

/// The files that the arguments stand for: files as they are, folders searched through in the order of names. The same
/// file is not listed twice.
fn found(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for argument in arguments {
        let doing = || format!("find images in `{}`", argument.display());
        if argument.is_dir() {
            search(argument, &mut files).map_err(|e| CliError::new(doing(), e).exit(Exit::Missing))?;
        } else if argument.exists() {
            files.push(argument.clone());
        } else {
            return Err(CliError::new(doing(), "there is no such file").exit(Exit::Missing));
        }
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn search(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let kind = std::fs::metadata(&path);
        let is_image = || {
            let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
            // DICOM files often have another ending or none; the index of a medium is no image.
            matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png" | "dcm" | "dicom"))
                || (path.file_name().is_some_and(|name| name != "DICOMDIR") && decode::is_dicom(&path))
        };
        match kind {
            Ok(kind) if kind.is_dir() && !path.is_symlink() => search(&path, files)?,
            Ok(kind) if kind.is_file() && is_image() => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// Remarks on an image, in words.
fn remarks(opinion: &Opinion) -> Vec<String> {
    let seen = opinion.seen.as_ref().map(|set| format!("was a {set} image"));
    let unlike = opinion.unlike.then(|| format!("unlike the training images (distance {:.1})", opinion.distance));
    seen.into_iter().chain(unlike).collect()
}

fn print(
    model: &Model,
    files: &[PathBuf],
    opinions: &[Result<Opinion, String>],
    global: &Global,
) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let card = &model.card;
    for (file, opinion) in files.iter().zip(opinions) {
        if global.json {
            let json = match opinion {
                Ok(opinion) => serde_json::json!({ "image": file, "opinion": opinion }),
                Err(error) => serde_json::json!({ "image": file, "error": error }),
            };
            writeln!(out, "{json}")?;
            continue;
        }
        match opinion {
            Ok(opinion) => {
                let score = opinion.scores[card.positive as usize];
                let remarks = remarks(opinion);
                let remarks = if remarks.is_empty() { String::new() } else { format!("  ({})", remarks.join("; ")) };
                writeln!(out, "{score:.4}  {}  {}{remarks}", opinion.decision, file.display())?;
            }
            Err(error) => writeln!(out, "error   {}: {error}", file.display())?,
        }
    }
    Ok(())
}

fn table(
    model: &Model,
    files: &[PathBuf],
    opinions: &[Result<Opinion, String>],
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let classes = &model.card.classes;
    let mut csv = csv::Writer::from_writer(Vec::new());
    let scores = classes.iter().map(|class| format!("score.{class}"));
    let head = ["image", "decision"].into_iter().map(str::to_owned).chain(scores);
    csv.write_record(head.chain(["distance", "unlike", "seen", "error"].map(str::to_owned)))?;
    for (file, opinion) in files.iter().zip(opinions) {
        let mut row = vec![file.display().to_string()];
        match opinion {
            Ok(opinion) => {
                row.push(opinion.decision.clone());
                row.extend(opinion.scores.iter().map(f32::to_string));
                row.push(opinion.distance.to_string());
                row.push(opinion.unlike.to_string());
                row.push(opinion.seen.clone().unwrap_or_default());
                row.push(String::new());
            }
            Err(error) => {
                row.extend(std::iter::repeat_n(String::new(), classes.len() + 4));
                row.push(error.clone());
            }
        }
        csv.write_record(row)?;
    }
    Ok(csv.into_inner()?)
}

/// `12 images: 5 PNEUMONIA, 6 NORMAL; 1 could not be read`.
fn summary(model: &Model, opinions: &[Result<Opinion, String>]) -> String {
    let count = |class: &String| opinions.iter().flatten().filter(|o| o.decision == *class).count();
    let decided: Vec<String> =
        model.card.classes.iter().rev().map(|class| format!("{} {class}", count(class))).collect();
    let failed = opinions.iter().filter(|o| o.is_err()).count();
    let failed = if failed == 0 { String::new() } else { format!("; {failed} could not be read") };
    let unlike = opinions.iter().flatten().filter(|o| o.unlike).count();
    let unlike = if unlike == 0 { String::new() } else { format!("; {unlike} unlike the training images") };
    format!("{}: {}{unlike}{failed}\n", counted(opinions.len(), "image"), decided.join(", "))
}
