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
    let expected = uncached(&base);
    bench.cache().features(&FeatureRequest { cut: 1, ..base }, &Quiet).unwrap();
    calls(&bench);
    bench.cache().features(&FeatureRequest { cut: 2, ..base }, &Quiet).unwrap();
    assert_eq!(calls(&bench), [(1, 2, 16)]);
    let found = bench.cache().features(&base, &Quiet).unwrap();
    assert_eq!(calls(&bench), [(2, 3, 16)]);
    assert_eq!(bits(&found), expected);
}

#[test]
fn each_image_starts_from_its_deepest_cached_cut() {
    let bench = Bench::new(12);
    let base = bench.request();
    let expected = uncached(&base);
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
    let expected = [pooled, halves, both].map(|r| uncached(&r));
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
    assert_eq!(bits(&found), uncached(&base));
}

#[test]
fn one_forward_pass_stores_the_averages_of_all_cuts_in_also() {
    let bench = Bench::new(20);
    let view = View::Bank { view: 1 };
    let base = FeatureRequest { view, pooled: true, cut: 2, also: &[1, 2, 3], ..bench.request() };
    let at = |cut| FeatureRequest { cut, ..base };
    let expected = [1, 2, 3].map(|cut| uncached(&at(cut)));
    // Some rows of the deepest cut are cached already and are not computed again.
    bench.cache().features(&FeatureRequest { cut: 3, also: &[], images: &[4, 5, 6], ..base }, &Quiet).unwrap();
    bench.net.computed();
    bench.cache().features(&base, &Quiet).unwrap();
    let calls = calls(&bench);
    let passed = |from: usize| calls.iter().filter(|call| call.0 == from).map(|call| call.2).sum::<usize>();
    assert_eq!([passed(0), passed(1), passed(2)], [20, 20, 20], "{calls:?}");
    bench.net.computed();
    let found = [1, 2, 3].map(|cut| bits(&bench.cache().features(&at(cut), &Quiet).unwrap()));
    assert_eq!(bench.net.computed(), 0);
    assert_eq!(found, expected);
    // No other cuts' averages are stored for whole maps, nor if the averages come from cached maps.
    let other = Bench::new(6);
    let maps = FeatureRequest { cut: 2, also: &[1, 3], ..other.request() };
    other.cache().features(&maps, &Quiet).unwrap();
    other.cache().features(&FeatureRequest { pooled: true, also: &[1], ..maps }, &Quiet).unwrap();
    assert_eq!(other.cache().coverage(&FeatureRequest { pooled: true, cut: 1, ..maps }).unwrap().cached, 0);
    let deeper = FeatureRequest { pooled: true, cut: 3, ..maps };
    assert_eq!(other.cache().coverage(&deeper).unwrap().cached, 0);
    other.cache().features(&FeatureRequest { also: &[2], ..deeper }, &Quiet).unwrap();
    assert_eq!(bits(&other.cache().features(&deeper, &Quiet).unwrap()), uncached(&deeper));
}

#[test]
fn averages_at_other_cuts_are_not_stored_without_room() {
    let bench = Bench::new(16);
    let base = FeatureRequest { pooled: true, cut: 1, also: &[2, 3], ..bench.request() };
    let own = predicted_bytes(&base.shape().unwrap(), 16, 1, base.precision);
    let cache = bench.limited(Some(own + 24 * 1024));
    let found = cache.features(&FeatureRequest { also: &[], ..base }, &Quiet);
    assert!(found.is_ok(), "the budget holds what is asked for");
    drop(found);
    let full = bench.limited(Some(cache.stats().unwrap().bytes()));
    let all: Vec<usize> = (0..16).collect();
    assert_eq!(bits(&full.features(&FeatureRequest { images: &all, ..base }, &Quiet).unwrap()), uncached(&base));
}
