//! The reference figures of `tests/data/training_figures.json`, and the integer generator of their inputs.

use std::sync::OnceLock;

/// The figures, parsed once.
pub(crate) fn figures() -> &'static serde_json::Value {
    static FIGURES: OnceLock<serde_json::Value> = OnceLock::new();
    FIGURES.get_or_init(|| serde_json::from_str(include_str!("../../tests/data/training_figures.json")).unwrap())
}

/// The numbers of a list.
pub(crate) fn list(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// `n` numbers in [-1, 1) derived from a name: splitmix64 seeded by FNV-1a, the upper 24 bits.
pub(crate) fn s(name: &str, n: usize) -> Vec<f32> {
    let mut x = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..n)
        .map(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            ((z >> 40) as f64 * 2f64.powi(-23) - 1.0) as f32
        })
        .collect()
}
