//! What the headers of a study's images say, before anything is decoded.

use super::dataset::{classes, positive};
use super::decode::{Header, Kind, Salt, probe, wide_range};
use super::manifest::{ManifestError, list};
use super::patients;
use crate::spec::{BadFilePolicy, DataSource, DataSpec, Window};
use crate::wording::counted;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Grey PNG files of 16 bits that are decoded to see which range of values they use.
const LOOKED_AT: usize = 20;

/// Values of one attribute that are listed; the rest are counted together.
const LISTED: usize = 8;

/// Counts over the files of a study.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Survey {
    /// Files listed.
    pub files: usize,
    /// DICOM files among them.
    pub dicom: usize,
    /// DICOM files whose header cannot be read.
    pub broken: usize,
    /// Different patients in DICOM headers.
    pub patients: usize,
    /// For each attribute of DICOM headers its values with their counts, most frequent first.
    pub attributes: Vec<(&'static str, Vec<(String, usize)>)>,
    /// What should be looked into, each a sentence without a full stop.
    pub remarks: Vec<String>,
}

/// Lists a study's images and reads their headers, and looks at a few grey PNG files of 16 bits; `None` if they are
/// synthetic. What a run would stumble over is among the remarks, as is that the images are not there.
///
/// # Errors
/// If the files cannot be listed.
pub fn survey(spec: &DataSpec, base: &Path) -> Result<Option<Survey>, ManifestError> {
    let path = match &spec.source {
        DataSource::Folder(path) | DataSource::Manifest(path) => base.join(path),
        DataSource::Synthetic(_) => return Ok(None),
    };
    if !path.exists() {
        let remark = format!("the images were not looked at: `{}` is not there", path.display());
        return Ok(Some(Survey { remarks: vec![remark], ..Survey::default() }));
    }
    let listing = list(spec, base)?;
    let salt = Salt::fresh();
    // What cannot be read is named when the images are opened.
    let look = |image: &super::manifest::Listed| probe(&image.file, &salt).ok();
    let kinds: Vec<Option<Kind>> = listing.images.par_iter().map(look).collect();
    let headers: Vec<(&str, &Header, bool)> = listing
        .images
        .iter()
        .zip(&kinds)
        .filter_map(|(image, kind)| Some((image.name.as_str(), kind.as_ref()?.header()?, image.patient.is_none())))
        .collect();
    let dicom = kinds.iter().flatten().filter(|kind| matches!(kind, Kind::Dicom(_))).count();
    let mut remarks = listing.notes.clone();
    let named = classes(&listing, &path).and_then(|classes| positive(spec, &classes));
    remarks.extend(named.err().map(|error| format!("a run will fail to {error}")));
    let broken = |(image, kind): (&super::manifest::Listed, &Option<Kind>)| {
        kind.as_ref().is_none_or(Kind::is_broken_picture).then(|| image.name.clone())
    };
    let broken: Vec<String> = listing.images.iter().zip(&kinds).filter_map(broken).collect();
    if let Some(first) = broken.first() {
        let (files, will) =
            (counted(broken.len(), "file"), if spec.bad_files == BadFilePolicy::Skip { "skip" } else { "refuse" });
        remarks.push(format!("a run will {will} {files} that cannot be read as a picture, such as `{first}`"));
    }
    let mut found = Survey {
        files: listing.images.len(),
        remarks,
        dicom,
        broken: dicom - headers.len(),
        patients: headers.iter().filter_map(|(_, h, _)| h.patient).collect::<HashSet<_>>().len(),
        ..Survey::default()
    };
    if !headers.is_empty() {
        let count = |of: &dyn Fn(&Header) -> Option<String>| counts(headers.iter().map(|(_, h, _)| of(h)));
        found.attributes = vec![
            ("modality", count(&|h| h.modality.clone())),
            ("view position", count(&|h| h.view.clone())),
            ("photometric interpretation", count(&|h| h.photometric.clone())),
            ("transfer syntax", count(&|h| Some(h.transfer_syntax.clone()))),
            ("burned-in annotation", count(&|h| h.burned_in.clone())),
        ];
        let nameless: Vec<(&str, &Header)> = headers.iter().filter(|h| h.2).map(|&(name, h, _)| (name, h)).collect();
        if let Err(error) = patients::check(&nameless) {
            found.remarks.push(format!("a run will fail to {error}"));
        }
    }
    let wide = |(image, kind): (&super::manifest::Listed, &Option<Kind>)| {
        matches!(kind, Some(Kind::Picture { wide: true, .. })).then(|| image.file.clone())
    };
    let wide: Vec<PathBuf> = listing.images.iter().zip(&kinds).filter_map(wide).collect();
    found.remarks.extend(dark(&wide, spec.window));
    Ok(Some(found))
}

/// Values with their counts, most frequent first.
fn counts(values: impl Iterator<Item = Option<String>>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value.unwrap_or_else(|| "not said".to_owned())).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts
}

/// A remark if 16-bit files use less than half of their range: 12-bit values stored as they are, say.
fn dark(files: &[PathBuf], window: Window) -> Option<String> {
    if !window.is_file() {
        return None;
    }
    let step = files.len().div_ceil(LOOKED_AT).max(1);
    let some: Vec<&PathBuf> = files.iter().step_by(step).collect();
    let ranges: Vec<(u16, u16)> = some.par_iter().filter_map(|file| wide_range(file)).collect();
    let (low, high) = (ranges.iter().map(|r| r.0).min()?, ranges.iter().map(|r| r.1).max()?);
    (high < 1 << 15).then(|| {
        format!(
            "{} of 16 bits will be dark: values go from {low} to {high} of 65535 ({} looked at)\n\
             hint: `window = \"range\"` in `[data]`, or the same for all: \
             `window = {{ center = {}, width = {} }}`",
            counted(files.len(), "PNG file"),
            ranges.len(),
            (u32::from(high) + 1).next_power_of_two() / 2,
            (u32::from(high) + 1).next_power_of_two(),
        )
    })
}

impl Survey {
    /// The counts as lines of at most 80 columns.
    pub fn lines(&self) -> Vec<String> {
        if self.dicom == 0 {
            return Vec::new();
        }
        let broken = if self.broken > 0 { format!(", {} with a broken header", self.broken) } else { String::new() };
        let (files, patients) = (counted(self.files, "file"), counted(self.patients, "patient"));
        let mut lines = vec![format!("{files}, {} of them DICOM, of {patients}{broken}", self.dicom)];
        for (name, values) in &self.attributes {
            for (i, (value, n)) in values.iter().take(LISTED).enumerate() {
                lines.push(format!("{:<28}{n:>8}  {value:.40}", if i == 0 { name } else { "" }));
            }
            if values.len() > LISTED {
                let rest: usize = values[LISTED..].iter().map(|(_, n)| n).sum();
                lines.push(format!("{:<28}{rest:>8}  {} others", "", values.len() - LISTED));
            }
        }
        lines
    }
}
