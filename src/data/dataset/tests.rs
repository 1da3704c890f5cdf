use super::*;
use crate::data::{KERMANY_PATIENT, Quiet};
use crate::spec::{SplitSpec, ValidationPolicy, Window};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbImage, RgbaImage};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// A folder of images and a cache beside it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("data").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// A small PNG, different for every number.
    fn png(&self, name: &str, number: u32) {
        picture(number).save_with_format(self.file(name), ImageFormat::Png).unwrap();
    }

    fn classes(&self, prefix: &str, each: u32) {
        for i in 0..each {
            self.png(&format!("{prefix}NORMAL/n{i}.png"), 2 * i + prefix.len() as u32 * 1000);
            self.png(&format!("{prefix}SICK/s{i}.png"), 2 * i + 1 + prefix.len() as u32 * 1000);
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).unwrap();
    }

    fn open(&self, spec: &DataSpec) -> Result<DataSet, DataError> {
        DataSet::open(spec, 1, self.dir.path(), &self.dir.path().join("cache"), &Quiet)
    }
}

fn picture(number: u32) -> GrayImage {
    // The first row encodes the number, so no two are alike.
    let digit = |x: u32| (number >> (4 * x).min(31) & 15) as u8 * 16;
    GrayImage::from_fn(12, 10, |x, y| Luma([if y == 0 { digit(x) } else { (x * 20 + y * 3 + number % 40) as u8 }]))
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = GrayImage::from_fn(width, height, |x, _| Luma([if x * 2 < width { 20 } else { 220 }]));
    JpegEncoder::new(&mut bytes).encode_image(&image).unwrap();
    bytes
}

fn spec() -> DataSpec {
    DataSpec {
        source: DataSource::Folder("data".into()),
        positive: None,
        patient: None,
        bad_files: BadFilePolicy::Fail,
        colour: ColourMode::Grey,
        size: 8,
        window: Window::File,
        split: SplitSpec { validation: 0.25, test: 0.2, policy: ValidationPolicy::Auto, folds: None },
    }
}

fn skipping() -> DataSpec {
    DataSpec { bad_files: BadFilePolicy::Skip, ..spec() }
}

#[test]
fn class_folders_become_records_in_the_order_of_names() {
    let place = Place::new();
    place.classes("", 10);
    place.write(".DS_Store", b"x");
    place.write("NORMAL/.DS_Store", b"x");
    let data = place.open(&spec()).unwrap();
    assert_eq!(data.classes(), ["NORMAL", "SICK"]);
    assert_eq!(data.positive(), 1);
    assert_eq!(data.records().len(), 20);
    assert!(data.records().windows(2).all(|w| w[0].path < w[1].path));
    assert_eq!(data.summary().images, [10, 10]);
    assert_eq!(data.summary().test, [2, 2]);
    assert_eq!(data.summary().folds[0], FoldCounts { train: vec![6, 6], validation: vec![2, 2] });
    let record = data.records().iter().position(|r| r.path == "SICK/s3.png").unwrap();
    let bytes = fs::read(place.file("SICK/s3.png")).unwrap();
    assert_eq!(data.pixels(record), decode::decode(&bytes, 8, ColourMode::Grey, Window::File).unwrap());
}

#[test]
fn set_folders_are_found_in_any_case_and_other_folders_are_noted() {
    let place = Place::new();
    place.classes("Train/", 20);
    place.classes("test/", 5);
    place.classes("VAL/", 1);
    place.classes("chest_xray/", 3);
    place.write("__MACOSX/x", b"x");
    let data = place.open(&spec()).unwrap();
    assert_eq!(data.summary().test, [5, 5]);
    assert_eq!(data.summary().folds[0].validation, [5, 5], "a quarter of 21 and of 21, anew");
    let remarks = data.summary().remarks().join("\n");
    assert!(remarks.contains("folders beside the sets were left out: chest_xray"), "{remarks}");
    assert!(remarks.contains("validation set that came with the data was merged"), "{remarks}");
}

#[test]
fn nothing_is_decoded_twice_and_damaged_files_are_built_again() {
    struct Count(AtomicUsize);
    impl Watch for Count {
        fn progress(&self, task: Task, _: u64, _: u64) {
            self.0.fetch_add(usize::from(task == Task::Decoding), Ordering::SeqCst);
        }
    }
    let place = Place::new();
    place.classes("", 6);
    let open = || {
        let count = Count(AtomicUsize::new(0));
        let data = DataSet::open(&spec(), 1, place.dir.path(), &place.dir.path().join("cache"), &count).unwrap();
        (count.0.into_inner(), data)
    };
    let (decoded, first) = open();
    assert_eq!(decoded, 12);
    let (decoded, again) = open();
    assert_eq!(decoded, 0);
    assert_eq!(first.summary(), again.summary());
    let stored = fs::read_dir(place.dir.path().join("cache/pixels")).unwrap().map(|e| e.unwrap().path());
    let stored = stored.into_iter().find(|p| p.extension().is_some_and(|e| e == "pixels")).unwrap();
    let whole = fs::read(&stored).unwrap();
    drop((first, again));
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    for torn in [&whole[..whole.len() / 2], &whole[..whole.len() - 1], &[], &flipped] {
        fs::remove_file(&stored).unwrap();
        fs::write(&stored, torn).unwrap();
        assert_eq!(open().0, 12);
        assert_eq!(fs::read(&stored).unwrap(), whole);
    }
}

#[test]
fn several_openers_at_once_decode_once() {
    struct Shared<'a>(&'a AtomicUsize);
    impl Watch for Shared<'_> {
        fn progress(&self, task: Task, _: u64, _: u64) {
            self.0.fetch_add(usize::from(task == Task::Decoding), Ordering::SeqCst);
        }
    }
    let place = Place::new();
    place.classes("", 6);
    let decoded = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = place.dir.path().join("cache");
                DataSet::open(&spec(), 1, place.dir.path(), &cache, &Shared(&decoded)).unwrap();
            });
        }
    });
    assert_eq!(decoded.into_inner(), 12);
}

/// Broken files of every kind, each with the words that describe its fault.
fn broken(place: &Place) -> Vec<(&'static str, &'static str)> {
    place.write("SICK/empty.png", b"");
    place.write("SICK/text.png", b"this is no picture");
    let whole = jpeg(40, 40);
    place.write("SICK/cut.jpeg", &whole[..whole.len() * 2 / 3]);
    let mut png = fs::read(place.file("SICK/s0.png")).unwrap();
    png.truncate(png.len() - 20);
    place.write("SICK/cut.png", &png);
    place.write("SICK/photo.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;");
    place.write("SICK/scan.dcm", &[&[0u8; 128][..], b"DICM"].concat());
    place.write("SICK/bomb.png", &bomb());
    vec![
        ("SICK/bomb.png", "has 60000 x 60000 pixels, more than"),
        ("SICK/cut.jpeg", "is a truncated JPEG"),
        ("SICK/cut.png", "is a broken PNG"),
        ("SICK/empty.png", "is empty"),
        ("SICK/photo.png", "is a gif file: convert it"),
        ("SICK/scan.dcm", "is a broken or truncated DICOM file"),
        ("SICK/text.png", "is not an image"),
    ]
}

/// A PNG whose header declares 60,000 pixels a side.
fn bomb() -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend([60_000u32.to_be_bytes(), 60_000u32.to_be_bytes()].concat());
    header.extend([8, 0, 0, 0, 0]);
    // CRC-32 of PNG, bit by bit.
    let crc = header.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(header);
    png.extend((!crc).to_be_bytes());
    png.extend(b"\0\0\0\x00IDAT\x35\xaf\x06\x1e");
    png
}

#[test]
fn bad_files_are_all_reported_at_once_or_skipped_and_counted() {
    let place = Place::new();
    place.classes("", 10);
    let expected = broken(&place);
    let message = place.open(&spec()).err().unwrap().to_string();
    assert!(message.starts_with("use 7 files:"), "{message}");
    assert!(message.contains("hint: repair or remove them"), "{message}");
    let data = place.open(&skipping()).unwrap();
    assert_eq!(data.records().len(), 20);
    assert_eq!(data.skipped().len(), expected.len());
    for (skipped, (path, words)) in data.skipped().iter().zip(expected) {
        assert_eq!(skipped.path, path);
        assert!(skipped.reason.starts_with(words), "{skipped:?}");
        assert!(message.contains(&format!("  {path}: {words}")), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_a_bad_file() {
    let place = Place::new();
    place.classes("", 10);
    std::os::unix::fs::symlink("nowhere.png", place.file("SICK/link.png")).unwrap();
    let data = place.open(&skipping()).unwrap();
    assert_eq!(data.skipped().len(), 1);
    assert!(data.skipped()[0].reason.starts_with("cannot be read: "), "{:?}", data.skipped());
}

#[test]
fn formats_shapes_and_wrong_extensions_are_read() {
    let place = Place::new();
    place.classes("", 8);
    place.write("SICK/is_a_jpeg.png", &jpeg(30, 20));
    place.png("SICK/is_a_png.jpeg", 71);
    place.write("SICK/no_extension", &jpeg(31, 20));
    GrayImage::from_pixel(1, 1, Luma([77])).save(place.file("SICK/one_pixel.png")).unwrap();
    GrayImage::from_pixel(12_000, 1_200, Luma([90])).save(place.file("SICK/gigantic.png")).unwrap();
    let rgba = RgbaImage::from_pixel(5, 5, image::Rgba([200, 100, 50, 3]));
    rgba.save(place.file("SICK/rgba.png")).unwrap();
    let wide = image::ImageBuffer::from_pixel(9, 9, Luma([25_700u16]));
    DynamicImage::from(wide).save(place.file("SICK/wide.png")).unwrap();
    let data = place.open(&spec()).unwrap();
    let pixels = |name: &str| data.pixels(data.records().iter().position(|r| r.path.ends_with(name)).unwrap());
    assert_eq!(pixels("one_pixel.png"), [77; 64]);
    assert_eq!(pixels("gigantic.png"), [90; 64]);
    assert_eq!(pixels("wide.png"), [100; 64]);
    // .299 * 200 + .587 * 100 + .114 * 50 = 124.2: alpha plays no part.
    assert_eq!(pixels("rgba.png"), [124; 64]);
    let colours = place.open(&DataSpec { colour: ColourMode::Rgb, ..spec() }).unwrap();
    let at = colours.records().iter().position(|r| r.path.ends_with("rgba.png")).unwrap();
    assert_eq!(colours.pixels(at), [200u8, 100, 50].repeat(64));
}

#[test]
fn exif_orientation_is_applied() {
    // The left half is dark. Orientation 6 is displayed rotated clockwise: then the upper half is dark.
    let mut bytes = jpeg(32, 32);
    let mut exif = b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    exif.extend(b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0");
    bytes.splice(2..2, exif);
    let pixels = decode::decode(&bytes, 8, ColourMode::Grey, Window::File).unwrap();
    assert!(pixels[..24].iter().all(|&v| v < 60), "{pixels:?}");
    assert!(pixels[40..].iter().all(|&v| v > 180), "{pixels:?}");
    let rgb = decode::decode(&bytes, 8, ColourMode::Rgb, Window::File).unwrap();
    assert!(rgb[..72].iter().all(|&v| v < 60));
}

#[test]
fn the_same_bytes_under_two_labels_are_reported() {
    let place = Place::new();
    place.classes("", 10);
    place.png("NORMAL/twin.png", 5001);
    place.png("SICK/twin.png", 5001);
    let message = place.open(&spec()).err().unwrap().to_string();
    let words = "SICK/twin.png: has the same bytes as `NORMAL/twin.png`, whose class is NORMAL and not SICK";
    assert!(message.contains(words), "{message}");
    let data = place.open(&skipping()).unwrap();
    assert_eq!((data.records().len(), data.skipped().len()), (20, 2));
}

#[test]
fn missing_single_and_empty_classes_say_what_to_do() {
    let place = Place::new();
    let message = |place: &Place| place.open(&spec()).err().unwrap().to_string();
    assert!(message(&place).contains("it has no class folders\nhint: expected train/CLASS/*"), "{}", message(&place));
    place.png("NORMAL/a.png", 1);
    assert!(message(&place).contains("there is only `NORMAL`"), "{}", message(&place));
    fs::create_dir(place.file("SICK")).unwrap();
    assert!(message(&place).starts_with("find images of `SICK`"), "{}", message(&place));
    place.png("SICK/a.png", 2);
    place.png("SICK/b.png", 3);
    assert!(message(&place).starts_with("split class `NORMAL`: it has 1 images"), "{}", message(&place));
    let missing = DataSpec { source: DataSource::Folder("nowhere".into()), ..spec() };
    let message = place.open(&missing).err().unwrap().to_string();
    assert!(message.starts_with("find the data folder `") && message.contains("hint: unpack"), "{message}");
    let place = Place::new();
    place.classes("", 5);
    let message = place.open(&DataSpec { positive: Some("ILL".into()), ..spec() }).err().unwrap().to_string();
    assert_eq!(message, "find the positive class `ILL`: the classes are NORMAL, SICK");
}

#[test]
fn a_pipe_is_skipped_without_waiting_for_a_writer() {
    let place = Place::new();
    place.classes("", 6);
    let pipe = place.dir.path().join("data/SICK/pipe.png");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let data = place.open(&DataSpec { bad_files: BadFilePolicy::Skip, ..spec() }).unwrap();
    let skipped: Vec<String> = data.skipped().iter().map(|f| format!("{}: {}", f.path, f.reason)).collect();
    assert_eq!(skipped, ["SICK/pipe.png: cannot be read: no regular file"]);
    let refused = place.open(&spec()).err().unwrap().to_string();
    assert!(refused.starts_with("use 1 file:\n  SICK/pipe.png: "), "{refused}");
}

#[test]
fn a_tiny_image_is_mentioned_in_the_notes() {
    let place = Place::new();
    place.classes("", 6);
    let spec = DataSpec { size: 16, ..spec() };
    let notes = || place.open(&spec).unwrap().summary().notes.clone();
    assert_eq!(notes().len(), 0);
    let mut dot = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_pixel(1, 1, image::Luma([7])).write_to(&mut dot, ImageFormat::Png).unwrap();
    place.write("SICK/dot.png", dot.get_ref());
    let enlarged = notes();
    assert_eq!(enlarged, ["1 image enlarged more than 8-fold to 16 x 16, such as `SICK/dot.png` (1 x 1)"]);
    // The index stores dimensions, as it does digests.
    assert_eq!(notes(), enlarged);
}

#[test]
fn patients_come_from_names_or_the_manifest() {
    let place = Place::new();
    for i in 0..20 {
        place.png(&format!("NORMAL/NORMAL2-IM-{:04}-000{}.png", 100 + i / 2, i % 2), i);
        place.png(&format!("PNEUMONIA/person{}_bacteria_{i}.png", i / 2), 100 + i);
    }
    let spec = DataSpec { patient: Some(KERMANY_PATIENT.into()), ..spec() };
    let data = place.open(&spec).unwrap();
    let patients = data.summary().patients.clone().unwrap();
    assert_eq!((patients.patients, patients.most_images, patients.unknown), (20, 2, 0));
    let nobody = place.open(&DataSpec { patient: None, ..spec.clone() }).unwrap().summary().remarks().join("\n");
    assert!(nobody.contains("no patient is known") && data.summary().remarks().is_empty(), "{nobody}");
    place.png("NORMAL/stray.png", 999);
    let data = place.open(&spec).unwrap();
    assert_eq!(data.summary().patients.clone().unwrap().unknown, 1);
    assert!(data.summary().remarks()[0].starts_with("no patient in the name of 1 file,"));
}

#[test]
fn a_manifest_is_read_and_its_mistakes_are_reported_by_line() {
    let place = Place::new();
    let mut text = "path,label,patient,split\n".to_owned();
    for i in 0..12 {
        place.png(&format!("images/{i}.png"), i);
        let split = if i < 8 { "train" } else { "Test" };
        text += &format!("images\\{i}.png, {},p{},{split}\n", ["B", "A"][i as usize % 2], i / 2);
    }
    place.write("list.csv", text.as_bytes());
    let spec = DataSpec { source: DataSource::Manifest("data/list.csv".into()), ..spec() };
    let data = place.open(&spec).unwrap();
    assert_eq!(data.classes(), ["A", "B"]);
    assert_eq!(data.summary().test, [2, 2]);
    assert_eq!(data.records()[0].path, "images/0.png");
    assert_eq!(data.records()[0].patient.as_deref(), Some("p0"));

    text += "images/0.png,A,p1,train\n,A,p1,train\nimages/x.png,,p1,train\nimages/y.png,A,p1,holdout\nz.png,A\n";
    place.write("list.csv", text.as_bytes());
    let message = place.open(&spec).err().unwrap().to_string();
    for words in [
        "list.csv:14: names `images/0.png` again, line 2 did so already",
        "list.csv:15: has no path",
        "list.csv:16: has no label",
        "list.csv:17: has the split `holdout`",
        "list.csv:18: has 2 fields, the header has 4",
    ] {
        assert!(message.contains(words), "{words} in:\n{message}");
    }
    place.write("list.csv", b"file,label\n");
    let message = place.open(&spec).err().unwrap().to_string();
    assert!(message.contains("list.csv:1: needs the columns `path` and `label`, has: file, label"), "{message}");
}

#[test]
fn a_synthetic_set_has_patients_and_both_classes_everywhere() {
    let place = Place::new();
    let made = SyntheticSpec { images: 60, prevalence: 0.4, contrast: 0.6, seed: 3 };
    let spec = DataSpec { source: DataSource::Synthetic(made), size: 24, ..spec() };
    let data = place.open(&spec).unwrap();
    assert_eq!(data.classes(), synthetic::CLASSES);
    assert_eq!(data.summary().images, [36, 24]);
    assert!(data.summary().synthetic && data.summary().remarks()[0].contains("synthetic"));
    let patients: Vec<BTreeSet<_>> = [&data.split().folds[0].train, &data.split().test]
        .map(|side| side.iter().map(|&i| data.records()[i].patient.clone()).collect())
        .into();
    assert!(patients[0].is_disjoint(&patients[1]));
    for (i, record) in data.records().iter().enumerate() {
        assert_eq!(record.digest, Digest::of(data.pixels(i)));
    }
    let rgb = place.open(&DataSpec { colour: ColourMode::Rgb, ..spec }).unwrap();
    assert!(rgb.pixels(0).chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]));
}

#[test]
fn an_interrupted_opening_leaves_no_half_made_file() {
    struct Stop;
    impl Watch for Stop {
        fn interrupted(&self) -> bool {
            true
        }
    }
    let place = Place::new();
    place.classes("", 6);
    let cache = place.dir.path().join("cache");
    let error = DataSet::open(&spec(), 1, place.dir.path(), &cache, &Stop).err().unwrap();
    assert!(matches!(error, DataError::Store(StoreError::Interrupted)), "{error}");
    let left: Vec<_> = fs::read_dir(cache.join("pixels")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
    assert!(place.open(&spec()).is_ok());
}

#[test]
fn grey_pictures_stored_as_rgb_decode_alike_in_both_modes() {
    let rgb = RgbImage::from_fn(20, 20, |x, y| image::Rgb([(x * 9 + y) as u8; 3]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    rgb.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let bytes = bytes.into_inner();
    let grey = decode::decode(&bytes, 8, ColourMode::Grey, Window::File).unwrap();
    let colour = decode::decode(&bytes, 8, ColourMode::Rgb, Window::File).unwrap();
    assert!(colour.chunks(3).zip(&grey).all(|(c, &g)| c == [g; 3]));
}

#[test]
fn a_survey_names_what_a_run_would_stumble_over() {
    let place = Place::new();
    let remarks = |spec: &DataSpec| super::super::survey(spec, place.dir.path()).unwrap().unwrap().remarks.join("\n");
    let gone = DataSpec { source: DataSource::Folder("gone".into()), ..spec() };
    assert!(remarks(&gone).contains("gone` is not there"), "{}", remarks(&gone));
    place.classes("", 6);
    assert_eq!(remarks(&spec()), "");
    let ill = DataSpec { positive: Some("ILL".into()), ..spec() };
    assert!(remarks(&ill).contains("a run will fail to find the positive class `ILL`"), "{}", remarks(&ill));
    let nobody = DataSpec { patient: Some("(zzz[0-9]+)".into()), ..spec() };
    assert!(remarks(&nobody).contains("no patient in the name of 12 files"), "{}", remarks(&nobody));
    place.write("SICK/oops.jpg", b"oops");
    assert_eq!(remarks(&spec()), "a run will refuse 1 file that cannot be read as a picture, such as `SICK/oops.jpg`");
    let skip = DataSpec { bad_files: BadFilePolicy::Skip, ..spec() };
    assert!(remarks(&skip).contains("a run will skip 1 file"), "{}", remarks(&skip));
}
