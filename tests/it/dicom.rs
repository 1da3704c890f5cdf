//! DICOM files against pydicom (`tests/data/make_dicom.py`), and whatever bytes against panics.

use hpsearch::data::decode::{decode, decode_whole};
use hpsearch::data::{DataError, DataSet, PixelSource, Quiet, survey};
use hpsearch::spec::{ColourMode, DataSpec, RunnerSpec, Window};
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

#[derive(Deserialize)]
struct Golden {
    shown: Vec<Shown>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Shown {
    file: String,
    window: WindowText,
    channels: usize,
    pixels: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WindowText {
    Name(String),
    Level([f64; 2]),
}

#[derive(Deserialize)]
struct Refused {
    file: String,
    reason: String,
}

impl WindowText {
    fn window(&self) -> Window {
        match self {
            Self::Name(name) if name == "range" => Window::Range,
            Self::Name(_) => Window::File,
            Self::Level([center, width]) => Window::Level { center: *center, width: *width },
        }
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../data/dicom.json")).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dicom")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.dcm"))).unwrap()
}

fn colour(channels: usize) -> ColourMode {
    if channels == 1 { ColourMode::Grey } else { ColourMode::Rgb }
}

#[test]
fn pixels_are_those_of_pydicom() {
    let golden = golden();
    assert!(golden.shown.len() > 45);
    for case in golden.shown {
        let window = case.window.window();
        let (width, height, pixels) = decode_whole(&bytes(&case.file), colour(case.channels), window).unwrap();
        assert_eq!((width, height, pixels.len()), (16, 12, case.pixels.len()), "{}", case.file);
        let far = pixels.iter().zip(&case.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Decoders of lossy JPEG may round a coefficient differently; greys pass 16 bits on their way to 8.
        let allowed = if case.file.starts_with("jpeg_") && !case.file.contains("lossless") { 2 } else { 1 };
        assert!(far <= allowed, "{} {window}: {far} levels", case.file);
    }
}

#[test]
fn every_way_of_storing_the_same_values_gives_the_same_pixels() {
    for group in [
        &[
            "mono2_12",
            "implicit",
            "big_endian",
            "deflated",
            "rle_12",
            "jpeg_lossless_12",
            "j2k_12",
            "mono2_12_identity",
        ][..],
        &["mono1_12", "mono1_12_inverse", "mono2_12_inverse"],
        &["signed", "jpeg_lossless_signed", "j2k_signed", "j2k_unsigned_stream"],
        &["rgb", "rgb_planar", "rle_rgb", "j2k_rgb"],
    ] {
        for window in [Window::File, Window::Range, Window::Level { center: 300.0, width: 1200.0 }] {
            let all: Vec<_> =
                group.iter().map(|name| decode_whole(&bytes(name), ColourMode::Rgb, window).unwrap()).collect();
            let same = |i: usize| assert!(all[i] == all[0], "{} and {}, window {window}", group[i], group[0]);
            (1..group.len()).for_each(same);
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    for Refused { file, reason } in golden().refused {
        let error = decode(&bytes(&file), 32, ColourMode::Grey, Window::File).unwrap_err().to_string();
        assert!(error.contains(&reason), "{file}: {error}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in ["mono2_12", "rle_12", "jpeg_lossless_12", "j2k_12", "jpeg_ybr", "voi_table"] {
        let whole = bytes(name);
        // The last bytes of a fragment may be padding, and the item that ends a sequence may be missing.
        for length in 0..whole.len() - 10 {
            let cut = decode(&whole[..length], 16, ColourMode::Grey, Window::File);
            assert!(cut.is_err(), "{name} cut at {length} of {}", whole.len());
        }
    }
}

/// The precision of 12 bits lasts until after the resize: steps far below one of 256 levels show in their mean.
#[test]
fn narrow_values_are_widened_before_resizing() {
    let (_, _, native) =
        decode_whole(&bytes("mono2_12"), ColourMode::Grey, Window::Level { center: 2060.0, width: 4000.0 }).unwrap();
    let half =
        decode(&bytes("mono2_12"), 4, ColourMode::Grey, Window::Level { center: 2060.0, width: 4000.0 }).unwrap();
    assert_eq!(half.len(), 16);
    let mean = |pixels: &[u8]| pixels.iter().map(|&v| f64::from(v)).sum::<f64>() / pixels.len() as f64;
    assert!((mean(&native) - mean(&half)).abs() < 4.0);
}

/// The bytes of all files, in the order of names.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let files: BTreeMap<PathBuf, Vec<u8>> = std::fs::read_dir(folder())
        .unwrap()
        .flatten()
        .map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap()))
        .collect();
    assert!(files.len() > 45);
    files.into_values().collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    /// Flipped bits, changed lengths, truncation: an error or a picture, never a panic.
    #[test]
    fn no_bytes_make_the_decoder_panic(
        which in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in prop_oneof![3 => Just(1.0f64), 1 => 0.0..1.0f64],
        size in 1usize..40,
    ) {
        let mut bytes = FILES[which.index(FILES.len())].clone();
        for (at, value) in flips {
            // Not in the preamble: the file would just be no DICOM file.
            let at = 132 + at.index(bytes.len() - 132);
            bytes[at] = value;
        }
        bytes.truncate((bytes.len() as f64 * keep) as usize);
        match decode(&bytes, size, ColourMode::Grey, Window::File) {
            Ok(pixels) => prop_assert_eq!(pixels.len(), size * size),
            // What a caught panic becomes.
            Err(error) => prop_assert!(!error.to_string().contains("unforeseen"), "{}", error),
        }
    }
}

/// A file of another patient (one letter) with other pixels.
fn film(name: &str, patient: &str, number: u8) -> Vec<u8> {
    let mut bytes = bytes(name);
    let at = bytes.windows(4).position(|w| w == b"P-1 ").unwrap();
    bytes[at..at + 4].copy_from_slice(format!("{patient:<4}").as_bytes());
    let last = bytes.len() - 2;
    bytes[last] = number;
    bytes
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// Two classes of `each` films; `patient` names the patient of the n-th of a class.
    fn new(each: u8, patient: impl Fn(u8) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (offset, class) in [(0, "NORMAL"), (100, "SICK")] {
            let folder = dir.path().join("films").join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for n in 0..each {
                let ending = [".dcm", "", ".DICOM"][usize::from(n) % 3];
                let film = film("mono1_12", &patient(offset + n), offset + n);
                std::fs::write(folder.join(format!("film{n}{ending}")), film).unwrap();
            }
            std::fs::write(folder.join("DICOMDIR"), b"an index, no image").unwrap();
        }
        Self { dir }
    }

    fn spec(&self, more: &str) -> DataSpec {
        let text = format!(
            "[data]\nfolder = \"films\"\nsize = 75\n{more}\n[budget]\nn_trials = 1\n[space]\ndropout = {{ choices = [0.1, 0.2] }}\n"
        );
        match hpsearch::config::from_text(&text).unwrap_or_else(|e| panic!("{}", e.render(false))).spec.runner {
            RunnerSpec::Image { data, .. } => data,
            _ => unreachable!(),
        }
    }

    fn open(&self, more: &str) -> Result<DataSet, DataError> {
        DataSet::open(&self.spec(more), 1, self.dir.path(), &self.dir.path().join("cache"), &Quiet)
    }
}

#[test]
fn films_are_grouped_by_a_patient_who_stays_unnamed() {
    // Two films in a class and two in the other have the same patient.
    let place = Place::new(12, |n| format!("#{}", n % 100 / 2));
    let data = place.open("").unwrap();
    assert_eq!(data.records().len(), 24);
    let patients = data.summary().patients.as_ref().unwrap();
    assert_eq!((patients.patients, patients.most_images, patients.unknown), (6, 4, 0));
    let side: BTreeMap<usize, u8> = [(&data.split().test, 0), (&data.split().folds[0].train, 1)]
        .into_iter()
        .flat_map(|(images, side)| images.iter().map(move |&i| (i, side)))
        .collect();
    let mut sides: BTreeMap<&str, u8> = BTreeMap::new();
    for (i, record) in data.records().iter().enumerate() {
        let side = side.get(&i).copied().unwrap_or(2);
        assert_eq!(*sides.entry(record.patient.as_deref().unwrap()).or_insert(side), side, "a patient on two sides");
    }
    // The names are the same whatever salt the index has, and neither it nor a record names anybody.
    let named: Vec<_> = data.records().iter().map(|r| r.patient.clone()).collect();
    let digest = data.summary().digest;
    for entry in std::fs::read_dir(place.dir.path().join("cache/pixels")).unwrap().flatten() {
        let index = entry.path().extension().is_some_and(|e| e == "json");
        let kept = std::fs::read(entry.path()).unwrap();
        assert!(!index || !kept.contains(&b'#'), "{}", String::from_utf8_lossy(&kept));
    }
    std::fs::remove_dir_all(place.dir.path().join("cache")).unwrap();
    let again = place.open("").unwrap();
    assert_eq!(again.records().iter().map(|r| r.patient.clone()).collect::<Vec<_>>(), named);
    assert_eq!(again.summary().digest, digest);
}

#[test]
fn a_blank_or_overused_patient_id_is_an_error_until_patients_are_named() {
    let some_blank = Place::new(10, |n| if n == 3 { String::new() } else { format!("Q{n}") });
    let error = some_blank.open("").err().unwrap().to_string();
    assert!(error.contains("the patients of 1 DICOM file") && error.contains("NORMAL/film3.dcm"), "{error}");
    assert!(error.contains("hint: ") && !error.contains("Q4"), "{error}");
    assert!(some_blank.open("patient = \".+\"").is_ok());

    let placeholder = Place::new(10, |n| if n % 4 == 0 { "ANON".into() } else { format!("Q{n}") });
    let error = placeholder.open("").err().unwrap().to_string();
    assert!(error.contains("6 of 20 have the same Patient ID") && !error.contains("ANON"), "{error}");
    let fifth = Place::new(10, |n| if n % 100 < 2 { "ANON".into() } else { format!("Q{n}") });
    assert!(fifth.open("").is_ok(), "a fifth is not more than a fifth");
}

#[test]
fn another_window_is_another_set_of_pixels() {
    let place = Place::new(6, |n| format!("Q{n}"));
    let pixels = |more| {
        let data = place.open(more).unwrap();
        (data.window(), data.pixels(0).to_vec())
    };
    let all =
        ["", "window = \"range\"", "window = { center = 300, width = 400 }", "window = { center = 300, width = 500 }"]
            .map(pixels);
    for (i, (window, a)) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|(other, b)| window != other && a != b), "{window}");
    }
    assert_eq!(pixels("window = \"file\""), all[0]);
}

#[test]
fn check_counts_what_headers_say_and_warns_of_dark_pictures() {
    let place = Place::new(6, |n| format!("Q{n}"));
    std::fs::write(place.dir.path().join("films/SICK/film8.dcm"), film("j2k_12", "Q208", 0)).unwrap();
    let survey = survey(&place.spec(""), place.dir.path()).unwrap().unwrap();
    assert_eq!((survey.files, survey.dicom, survey.broken, survey.patients), (13, 13, 0, 13));
    let lines = survey.lines();
    assert!(lines.iter().all(|line| line.chars().count() <= 76), "{lines:#?}");
    let text = lines.join("\n");
    for part in ["MONOCHROME1", "JPEG 2000 Lossless", "12  Explicit VR Little Endian", "13  DX", "13  PA", "13  NO"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains("Q208") && survey.remarks.is_empty());

    let wide =
        |high: u16| image::ImageBuffer::from_fn(12, 10, |x, y| image::Luma([(x * 10 + y) as u16 * (high / 120)]));
    let png = place.dir.path().join("films/NORMAL/wide.png");
    wide(4095).save(&png).unwrap();
    let remarks = |more| hpsearch::data::survey(&place.spec(more), place.dir.path()).unwrap().unwrap().remarks;
    let dark = remarks("").join("\n");
    assert!(dark.contains("1 PNG file of 16 bits") && dark.contains("to 4046 of 65535"), "{dark}");
    assert!(dark.contains("width = 4096"), "{dark}");
    assert!(remarks("window = \"range\"").is_empty());
    // What is advised helps.
    let bytes = std::fs::read(&png).unwrap();
    let brightest = |window| decode_whole(&bytes, ColourMode::Grey, window).unwrap().2.into_iter().max().unwrap();
    assert_eq!(brightest(Window::File), 16);
    assert_eq!(brightest(Window::Range), 255);
    assert_eq!(brightest(Window::Level { center: 2048.0, width: 4096.0 }), 252);
    wide(65535).save(&png).unwrap();
    assert!(remarks("").is_empty());
}
