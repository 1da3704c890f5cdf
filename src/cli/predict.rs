//! `hpsearch predict`: scores images with an exported model.

use super::args::{Global, complain, put};
use super::exit::{CliError, Exit};
use super::export::{choice, write_model};
use crate::data::decode;
use crate::fsx;
use crate::model::{CARD, Choice, Model, Opinion, Unlike};
use crate::nn::attribution::Weighing;
use crate::runner::device;
use crate::spec::{Device, Devices};
use crate::wording::counted;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::io::Write;
use std::path::{Path, PathBuf};
use strum::VariantNames;

/// Score images with a model that `hpsearch export --out` wrote, or with one of a study
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The folder with the model and its card; or a study file or the name of a study, whose best trial, or what `--trial`
    /// names, is exported to a temporary folder first
    pub model: PathBuf,
    /// Images (JPEG, PNG or DICOM), or folders of them, searched through
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Of a study: the trial whose model is used, `best` or a number; or `mean`: the mean of all finalists' scores
    #[arg(long, value_name = "N", value_parser = choice)]
    pub trial: Option<Choice>,
    /// Write a table: image, decision, a score for each class, remarks, error
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Draw for every image which places of it speak for the positive class, as PNG files in a new folder; with more than two
    /// classes, for the class that is decided for
    #[arg(long, value_name = "DIR")]
    pub explain: Option<PathBuf>,
    /// Weigh the activations of this stage of the network instead of one that fits the size of the images: later ones are
    /// coarser, earlier ones know less
    #[arg(long, value_name = "STAGE", requires = "explain")]
    pub explain_stage: Option<String>,
    /// Weigh them by this method instead of the one that fits the stage: hirescam, gradcam or layercam
    #[arg(long, value_name = "METHOD", requires = "explain", value_parser = methods())]
    pub explain_method: Option<Weighing>,
    /// Where to compute: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    pub device: Devices,
}

fn methods() -> impl TypedValueParser<Value = Weighing> {
    PossibleValuesParser::new(Weighing::VARIANTS).try_map(|name| name.parse::<Weighing>())
}

/// What the model says of an image, and its heat map if there is one; or why there is nothing.
type Scored = Result<(Opinion, Option<Heat>), String>;

/// An image's heat map.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
struct Heat {
    /// The PNG file, as it is shown.
    file: String,
    /// The class that it speaks of.
    class: String,
    /// The stage whose activations are weighed, and how.
    stage: String,
    method: Weighing,
    /// Where most speaks for the class: shares of the image's width and height from its upper left corner. `None` if nothing
    /// does.
    peak: Option<[f64; 2]>,
}

/// Scores the images and prints or writes what the model says.
///
/// # Errors
/// If the model cannot be used, there are no images, or the table or a heat map cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let doing = || format!("use the model in `{}`", args.model.display());
    let device = device::resolve(&args.device)
        .map_err(|e| CliError::new("find the device", e).exit(Exit::Missing))?
        .first()
        .copied()
        .unwrap_or(Device::Cpu);
    let files = found(&args.images)?;
    if files.is_empty() {
        let why = "there are no .jpg, .jpeg, .png or DICOM files";
        return Err(CliError::new("find images", why).exit(Exit::Missing));
    }
    if let Some(table) = args.csv.as_deref().filter(|table| *table != Path::new("-")) {
        may_be_written(table, args.explain.as_deref())?;
    }
    let model = load(&args.model, args.trial, device, global)?;
    let results = match &args.explain {
        None => {
            let opinions = model.predict(&files).map_err(|e| CliError::new(doing(), e))?;
            opinions.into_iter().map(|opinion| Ok((opinion?, None))).collect()
        }
        Some(folder) => explained(&model, &files, &args, folder)?,
    };
    let failed = results.iter().filter(|o| o.is_err()).count();
    if let Some(path) = &args.csv {
        let bytes =
            table(&model, &files, &results, args.explain.is_some()).map_err(|e| CliError::new("make the table", e))?;
        put(path, &bytes)?;
    } else {
        print(&model, &files, &results, global)?;
    }
    if !global.quiet {
        complain(&summary(&model, &results));
    }
    Ok(if failed > 0 { Exit::Error } else { Exit::Done })
}

/// Finds out before anything is scored whether a table can be put into `file`, and leaves what is there as it is. `maps`: the
/// folder of heat maps, which is made before the table is written.
fn may_be_written(file: &Path, maps: Option<&Path>) -> Result<(), CliError> {
    let doing = || format!("write `{}`", file.display());
    match std::fs::metadata(file) {
        Ok(there) if there.is_dir() => return Err(CliError::new(doing(), "it is a folder\nhint: name a file")),
        // Devices and pipes are written to as they are, and need no folder.
        Ok(there) if !there.is_file() || ["/dev", "/proc"].iter().any(|at| file.starts_with(at)) => return Ok(()),
        _ => {}
    }
    let followed = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = followed.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        let failed = |e| CliError::new(format!("{} into the folder `{}`", doing(), folder.display()), e);
        return fsx::draft_folder(folder).map(drop).map_err(failed);
    }
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if maps.is_some_and(|maps| whole(maps).starts_with(whole(folder))) {
        return Ok(());
    }
    let why = format!("there is no folder `{}`\nhint: make it first, or name another file", folder.display());
    Err(CliError::new(doing(), why))
}

/// The model in a folder, or one of a study.
fn load(from: &Path, chosen: Option<Choice>, device: Device, global: &Global) -> Result<Model, CliError> {
    let doing = || format!("use the model in `{}`", from.display());
    let load = |folder: &Path| Model::load(folder, device).map_err(|e| CliError::new(doing(), e).exit(Exit::Missing));
    let text = match from.to_str().filter(|_| !from.join(CARD).exists()) {
        Some(text) if text.ends_with(".toml") || global.studies()?.iter().any(|name| name == text) => Some(text),
        _ => None,
    };
    let Some(text) = text else {
        if chosen.is_some() {
            let why = "`--trial` chooses among the trials of a study, and this is no study";
            return Err(CliError::new(doing(), why).exit(Exit::Usage));
        }
        return load(from);
    };
    let name = global.find_study(Some(text))?;
    let choice = chosen.unwrap_or(Choice::Best);
    if !global.quiet {
        let whose = match choice {
            Choice::Best => "the best trial".to_owned(),
            Choice::Trial(number) => format!("trial {number}"),
            Choice::Mean => "the mean of the finalists".to_owned(),
        };
        complain(&format!(
            "note: taking {whose} of study `{name}` and checking it against its scores on record; \
             `hpsearch export --out DIR` does so once for all\n"
        ));
    }
    let folder = fsx::draft_folder(&std::env::temp_dir()).map_err(|e| CliError::new(doing(), e))?;
    write_model((Some(text), &name), choice, false, folder.path(), global)?;
    load(folder.path())
}

/// Images whose heat maps are held at once.
const AT_ONCE: usize = 64;

/// Scores the images, and writes a heat map of each into a new folder.
fn explained(model: &Model, files: &[PathBuf], args: &Args, folder: &Path) -> Result<Vec<Scored>, CliError> {
    let doing = || format!("write heat maps into `{}`", folder.display());
    let explainer = model
        .explainer(args.explain_stage.as_deref(), args.explain_method)
        .map_err(|e| CliError::new(doing(), e).exit(Exit::Usage))?;
    // Maps of other images or of another model are never mixed in.
    let empty = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(CliError::new(doing(), e)),
    };
    if !empty {
        let why = "it is not empty\nhint: name a new folder, or delete this one";
        return Err(CliError::new(doing(), why).exit(Exit::Usage));
    }
    std::fs::create_dir_all(folder).map_err(|e| CliError::new(doing(), e))?;
    let names = names(files);
    let mut all = Vec::with_capacity(files.len());
    for (files, names) in files.chunks(AT_ONCE).zip(names.chunks(AT_ONCE)) {
        for (result, name) in explainer.explain(files).map_err(|e| CliError::new(doing(), e))?.into_iter().zip(names) {
            all.push(match result {
                Ok((opinion, explanation)) => {
                    let file = folder.join(name);
                    let png = explanation.png().map_err(|e| CliError::new(doing(), e))?;
                    let failed = |e| CliError::new(format!("write `{}`", file.display()), e);
                    fsx::write_atomic(&file, &png).map_err(failed)?;
                    let (stage, method) = (explainer.stage().to_owned(), explainer.weighing());
                    let (file, peak) = (file.display().to_string(), explanation.peak());
                    Ok((opinion, Some(Heat { file, class: explanation.class, stage, method, peak })))
                }
                Err(error) => Err(error),
            });
        }
    }
    Ok(all)
}

/// The name of each image's heat map: the image's with the ending `.png`; of equal names all but the first get the first
/// free number from 2 on. Letters that differ in case only are equal, as in the folders of some systems.
fn names(files: &[PathBuf]) -> Vec<String> {
    let stem = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut taken: std::collections::HashSet<String> = files.iter().map(|file| stem(file).to_lowercase()).collect();
    let mut given = std::collections::HashSet::new();
    let name = |file| {
        let stem = stem(file);
        let mut name = stem.clone();
        let mut number = 1;
        // A numbered name must be no image's own.
        while !(if number == 1 { given.insert(name.to_lowercase()) } else { taken.insert(name.to_lowercase()) }) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        name + ".png"
    };
    files.iter().map(name).collect()
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
fn remarks(opinion: &Opinion, heat: Option<&Heat>) -> Vec<String> {
    let seen = opinion.seen.as_ref().map(|set| format!("was a {set} image"));
    let [width, height] = opinion.size;
    let unlike: Vec<String> = opinion
        .unlike
        .iter()
        .map(|what| match what {
            Unlike::Features => format!("features (distance {:.1})", opinion.distance),
            Unlike::Size | Unlike::Shape => format!("{what} ({width} x {height})"),
            Unlike::Colour => format!("colour ({:.2})", opinion.colour),
            Unlike::Brightness => format!("brightness ({:.0} grey levels off)", opinion.shift.unwrap_or(f64::NAN)),
        })
        .collect();
    let unlike = (!unlike.is_empty()).then(|| format!("unlike the study's images in {}", unlike.join(", ")));
    let heat = heat.map(|heat| match heat.peak {
        Some([x, y]) => {
            format!("{} most at {:.0} %, {:.0} %: {}", heat.class, 100.0 * x, 100.0 * y, heat.file)
        }
        None => format!("nothing speaks for {}: {}", heat.class, heat.file),
    });
    seen.into_iter().chain(unlike).chain(heat).collect()
}

fn print(model: &Model, files: &[PathBuf], results: &[Scored], global: &Global) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let card = &model.card;
    for (file, result) in files.iter().zip(results) {
        if global.json {
            let file = file.display().to_string();
            let json = match result {
                Ok((opinion, None)) => serde_json::json!({ "image": file, "opinion": opinion }),
                Ok((opinion, Some(heat))) => serde_json::json!({ "image": file, "opinion": opinion, "map": heat }),
                Err(error) => serde_json::json!({ "image": file, "error": error }),
            };
            writeln!(out, "{json}")?;
            continue;
        }
        match result {
            Ok((opinion, heat)) => {
                let score = match card.classes.len() {
                    2 => opinion.scores[card.positive as usize],
                    _ => opinion.scores.iter().copied().fold(0.0, f32::max), // of the class that is decided for
                };
                let remarks = remarks(opinion, heat.as_ref());
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
    results: &[Scored],
    explained: bool,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let classes = &model.card.classes;
    let mut csv = csv::Writer::from_writer(Vec::new());
    let scores = classes.iter().map(|class| format!("score.{class}"));
    let head = ["image", "decision"].into_iter().map(str::to_owned).chain(scores);
    let after = ["distance", "width", "height", "colour", "shift", "unlike", "seen", "error"];
    let heat: &[&str] =
        if explained { &["map", "map.class", "map.stage", "map.method", "map.x", "map.y"] } else { &[] };
    csv.write_record(head.chain(after.iter().chain(heat).map(|&name| name.to_owned())))?;
    for (file, result) in files.iter().zip(results) {
        let mut row = vec![file.display().to_string()];
        match result {
            Ok((opinion, heat)) => {
                row.push(opinion.decision.clone());
                row.extend(opinion.scores.iter().map(f32::to_string));
                row.push(opinion.distance.to_string());
                row.extend(opinion.size.map(|side| side.to_string()));
                row.push(opinion.colour.to_string());
                row.push(opinion.shift.map_or_else(String::new, |shift| shift.to_string()));
                row.push(opinion.unlike.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
                row.push(opinion.seen.clone().unwrap_or_default());
                row.push(String::new());
                if let Some(Heat { file, class, stage, method, peak }) = heat {
                    row.extend([file.clone(), class.clone(), stage.clone(), method.to_string()]);
                    row.extend([0, 1].map(|axis| peak.map_or_else(String::new, |place| place[axis].to_string())));
                }
            }
            Err(error) => {
                row.extend(std::iter::repeat_n(String::new(), classes.len() + 8));
                row.push(error.clone());
                row.extend(heat.iter().map(|_| String::new()));
            }
        }
        csv.write_record(row)?;
    }
    Ok(csv.into_inner()?)
}

/// `12 images: 5 PNEUMONIA, 6 NORMAL; 1 could not be read`.
fn summary(model: &Model, results: &[Scored]) -> String {
    let opinions = || results.iter().flatten().map(|(opinion, _)| opinion);
    let count = |class: &String| opinions().filter(|o| o.decision == *class).count();
    let decided: Vec<String> =
        model.card.classes.iter().rev().map(|class| format!("{} {class}", count(class))).collect();
    let failed = results.iter().filter(|o| o.is_err()).count();
    let failed = if failed == 0 { String::new() } else { format!("; {failed} could not be read") };
    let unlike = opinions().filter(|o| !o.unlike.is_empty()).count();
    let unlike = if unlike == 0 { String::new() } else { format!("; {unlike} unlike the study's images") };
    format!("{}: {}{unlike}{failed}\n", counted(results.len(), "image"), decided.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_heat_map_has_a_name_of_its_own() {
        let files = ["a/x.png", "b/x.jpg", "b/x-2.dcm", "c/X.png", "d/study.1", "e/study.2", "IM0001", "f/x-3.png"];
        let names = names(&files.map(PathBuf::from));
        assert_eq!(names[..3], ["x.png", "x-4.png", "x-2.png"]);
        assert_eq!(names[3..], ["X-5.png", "study.png", "study-2.png", "IM0001.png", "x-3.png"]);
    }

    #[test]
    fn whether_a_table_can_be_written_is_known_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let (table, maps) = (folder.path().join("scores.csv"), folder.path().join("out/maps"));
        assert!(may_be_written(&table, None).is_ok() && !table.exists());
        std::fs::write(&table, "old").unwrap();
        assert!(may_be_written(&table, None).is_ok() && may_be_written(Path::new("/dev/null"), None).is_ok());
        assert_eq!(std::fs::read(&table).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let refused = |file: &Path, maps: Option<&Path>| may_be_written(file, maps).unwrap_err().render(false);
        assert!(refused(folder.path(), None).contains("it is a folder"));
        let gone = refused(&maps.join("scores.csv"), None);
        assert!(gone.contains(&format!("there is no folder `{}`", maps.display())), "{gone}");
        // Heat maps make their folder, and those above it, but none beneath.
        for made in ["out/scores.csv", "out/maps/scores.csv"] {
            assert!(may_be_written(&folder.path().join(made), Some(maps.as_path())).is_ok(), "{made}");
        }
        assert!(refused(&maps.join("more/scores.csv"), Some(maps.as_path())).contains("there is no folder"));
        let forbidden = refused(Path::new("/proc/scores.csv"), None);
        assert!(forbidden.contains("folder `/proc`"), "{forbidden}");
    }
}
