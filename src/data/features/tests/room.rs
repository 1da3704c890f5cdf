//! Disk limits, removal, and statistics.

use super::*;
use std::fs::{self, File};
use std::time::SystemTime;

fn view(bench: &Bench, view: u32) -> FeatureRequest<'_> {
    FeatureRequest { view: View::Bank { view }, ..bench.request() }
}

/// Bytes that the features of one view of the bench's images take.
fn one_view(bench: &Bench) -> u64 {
    let cache = bench.cache();
    drop(cache.features(&view(bench, 99), &Quiet).unwrap());
    let bytes = cache.stats().unwrap().bytes();
    assert_eq!(bench.limited(Some(0)).collect(false).unwrap().bytes, bytes);
    assert_eq!(cache.stats().unwrap().bytes(), 0);
    bytes
}

/// Which of the views 0..n are cached.
fn cached(bench: &Bench, n: u32) -> Vec<u32> {
    (0..n).filter(|&v| bench.cache().coverage(&view(bench, v)).unwrap().cached > 0).collect()
}

#[test]
fn the_least_recently_used_shelf_is_removed_first_but_never_one_in_use() {
    let bench = Bench::new(30);
    let limit = 3 * one_view(&bench) + 500;
    let cache = bench.limited(Some(limit));
    let ask = |v| cache.features(&view(&bench, v), &Quiet).unwrap();
    for v in [0, 1, 2] {
        drop(ask(v));
    }
    drop(ask(0));
    drop(ask(3));
    assert_eq!(cached(&bench, 9), [0, 2, 3], "1 was not asked for the longest");
    let held = ask(2);
    drop(ask(0));
    drop(ask(3));
    drop(ask(4));
    assert_eq!(cached(&bench, 9), [2, 3, 4], "2 is older than 0, but in use");
    let expected = uncached(&view(&bench, 2));
    assert_eq!(bits(&held), expected);
    assert!(cache.stats().unwrap().bytes() <= limit);
}

#[test]
fn a_limit_too_small_for_a_request_is_an_error_that_removes_nothing() {
    let bench = Bench::new(30);
    let bytes = one_view(&bench);
    let cache = bench.limited(Some(bytes * 2));
    let held = cache.features(&view(&bench, 0), &Quiet).unwrap();
    drop(cache.features(&view(&bench, 1), &Quiet).unwrap());
    bench.net.computed();
    let tight = bench.limited(Some(bytes + bytes / 2));
    let error = tight.features(&view(&bench, 2), &Quiet).unwrap_err();
    assert!(matches!(error, FeatureError::OverBudget { .. }) && error.is_lack_of_room(), "{error}");
    assert!(error.to_string().contains("hint: raise cache_size"), "{error}");
    assert_eq!(bench.net.computed(), 0);
    assert_eq!(cached(&bench, 3), [0, 1]);
    // Without the cache it can still be computed.
    assert_eq!(uncached(&view(&bench, 0)), bits(&held));
}

#[test]
fn a_full_disk_is_an_error_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = FeatureCache::open(folder.path(), None).unwrap();
    let error = cache.room.make(1 << 60).unwrap_err();
    let FeatureError::NoRoom { needed_mb, free_mb, .. } = &error else { panic!("{error}") };
    assert!(needed_mb > free_mb && *needed_mb >= 1 << 40);
    assert!(error.is_lack_of_room());
}

#[test]
fn a_shallower_cut_that_fills_the_limit_is_removed() {
    let bench = Bench::new(30);
    let deep = FeatureRequest { cut: 3, ..bench.request() };
    drop(bench.cache().features(&FeatureRequest { cut: 1, ..deep }, &Quiet).unwrap());
    let limit = bench.cache().stats().unwrap().bytes() + 1000;
    bench.limited(Some(limit)).features(&deep, &Quiet).unwrap();
    assert_eq!(bench.cache().coverage(&FeatureRequest { cut: 1, ..deep }).unwrap().cached, 0);
}

#[test]
fn predicted_bytes_are_the_bytes_then_used() {
    let bench = Bench::new(200);
    for (pooled, precision) in [(false, CachePrecision::F32), (true, CachePrecision::F16)] {
        let cache = bench.cache();
        let request = FeatureRequest { pooled, precision, view: View::Bank { view: 4 }, ..bench.request() };
        let before = cache.coverage(&request).unwrap();
        assert_eq!((before.images, before.cached), (200, 0));
        let predicted = predicted_bytes(&request.shape().unwrap(), 200, 1, precision);
        assert_eq!(before.missing_bytes, predicted);
        drop(cache.features(&request, &Quiet).unwrap());
        let after = cache.coverage(&request).unwrap();
        assert_eq!((after.cached, after.missing_bytes), (200, 0));
        let grown = after.used_bytes - before.used_bytes;
        let segments = 200u64.div_ceil(16);
        // A head and padding per file, and the description.
        assert!(
            (predicted..predicted + segments * 8192 + 1024).contains(&grown),
            "{predicted} predicted, {grown} used"
        );
    }
}

#[test]
fn predicted_bytes_of_mixed_6e_and_of_averages() {
    // 17 x 17 x 768 values of 4 bytes: 888 KB an image; 2048 averages: 8 KB.
    assert_eq!(predicted_bytes(&[17, 17, 768], 1, 1, CachePrecision::F32), 887_808 + 64);
    assert_eq!(predicted_bytes(&[17, 17, 768], 1777, 8, CachePrecision::F16), 1777 * 8 * (443_904 + 64));
    assert_eq!(predicted_bytes(&[2048], 1, 1, CachePrecision::F32), 8192 + 64);
}

#[test]
fn statistics_count_shelves_rows_and_files() {
    let bench = Bench::new(25);
    let cache = bench.cache();
    drop(cache.features(&view(&bench, 6), &Quiet).unwrap());
    let held = cache.features(&FeatureRequest { pooled: true, images: &[1, 2], ..bench.request() }, &Quiet).unwrap();
    let stats = cache.stats().unwrap();
    assert_eq!((stats.shelves.len(), stats.rows()), (2, 27));
    assert_eq!(stats.files(), bench.segments().len() as u64);
    let [old, new] = &stats.shelves[..] else { panic!("{stats:?}") };
    assert_eq!((old.rows, old.in_use), (25, false));
    assert_eq!((new.rows, new.in_use), (2, true));
    let holds = new.holds.as_ref().unwrap();
    assert!(holds.pooled && holds.cut == 3 && holds.view.is_none());
    assert_eq!(old.holds.as_ref().unwrap().view.as_ref().unwrap().1, 6);
    drop(held);
}

#[test]
fn a_collection_removes_leftovers_and_no_usable_shelf() {
    let bench = Bench::new(20);
    let cache = bench.cache();
    let root = bench.folder.path().join("features");
    drop(cache.features(&view(&bench, 0), &Quiet).unwrap());
    let held = cache.features(&view(&bench, 1), &Quiet).unwrap();
    let folder = |v: u32| shelf::Shelf::place(&root, &view(&bench, v).shelved().unwrap().key());
    // Leftovers of a killed builder and of a killed removal, a shelf that was never filled, one of an older version.
    fs::write(folder(0).join(".tmp-07-x"), [0; 100]).unwrap();
    fs::write(folder(1).join(".tmp-07-y"), [0; 100]).unwrap();
    fs::create_dir(root.join(".tmp-removed-x")).unwrap();
    fs::write(root.join(".tmp-removed-x/a.rows"), [0; 50]).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    File::create(root.join("empty/use")).unwrap();
    drop(cache.features(&view(&bench, 2), &Quiet).unwrap());
    let about = folder(2).join("about.json");
    let text = fs::read_to_string(&about).unwrap().replace("hpsearch features ", "hpsearch features 0.");
    fs::write(&about, text).unwrap();

    let told = cache.collect(true).unwrap();
    assert!(root.join("empty").exists() && folder(2).exists(), "a dry run removes nothing");
    let done = cache.collect(false).unwrap();
    assert_eq!((&told.unfinished, told.bytes), (&done.unfinished, done.bytes));
    assert_eq!(done.unfinished, [root.join(".tmp-removed-x"), folder(0).join(".tmp-07-x")]);
    let mut gone: Vec<_> = done.shelves.iter().map(|s| s.folder.clone()).collect();
    gone.sort();
    let mut expected = vec![root.join("empty"), folder(2)];
    expected.sort();
    assert_eq!(gone, expected);
    assert!(gone.iter().all(|f| !f.exists()));
    assert!(folder(1).join(".tmp-07-y").exists(), "someone may be writing there");
    assert_eq!(cached(&bench, 3), [0, 1]);
    assert_eq!(bits(&held), uncached(&view(&bench, 1)));
    let again = cache.collect(false).unwrap();
    assert_eq!((again.bytes, again.shelves.len(), again.unfinished.len()), (0, 0, 0));
}

#[test]
fn a_request_counts_as_use() {
    let bench = Bench::new(2);
    let cache = bench.cache();
    drop(cache.features(&view(&bench, 0), &Quiet).unwrap());
    let folder = cache.stats().unwrap().shelves[0].folder.clone();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    File::options().write(true).open(folder.join("use")).unwrap().set_modified(old).unwrap();
    assert_eq!(cache.stats().unwrap().shelves[0].last_used, old);
    cache.coverage(&view(&bench, 0)).unwrap();
    assert_eq!(cache.stats().unwrap().shelves[0].last_used, old, "looking is not using");
    drop(cache.features(&view(&bench, 0), &Quiet).unwrap());
    assert!(cache.stats().unwrap().shelves[0].last_used > old);
}
