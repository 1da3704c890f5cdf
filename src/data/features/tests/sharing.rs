//! Rows are computed once and shared by epochs, changed data sets, threads and processes.

use super::*;
use std::process::{Child, Command};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

#[test]
fn what_is_cached_is_not_computed_again() {
    let bench = Bench::new(50);
    let cache = bench.cache();
    let first = bits(&cache.features(&bench.request(), &Quiet).unwrap());
    assert_eq!(bench.net.computed(), 50);
    assert_eq!(bits(&cache.features(&bench.request(), &Quiet).unwrap()), first);
    assert_eq!(bits(&bench.cache().features(&bench.request(), &Quiet).unwrap()), first);
    assert_eq!(bench.net.computed(), 0);
}

#[test]
fn another_split_or_one_more_image_reuses_all_other_rows() {
    let bench = Bench::new(50);
    let part: Vec<usize> = (0..49).rev().collect();
    bench.cache().features(&FeatureRequest { images: &part, ..bench.request() }, &Quiet).unwrap();
    assert_eq!(bench.net.computed(), 49);
    let fold = [40, 3, 3, 17];
    let found = bench.cache().features(&FeatureRequest { images: &fold, ..bench.request() }, &Quiet).unwrap();
    assert_eq!((found.len(), bench.net.computed()), (4, 0));
    // Another data set that begins with the same pictures.
    let larger = Images::new(53);
    let all: Vec<usize> = (0..53).collect();
    let request = FeatureRequest { source: &larger, images: &all, ..bench.request() };
    let found = bench.cache().features(&request, &Quiet).unwrap();
    assert_eq!(bench.net.computed(), 4);
    assert_eq!(bits(&found), uncached(&request));
}

#[test]
fn equal_pictures_share_a_row() {
    let bench = Bench::new(6);
    let mut twice = Images::new(6);
    twice.1[5] = twice.1[0].clone();
    twice.0[5].1 = twice.0[0].1.clone();
    let request = FeatureRequest { source: &twice, ..bench.request() };
    let found = bench.cache().features(&request, &Quiet).unwrap();
    assert_eq!(bench.net.computed(), 5);
    let (mut first, mut last) = (vec![0.0; found.row_len()], vec![0.0; found.row_len()]);
    found.read(0, &mut first);
    found.read(5, &mut last);
    assert_eq!(first, last);
}

#[test]
fn several_builders_divide_the_work_and_compute_nothing_twice() {
    let mut bench = Bench::new(300);
    bench.net.pause = Duration::from_millis(2);
    let whole: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let builder = || bits(&bench.cache().features(&bench.request(), &Quiet).unwrap());
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(builder)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(bench.net.computed(), 300);
    let expected = uncached(&bench.request());
    assert!(whole.iter().all(|found| *found == expected));
}

/// Interrupts after a number of batches.
struct InterruptAfter {
    batches: AtomicUsize,
    done: AtomicUsize,
}

impl InterruptAfter {
    fn batches(batches: usize) -> Self {
        Self { batches: AtomicUsize::new(batches), done: AtomicUsize::new(0) }
    }
}

impl crate::data::Watch for InterruptAfter {
    fn progress(&self, _: crate::data::Task, done: u64, total: u64) {
        assert!(done <= total);
        self.done.store(done as usize, Ordering::SeqCst);
        self.batches.fetch_sub(1, Ordering::SeqCst);
    }
    fn interrupted(&self) -> bool {
        self.batches.load(Ordering::SeqCst) == 0
    }
}

#[test]
fn an_interrupted_build_keeps_every_batch_and_goes_on_from_there() {
    let bench = Bench::new(200);
    let mut computed = 0;
    for batches in [1, 2, 3] {
        let watch = InterruptAfter::batches(batches);
        let outcome = bench.cache().features(&bench.request(), &watch);
        assert!(matches!(outcome, Err(FeatureError::Interrupted)));
        computed += bench.net.computed();
        assert_eq!(watch.done.load(Ordering::SeqCst), computed, "progress counts what is kept");
        assert_eq!(bench.cache().coverage(&bench.request()).unwrap().cached, computed);
    }
    let found = bench.cache().features(&bench.request(), &Quiet).unwrap();
    assert_eq!(bench.net.computed(), 200 - computed);
    assert_eq!(bits(&found), uncached(&bench.request()));
}

#[test]
fn waiting_for_other_builders_can_be_interrupted() {
    let bench = Bench::new(3);
    let cache = bench.cache();
    // Another builder holds every bucket and never finishes.
    let locks = bench.folder.path().join("features/locks");
    let held: Vec<_> = (0..=255u8)
        .map(|slot| {
            let file = std::fs::File::create(locks.join(format!("{slot:02x}"))).unwrap();
            file.lock().unwrap();
            file
        })
        .collect();
    let outcome = cache.features(&bench.request(), &InterruptAfter::batches(2));
    assert!(matches!(outcome, Err(FeatureError::Interrupted)));
    drop(held);
    cache.features(&bench.request(), &Quiet).unwrap();
}

const FOLDER: &str = "HPSEARCH_TEST_FEATURES";

/// The bench that parent and child processes share.
fn process_bench() -> Bench {
    let mut bench = Bench::new(240);
    bench.net.pause = Duration::from_millis(15);
    bench
}

#[test]
#[ignore = "the body of processes that other tests start"]
fn a_builder_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let bench = process_bench();
    let cache = FeatureCache::open(folder.as_ref(), None).unwrap();
    let found = cache.features(&bench.request(), &Quiet).unwrap();
    let computed = bench.net.computed();
    assert_eq!(bits(&found), uncached(&bench.request()));
    println!("\ncomputed={computed}");
}

fn start(bench: &Bench) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "data::features::tests::sharing::a_builder_process", "--ignored", "--nocapture"])
        .env(FOLDER, bench.folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn computed_by(child: Child) -> usize {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("computed=")).unwrap().parse().unwrap()
}

#[test]
fn processes_divide_the_work() {
    let bench = process_bench();
    let children = [start(&bench), start(&bench)];
    let by_each = children.map(computed_by);
    assert_eq!(by_each.iter().sum::<usize>(), 240, "{by_each:?}");
    bench.cache().features(&bench.request(), &Quiet).unwrap();
    assert_eq!(bench.net.computed(), 0);
}

#[test]
fn a_killed_builder_blocks_nobody_and_leaves_nothing_wrong() {
    let bench = process_bench();
    let mut child = start(&bench);
    let begun = Instant::now();
    while bench.segments().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child computes nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = bench.cache().coverage(&bench.request()).unwrap().cached;
    assert!(kept > 0);
    let found = bench.cache().features(&bench.request(), &Quiet).unwrap();
    assert_eq!(bench.net.computed(), 240 - kept);
    assert_eq!(bits(&found), uncached(&bench.request()));
    let left = walkdir::WalkDir::new(bench.folder.path()).into_iter().map(|e| e.unwrap().file_name().to_owned());
    assert_eq!(left.filter(|name| shelf::is_temporary(name)).count(), 0);
}

#[test]
fn shelves_can_be_removed_while_others_are_built() {
    // With a limit of 0, a collection removes every shelf that is not in use.
    let bench = Bench::new(8);
    let stop = AtomicBool::new(false);
    let views = [View::Bank { view: 0 }, View::Bank { view: 1 }];
    let expected = views.map(|view| uncached(&FeatureRequest { view, ..bench.request() }));
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let strict = bench.limited(Some(0));
            while !stop.load(Ordering::SeqCst) {
                strict.collect(false).unwrap();
            }
        });
        let readers = [0, 1].map(|n| {
            let (bench, expected) = (&bench, &expected[n]);
            scope.spawn(move || {
                for _ in 0..60 {
                    let request = FeatureRequest { view: views[n], ..bench.request() };
                    assert_eq!(&bits(&bench.cache().features(&request, &Quiet).unwrap()), expected);
                }
            })
        });
        let outcomes = readers.map(|r| r.join());
        stop.store(true, Ordering::SeqCst);
        collector.join().unwrap();
        outcomes.into_iter().for_each(|o| o.unwrap());
    });
}

#[test]
fn a_shelf_can_be_opened_at_any_moment_of_its_removal() {
    let bench = Bench::new(1);
    let strict = bench.limited(Some(0));
    let about = bench.request().shelved().unwrap();
    let opening = AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for _ in 0..opening.load(Ordering::SeqCst) {
            scope.spawn(|| {
                let outcome = (0..5000).try_for_each(|_| Shelf::open(&strict.room.root, &about, 4).map(drop));
                opening.fetch_sub(1, Ordering::SeqCst);
                outcome.unwrap();
            });
        }
        // Nothing is in them, so all of them go.
        while opening.load(Ordering::SeqCst) > 0 {
            strict.collect(false).unwrap();
        }
    });
}
