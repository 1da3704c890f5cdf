//! Torn and corrupted files.

use super::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Collects warnings.
#[derive(Default)]
struct Ears(Mutex<Vec<String>>);

impl crate::data::Watch for Ears {
    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

/// Builds, damages one file, asks again: the damage must be told, and repaired, and nothing else computed.
fn survives(damage: impl Fn(&File, u64)) {
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
    let ears = Ears::default();
    let found = bench.cache().features(&bench.request(), &ears).unwrap();
    assert_eq!(bits(&found), expected);
    assert_eq!(bench.net.computed(), rows, "the damaged file's rows and no others");
    let heard = ears.0.into_inner().unwrap();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains(&victim.display().to_string()), "{heard:?}");
    // Repaired for good.
    let ears = Ears::default();
    assert_eq!(bits(&bench.cache().features(&bench.request(), &ears).unwrap()), expected);
    assert_eq!((bench.net.computed(), ears.0.into_inner().unwrap().len()), (0, 0));
}

#[test]
fn a_file_cut_short_anywhere_is_made_again() {
    for keep in [0.0, 0.001, 0.01, 0.3, 0.8, 0.9999] {
        survives(|file, length| file.set_len((length as f64 * keep) as u64).unwrap());
    }
}

#[test]
fn a_file_that_has_grown_is_made_again() {
    survives(|file, length| file.set_len(length + 1).unwrap());
}

#[test]
fn a_changed_byte_anywhere_is_found() {
    // In the magic, the key, the count, the offset, the digest, the table, the first and the last row.
    for at in [0.into(), 30.into(), 56.into(), 72.into(), 100.into(), 130.into(), 200.into(), 4096.into(), None] {
        survives(|file, length| {
            let at = at.unwrap_or(length - 1);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        });
    }
}

#[test]
fn a_file_of_zeros_or_garbage_is_made_again() {
    survives(|file, length| file.write_all_at(&vec![0; length as usize], 0).unwrap());
    survives(|file, length| file.write_all_at(&vec![0xA5; length as usize], 0).unwrap());
}

#[test]
fn a_sound_file_of_another_shelf_is_not_believed() {
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
    let expected = straight(&bench.request());
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
