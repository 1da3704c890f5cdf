//! Deeper features from shallower ones.

use super::*;

fn calls(bench: &Bench) -> Vec<(usize, usize, usize)> {
    let mut calls = std::mem::take(&mut *bench.net.calls.lock().unwrap());
    calls.sort_unstable();
    calls
}

#[test]
fn a_deeper_cut_starts_from_the_deepest_shallower_one_with_the_same_bits() {
    let bench = Bench::new(16);
    let view = View::Bank { view: 2 };
    let base = FeatureRequest { view, ..bench.request() };
    let expected = straight(&base);
    bench.cache().features(&FeatureRequest { cut: 1, ..base }, &Quiet).unwrap();
    calls(&bench);
    bench.cache().features(&FeatureRequest { cut: 2, ..base }, &Quiet).unwrap();
    assert_eq!(calls(&bench), [(1, 2, 16)]);
    let found = bench.cache().features(&base, &Quiet).unwrap();
    assert_eq!(calls(&bench), [(2, 3, 16)]);
    assert_eq!(bits(&found), expected);
}

#[test]
fn images_start_where_each_of_them_can() {
    let bench = Bench::new(12);
    let base = bench.request();
    let expected = straight(&base);
    bench.cache().features(&FeatureRequest { cut: 1, images: &[0, 1, 2, 3, 4], ..base }, &Quiet).unwrap();
    bench.cache().features(&FeatureRequest { cut: 2, images: &[3, 4, 5], ..base }, &Quiet).unwrap();
    calls(&bench);
    let found = bench.cache().features(&base, &Quiet).unwrap();
    assert_eq!(calls(&bench), [(0, 3, 6), (1, 3, 3), (2, 3, 3)]);
    assert_eq!(bits(&found), expected);
}

#[test]
fn averages_and_f16_are_made_from_whole_f32_maps_without_the_network() {
    let bench = Bench::new(9);
    let base = bench.request();
    let pooled = FeatureRequest { pooled: true, ..base };
    let halves = FeatureRequest { precision: CachePrecision::F16, ..base };
    let both = FeatureRequest { precision: CachePrecision::F16, ..pooled };
    let expected = [pooled, halves, both].map(|r| straight(&r));
    bench.cache().features(&base, &Quiet).unwrap();
    calls(&bench);
    let found = [pooled, halves, both].map(|r| bits(&bench.cache().features(&r, &Quiet).unwrap()));
    assert_eq!(calls(&bench), []);
    assert_eq!(found, expected);
}

#[test]
fn rounded_averaged_or_differently_viewed_rows_are_no_start() {
    let bench = Bench::new(5);
    let base = bench.request();
    for other in [
        FeatureRequest { cut: 2, precision: CachePrecision::F16, ..base },
        FeatureRequest { cut: 2, pooled: true, ..base },
        FeatureRequest { cut: 2, view: View::Bank { view: 0 }, ..base },
        FeatureRequest { cut: 2, weights: Digest::of(b"other"), ..base },
    ] {
        bench.cache().features(&other, &Quiet).unwrap();
    }
    calls(&bench);
    let found = bench.cache().features(&base, &Quiet).unwrap();
    assert_eq!(calls(&bench), [(0, 3, 5)]);
    assert_eq!(bits(&found), straight(&base));
}
