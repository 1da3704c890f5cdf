//! Image studies in the real binary: the same tables from any number of workers, and through kills.

use crate::program::{Bench, wait};
use std::time::Duration;

/// A narrow InceptionV3 on synthetic images: heads on cached features, and trials that train a stage.
const STUDY: &str = r#"
name = "s"
seed = 2
[data]
synthetic = { images = 48, prevalence = 0.5, contrast = 0.9, seed = 5 }
size = 75
[network]
width = 0.125
weights = "random"
scaling = "unit"
tap = "Mixed_5b"
[training]
epochs = 4
batch_size = 8
[augment]
views = 2
[space]
learning_rate = { type = "float", low = 1e-3, high = 1e-1, log = true }
dropout = { type = "float", low = 0.0, high = 0.5 }
freeze = { choices = ["maxpool2", "all"] }
strength = { choices = [0.0, 0.6] }
[sampler]
kind = "tpe"
n_startup = 4
[scheduler]
kind = "asha"
min_resource = 1
reduction_factor = 2
[budget]
n_trials = 8
[failures]
lost = 100
[run]
device = "cpu"
threads = 1
virtual_workers = 4
"#;

#[test]
fn workers_and_kills_change_nothing_in_an_image_study() {
    let bench = Bench::new(STUDY);
    bench.finish(&["--workers", "1"]);
    let one = bench.tables();
    assert!(one["epoch"].len() >= 14 && one["metric"].len() > one["epoch"].len(), "{:?}", one["epoch"]);
    let files = bench.files();

    std::fs::remove_dir_all(bench.dir()).unwrap();
    bench.finish(&["--workers", "4"]);
    assert_eq!(bench.tables(), one);

    // The caches are deleted too, so that kills also interrupt their filling. If the study ends before three kills, it
    // is repeated with shorter delays.
    let mut scale = 1.0;
    while kills(&bench, scale) < 3 {
        scale /= 2.0;
    }
    bench.finish(&["--workers", "2"]);
    assert_eq!(bench.tables(), one);
    assert_eq!(bench.files(), files);
}

/// Starts the study from nothing and kills it after scaled delays; the number of kills before it ended.
fn kills(bench: &Bench, scale: f64) -> usize {
    bench.forget();
    let delays = [60, 250, 420, 170, 600, 330, 510, 90, 700, 280];
    let was_killed = |&delay: &u64| {
        let mut run = bench.spawn(&["--workers", "3"]);
        wait(&mut run, Duration::from_millis(delay).mul_f64(scale)).is_none()
    };
    delays.iter().take_while(|delay| was_killed(delay)).count()
}
