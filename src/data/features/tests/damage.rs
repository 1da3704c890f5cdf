//! Torn and corrupted files.

use super::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Collects warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl crate::data::Watch for Warnings {
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

/// Builds, damages one file and requests again: the damage must be reported and repaired, and no other row computed.
fn check_repair(damage: impl Fn(&File, u64)) {
    let bench = Bench::new(150);
    let expected = bits(&bench.cache().features(&bench.request(), &Quiet).unwrap());
    let segments = bench.segments();
    assert!(segments.len() > 1, "one segment alone does not show what stays");
    let victim = &segments[segments.len() / 2];
    let rows = segment::Segment::count(victim).unwrap() as usize;
    let file = File::options().read(true).write(true).open(victim).unwrap();
    damage(&file, file.metadata().unwrap().len());
    drop(file);
    bench.net.computed();
    let warnings = Warnings::default();
    let found = bench.cache().features(&bench.request(), &warnings).unwrap();
    assert_eq!(bits(&found), expected);
    assert_eq!(bench.net.computed(), rows, "the damaged file's rows and no others");
    let heard = warnings.0.into_inner().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains(&victim.display().to_string()), "{heard:?}");
    // The repair lasts.
    let warnings = Warnings::default();
    assert_eq!(bits(&bench.cache().features(&bench.request(), &warnings).unwrap()), expected);
    assert_eq!((bench.net.computed(), warnings.0.into_inner().unwrap().len()), (0, 0));
}

#[test]
fn a_file_truncated_anywhere_is_rebuilt() {
    for keep in [0.0, 0.001, 0.01, 0.3, 0.8, 0.9999] {
        check_repair(|file, length| file.set_len((length as f64 * keep) as u64).unwrap());
    }
}

#[test]
fn a_file_that_has_grown_is_rebuilt() {
    check_repair(|file, length| file.set_len(length + 1).unwrap());
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    // In the magic, the key, the count, the offset, the digest, the table, the first and the last row.
    for at in [0.into(), 30.into(), 56.into(), 72.into(), 100.into(), 130.into(), 200.into(), 4096.into(), None] {
        check_repair(|file, length| {
            let at = at.unwrap_or(length - 1);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        });
    }
}

#[test]
fn a_file_of_zeros_or_garbage_is_rebuilt() {
    check_repair(|file, length| file.write_all_at(&vec![0; length as usize], 0).unwrap());
    check_repair(|file, length| file.write_all_at(&vec![0xA5; length as usize], 0).unwrap());
}

#[test]
fn an_intact_file_of_another_shelf_is_rejected() {
    let bench = Bench::new(10);
    let view = |view| FeatureRequest { view: View::Bank { view }, ..bench.request() };
    bench.cache().features(&view(0), &Quiet).unwrap();
    let other = bench.segments().remove(0);
    let expected = bits(&bench.cache().features(&view(1), &Quiet).unwrap());
    let place = bench.segments().into_iter().find(|path| path.parent() != other.parent()).unwrap();
    fs::copy(&other, &place).unwrap();
    assert_eq!(bits(&bench.cache().features(&view(1), &Quiet).unwrap()), expected);
}

#[test]
fn features_in_use_outlive_the_removal_of_their_damaged_file() {
    let bench = Bench::new(10);
    let cache = bench.cache();
    let held = cache.features(&bench.request(), &Quiet).unwrap();
    let expected = uncached(&bench.request());
    for path in bench.segments() {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(bits(&held), expected);
    assert_eq!(bits(&cache.features(&bench.request(), &Quiet).unwrap()), expected);
}

#[test]
fn rows_too_large_for_f16_are_an_error_and_not_infinite() {
    let mut bench = Bench::new(4);
    bench.net.gain = 1e6;
    let request = FeatureRequest { precision: CachePrecision::F16, ..bench.request() };
    let error = bench.cache().features(&request, &Quiet).unwrap_err();
    assert!(matches!(&error, FeatureError::TooLargeForF16 { image, .. } if image.starts_with("image")), "{error}");
    assert!(error.to_string().contains("hint: "), "{error}");
    let wide = FeatureRequest { precision: CachePrecision::F32, ..request };
    bench.cache().features(&wide, &Quiet).unwrap();
}
