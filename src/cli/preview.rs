//! `hpsearch preview`: what the network will see, before anything is trained.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::data::{DataSet, sheet};
use crate::report::contact_sheet;
use crate::spec::RunnerSpec;
use std::io::Write;
use std::path::PathBuf;

/// Views shown at rising strengths.
const VIEWS: u32 = 3;

/// Draw samples of every class, and one image at rising strengths of augmentation
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// The PNG file to write
    #[arg(long, value_name = "FILE", default_value = "preview.png")]
    pub out: PathBuf,
    /// Images shown of each class
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub samples: u32,
}

/// Decodes the images unless that is done, writes the contact sheet, and prints counts and remarks on the data.
///
/// # Errors
/// If the study file has mistakes, has no images, or the data cannot be used.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let loaded = global.load(&args.study)?;
    let spec = &loaded.spec;
    let RunnerSpec::Image { data, network, augment, .. } = &spec.runner else {
        return Err(CliError::new("preview the study", "its trials are not trained on images").exit(Exit::Usage));
    };
    let data = DataSet::open(data, spec.seed, &loaded.base, &global.cache_dir(), &super::progress::Images::new(global))
        .map_err(|e| CliError::new("open the data", e).exit(Exit::Missing))?;
    let side = network.side(data.summary().size);
    let mut strips = sheet::samples(&data, args.samples as usize, side, spec.seed);
    strips.extend(sheet::strengths(&data, augment, VIEWS, side, spec.seed));
    let png = contact_sheet(&format!("{}: {side} px", spec.name), &strips)
        .map_err(|e| CliError::new("draw the preview", e))?;
    std::fs::write(&args.out, png).map_err(|e| CliError::new(format!("write `{}`", args.out.display()), e))?;
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", serde_json::json!({ "preview": args.out.to_string_lossy(), "data": data.summary() }))?;
        return Ok(Exit::Done);
    }
    for strip in &strips[..data.classes().len()] {
        writeln!(out, "{}", strip.heading)?;
    }
    if let Some(seen) = super::plan::seen(spec) {
        writeln!(out, "note: images are {seen}")?;
    }
    for remark in data.summary().remarks() {
        writeln!(out, "note: {remark}")?;
    }
    for skipped in data.skipped() {
        writeln!(out, "skipped: {} {}", skipped.path, skipped.reason)?;
    }
    writeln!(out, "wrote {}", args.out.display())?;
    Ok(Exit::Done)
}
