//! A study's images: listed, checked, split, decoded, ready to be read.

use super::decode::{self, DECODER_VERSION};
use super::index::{Contents, contents};
use super::manifest::{GivenSet, Listed, Listing, ManifestError, list};
use super::patients::{self, PatientError};
use super::split::{Split, SplitError, split};
use super::store::{PixelFile, StoreError, Wanted};
use super::summary::{self, DataSummary, FoldCounts, SkippedFile};
use super::synthetic;
use super::watch::{Task, Watch};
use super::{ImageRecord, PixelSource};
use crate::digest::Digest;
use crate::spec::{BadFilePolicy, ColourMode, DataSource, DataSpec, SyntheticSpec, Window};
use crate::wording::counted;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Decoded images with their split. Cheap to open again: decoded pixels are memory-mapped from the cache folder, and
/// shared by all processes that use them.
pub struct DataSet {
    records: Vec<ImageRecord>,
    /// Position of each record's pixels in the pixel file; images with equal bytes share one.
    slots: Vec<usize>,
    pixels: PixelFile,
    window: Window,
    split: Split,
    summary: DataSummary,
}

impl DataSet {
    /// Opens the data of a study: lists and checks the files, decodes what is not cached, and splits the images
    /// by the study's `seed`. Relative paths start at `base`, the study file's folder; decoded pixels are cached in
    /// `cache_dir`.
    ///
    /// # Errors
    /// If files are missing or, under [`BadFilePolicy::Fail`], broken (all are reported at once), if a class has too
    /// few images, or if decoded pixels cannot be stored.
    pub fn open(
        spec: &DataSpec,
        seed: u64,
        base: &Path,
        cache_dir: &Path,
        watch: &dyn Watch,
    ) -> Result<Self, DataError> {
        let folder = cache_dir.join("pixels");
        let found = match &spec.source {
            DataSource::Synthetic(made) => Found::synthetic(spec, made, &folder, watch)?,
            DataSource::Folder(path) | DataSource::Manifest(path) => {
                let place = base.join(path);
                Found::files(spec, base, &place, &folder, watch)?
            }
        };
        found.check(spec)?.divide(spec, seed)
    }

    /// Class names; indices are those of the records.
    pub fn classes(&self) -> &[String] {
        &self.summary.classes
    }

    /// Index of the positive class.
    pub fn positive(&self) -> u32 {
        self.summary.positive
    }

    /// How the images are split.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Files that are no usable images, and why.
    pub fn skipped(&self) -> &[SkippedFile] {
        &self.summary.skipped
    }

    /// Counts and peculiarities of the data.
    pub fn summary(&self) -> &DataSummary {
        &self.summary
    }
}

impl PixelSource for DataSet {
    fn records(&self) -> &[ImageRecord] {
        &self.records
    }
    fn size(&self) -> usize {
        self.summary.size
    }
    fn channels(&self) -> usize {
        self.summary.channels
    }
    fn window(&self) -> Window {
        self.window
    }
    fn pixels(&self, index: usize) -> &[u8] {
        self.pixels.pixels(self.slots[index])
    }
}

/// Images enlarged by more than this factor are mentioned in the notes: they show almost nothing.
const ENLARGED: u32 = 8;

/// Images found, before they are checked and split.
struct Found {
    classes: Vec<String>,
    records: Vec<ImageRecord>,
    slots: Vec<usize>,
    sets: Vec<Option<GivenSet>>,
    pixels: PixelFile,
    bad: Vec<SkippedFile>,
    notes: Vec<String>,
}

impl Found {
    fn files(spec: &DataSpec, base: &Path, place: &Path, folder: &Path, watch: &dyn Watch) -> Result<Self, DataError> {
        let listing = list(spec, base)?;
        let classes = classes(&listing, place)?;
        let paths: Vec<_> = listing.images.iter().map(|i| i.file.clone()).collect();
        let index = folder.join(format!("files-{}.json", Digest::of(place.as_os_str().as_encoded_bytes()).short()));
        let mut bad = Vec::new();
        let mut readable: Vec<(Listed, Contents)> = Vec::new();
        let mut tiny: Vec<(String, (u32, u32))> = Vec::new();
        for (image, contents) in listing.images.into_iter().zip(contents(&paths, &index, watch)) {
            match contents {
                Ok(contents) => {
                    let small = |&(w, h): &(u32, u32)| w.min(h).saturating_mul(ENLARGED) < spec.size;
                    tiny.extend(contents.kind.dimensions().filter(small).map(|d| (image.name.clone(), d)));
                    readable.push((image, contents));
                }
                Err(e) => bad.push(SkippedFile { path: image.name, reason: format!("cannot be read: {e}") }),
            }
        }
        patients::identify(&mut readable)?;
        let burned_in = readable.iter().filter(|(_, contents)| contents.kind.says_burned_in()).count();
        let readable: Vec<(Listed, Digest)> = readable.into_iter().map(|(i, contents)| (i, contents.digest)).collect();
        // One picture per distinct content, in the order of digests, so that the same images give the same pixel file.
        let different: BTreeMap<Digest, &Path> = readable.iter().map(|(i, d)| (*d, i.file.as_path())).collect();
        let sources: Vec<(Digest, &Path)> = different.into_iter().collect();
        let pixels = decoded(spec, &sources, folder, watch)?;
        let slot_of = |digest: &Digest| sources.partition_point(|(d, _)| d < digest);
        let mut notes = listing.notes;
        if burned_in > 0 {
            let files = counted(burned_in, "DICOM file");
            notes.push(format!("{files} with annotations burned into the picture, which a network may learn to read"));
        }
        if let Some((name, (width, height))) = tiny.first() {
            let images = counted(tiny.len(), "image");
            let times = format!("more than {ENLARGED}-fold");
            notes.push(format!(
                "{images} enlarged {times} to {0} x {0}, such as `{name}` ({width} x {height})",
                spec.size
            ));
        }
        let found = Self { records: Vec::new(), slots: Vec::new(), sets: Vec::new(), notes, classes, pixels, bad };
        let slots: Vec<usize> = readable.iter().map(|(_, d)| slot_of(d)).collect();
        Ok(found.fill(readable, slots))
    }

    /// Separates decoded files into records and bad files.
    fn fill(mut self, readable: Vec<(Listed, Digest)>, slots: Vec<usize>) -> Self {
        let mut labels: BTreeMap<Digest, BTreeMap<String, String>> = BTreeMap::new();
        for (image, digest) in &readable {
            labels.entry(*digest).or_default().entry(image.label.clone()).or_insert_with(|| image.name.clone());
        }
        for ((image, digest), slot) in readable.into_iter().zip(slots) {
            let mut skip = |reason: String| self.bad.push(SkippedFile { path: image.name.clone(), reason });
            if let Some(fault) = self.pixels.fault(slot) {
                skip(fault.to_owned());
            } else if let Some((label, other)) = labels[&digest].iter().find(|(label, _)| **label != image.label) {
                skip(format!("has the same bytes as `{other}`, whose class is {label} and not {}", image.label));
            } else {
                let class = self.classes.binary_search(&image.label).unwrap_or_default() as u32;
                self.records.push(ImageRecord { path: image.name, class, patient: image.patient, digest });
                self.slots.push(slot);
                self.sets.push(image.set);
            }
        }
        self.bad.sort();
        self
    }

    fn synthetic(spec: &DataSpec, made: &SyntheticSpec, folder: &Path, watch: &dyn Watch) -> Result<Self, DataError> {
        let (size, channels) = (spec.size as usize, decode::channels(spec.colour));
        let plan = synthetic::plan(made);
        let describe = serde_json::to_vec(&(made, size, channels)).expect("a plain spec becomes JSON");
        let version = synthetic::VERSION.to_le_bytes();
        let wanted = Wanted {
            folder,
            key: Digest::of_parts([("synthetic", &version[..]), ("spec", &describe)]),
            count: plan.len(),
            slot: size * size * channels,
            task: Task::Drawing,
        };
        let pixels = PixelFile::open(&wanted, watch, |i| {
            let grey = synthetic::radiograph(made, &plan[i], size);
            Ok(if channels == 1 { grey } else { grey.into_iter().flat_map(|v| [v; 3]).collect() })
        })?;
        let records = plan.iter().enumerate().map(|(i, image)| ImageRecord {
            path: image.name(),
            class: u32::from(image.opacity),
            patient: Some(image.patient_name()),
            digest: pixels.digest(i),
        });
        let mut numbered: Vec<(usize, ImageRecord)> = records.enumerate().collect();
        numbered.sort_by(|a, b| a.1.path.cmp(&b.1.path));
        let (slots, records): (Vec<_>, Vec<_>) = numbered.into_iter().unzip();
        let sets = vec![None; records.len()];
        let classes = synthetic::CLASSES.map(str::to_owned).to_vec();
        let notes =
            vec!["the images are synthetic: they show that the program works, and nothing about medicine".into()];
        Ok(Self { classes, records, slots, sets, pixels, bad: Vec::new(), notes })
    }

    /// Refuses bad files if the policy forbids them, and classes without a usable image.
    fn check(self, spec: &DataSpec) -> Result<Self, DataError> {
        if spec.bad_files == BadFilePolicy::Fail && !self.bad.is_empty() {
            return Err(DataError::BadFiles { files: self.bad });
        }
        let counts = summary::counts(&self.records, self.classes.len(), 0..self.records.len());
        match counts.iter().position(|&n| n == 0) {
            Some(class) => Err(DataError::NoUsable { class: self.classes[class].clone(), skipped: self.bad.len() }),
            None => Ok(self),
        }
    }

    fn divide(self, spec: &DataSpec, seed: u64) -> Result<DataSet, DataError> {
        let positive = positive(spec, &self.classes)?;
        let split = split(&self.records, &self.sets, &self.classes, &spec.split, seed)?;
        let count = |images: &[usize]| summary::counts(&self.records, self.classes.len(), images.iter().copied());
        let all: Vec<usize> = (0..self.records.len()).collect();
        let fold = |f: &super::split::Fold| FoldCounts { train: count(&f.train), validation: count(&f.validation) };
        let summary = DataSummary {
            positive: positive as u32,
            synthetic: matches!(spec.source, DataSource::Synthetic(_)),
            size: spec.size as usize,
            channels: decode::channels(spec.colour),
            images: count(&all),
            folds: split.folds.iter().map(fold).collect(),
            test: count(&split.test),
            dropped: count(&split.dropped),
            given_validation: split.given_validation,
            patients: summary::patients(&self.records),
            duplicates: summary::duplicates(&self.records),
            digest: summary::identity(&self.records, &self.classes, &split),
            classes: self.classes,
            skipped: self.bad,
            notes: self.notes,
        };
        Ok(DataSet {
            records: self.records,
            slots: self.slots,
            pixels: self.pixels,
            window: spec.window,
            split,
            summary,
        })
    }
}

fn decoded(
    spec: &DataSpec,
    sources: &[(Digest, &Path)],
    folder: &Path,
    watch: &dyn Watch,
) -> Result<PixelFile, StoreError> {
    let (size, channels) = (spec.size as usize, decode::channels(spec.colour));
    let contents: Vec<u8> = sources.iter().flat_map(|(digest, _)| *digest.as_bytes()).collect();
    let format = [DECODER_VERSION, spec.size, matches!(spec.colour, ColourMode::Rgb).into()];
    let format: Vec<u8> = format.iter().flat_map(|v| v.to_le_bytes()).collect();
    let window = serde_json::to_vec(&spec.window).expect("a plain window becomes JSON");
    let wanted = Wanted {
        folder,
        key: Digest::of_parts([("decoded", &format[..]), ("window", &window), ("contents", &contents)]),
        count: sources.len(),
        slot: size * size * channels,
        task: Task::Decoding,
    };
    PixelFile::open(&wanted, watch, |i| {
        let (digest, path) = sources[i];
        let bytes = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
        if Digest::of(&bytes) != digest {
            return Err("changed while it was being read".to_owned());
        }
        decode::decode(&bytes, size, spec.colour, spec.window).map_err(|e| e.to_string())
    })
}

/// The classes of the files listed: two or more, with files of each.
pub(super) fn classes(listing: &Listing, place: &Path) -> Result<Vec<String>, DataError> {
    let classes: Vec<String> = listing.classes.iter().cloned().collect();
    let place = place.display().to_string();
    if let [class] = classes.as_slice() {
        return Err(DataError::OneClass { class: class.clone(), place });
    }
    let has_files = |class: &str| listing.images.iter().any(|image| image.label == class);
    let empty: BTreeSet<&str> = classes.iter().map(String::as_str).filter(|class| !has_files(class)).collect();
    if empty.is_empty() {
        return Ok(classes);
    }
    Err(DataError::EmptyClass { classes: empty.into_iter().collect::<Vec<_>>().join("`, `"), place })
}

/// Index of the positive class: the one that the study names, else the last.
pub(super) fn positive(spec: &DataSpec, classes: &[String]) -> Result<usize, DataError> {
    let Some(name) = &spec.positive else { return Ok(classes.len() - 1) };
    let none = || DataError::NoPositive { name: name.clone(), classes: classes.join(", ") };
    classes.iter().position(|class| class == name).ok_or_else(none)
}

/// At most this many bad files are listed in a message.
const NAMED: usize = 100;

fn describe(files: &[SkippedFile]) -> String {
    let mut lines: Vec<String> = files.iter().take(NAMED).map(|f| format!("  {}: {}", f.path, f.reason)).collect();
    if files.len() > NAMED {
        lines.push(format!("  and {} more", files.len() - NAMED));
    }
    lines.join("\n")
}

/// Why a study's data cannot be used. Messages fit after "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The files could not be listed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Broken files, under the policy that forbids them.
    #[error(
        "use {}:\n{}\nhint: repair or remove them, or set `bad_files = \"skip\"` to leave them out",
        counted(files.len(), "file"), describe(files)
    )]
    BadFiles { files: Vec<SkippedFile> },
    /// Only one class.
    #[error(
        "find two classes in `{place}`: there is only `{class}`\nhint: every class needs a folder or label of its own"
    )]
    OneClass { class: String, place: String },
    /// Class folders without files.
    #[error("find images of `{classes}` in `{place}`: the folder is empty\nhint: add images, or remove the folder")]
    EmptyClass { classes: String, place: String },
    /// A class without a usable image.
    #[error("use any image of class `{class}`: all were among the {skipped} that were skipped")]
    NoUsable { class: String, skipped: usize },
    /// The positive class is not one of the classes.
    #[error("find the positive class `{name}`: the classes are {classes}")]
    NoPositive { name: String, classes: String },
    /// The images cannot be divided.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// Patients of DICOM files cannot be told apart.
    #[error(transparent)]
    Patient(#[from] PatientError),
    /// Decoded images could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
