//! Packed weights.
//!
//! A *panel* holds [`LANES`] output channels: `[taps, cin, LANES]`, so that the inner loop of a tile reads memory in
//! order. Weights are `ceil(cout / LANES)` panels; lanes beyond the last channel are zero and stay zero in training.

use super::LANES;
use rayon::prelude::*;

/// Number of panels for `cout` output channels.
pub fn panels(cout: usize) -> usize {
    cout.div_ceil(LANES)
}

/// The shape of packed weights: panels, rows (tap-major, then input channel), lanes.
pub fn packed_shape(taps: usize, cin: usize, cout: usize) -> [usize; 3] {
    [panels(cout), taps * cin, LANES]
}

/// Packs torch's `[O, I, KH, KW]`.
pub fn pack(weights: &[f32], taps: usize, cin: usize, cout: usize) -> Vec<f32> {
    assert_eq!(weights.len(), taps * cin * cout);
    let mut packed = vec![0f32; packed_shape(taps, cin, cout).iter().product()];
    for o in 0..cout {
        for c in 0..cin {
            for t in 0..taps {
                packed[((o / LANES * taps + t) * cin + c) * LANES + o % LANES] = weights[(o * cin + c) * taps + t];
            }
        }
    }
    packed
}

/// The inverse of [`pack`].
pub fn unpack(packed: &[f32], taps: usize, cin: usize, cout: usize) -> Vec<f32> {
    assert_eq!(packed.len(), packed_shape(taps, cin, cout).iter().product::<usize>());
    let mut weights = vec![0f32; taps * cin * cout];
    for o in 0..cout {
        for c in 0..cin {
            for t in 0..taps {
                weights[(o * cin + c) * taps + t] = packed[((o / LANES * taps + t) * cin + c) * LANES + o % LANES];
            }
        }
    }
    weights
}

/// The panels of the input gradient, `[panels(cin), taps * cout, LANES]`: input and output channels are swapped, and
/// the rows of output channel `o` multiplied by `scale[o]`.
pub fn transposed(packed: &[f32], taps: usize, cin: usize, cout: usize, scale: Option<&[f32]>) -> Vec<f32> {
    let mut out = vec![0f32; packed_shape(taps, cout, cin).iter().product()];
    transpose_into(packed, taps, cin, cout, scale, &mut out);
    out
}

/// [`transposed`] into a buffer with arbitrary content.
///
/// # Panics
/// If a length does not fit.
pub fn transpose_into(packed: &[f32], taps: usize, cin: usize, cout: usize, scale: Option<&[f32]>, out: &mut [f32]) {
    assert_eq!(packed.len(), packed_shape(taps, cin, cout).iter().product::<usize>());
    assert_eq!(out.len(), packed_shape(taps, cout, cin).iter().product::<usize>());
    // One task for each (panel of input channels, tap): `cout` rows of LANES.
    out.par_chunks_mut(cout * LANES).enumerate().for_each(|(index, rows)| {
        let (panel, tap) = (index / taps, index % taps);
        let channels = LANES.min(cin - panel * LANES);
        for (block, rows) in rows.chunks_mut(LANES * LANES).enumerate() {
            let from = ((block * taps + tap) * cin + panel * LANES) * LANES;
            let source = &packed[from..from + channels * LANES];
            for (o, row) in rows.chunks_exact_mut(LANES).enumerate() {
                let s = scale.map_or(1.0, |s| s[block * LANES + o]);
                for (c, value) in row[..channels].iter_mut().enumerate() {
                    *value = source[c * LANES + o] * s;
                }
                row[channels..].fill(0.0);
            }
        }
    });
}

/// `values` padded with zeros to whole panels.
pub fn padded(values: &[f32]) -> Vec<f32> {
    let mut out = values.to_vec();
    out.resize(panels(values.len()) * LANES, 0.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_undone_by_unpacking_and_transposing_twice_gives_the_same() {
        let (taps, cin, cout) = (6, 37, 45);
        let w: Vec<f32> = (0..taps * cin * cout).map(|i| i as f32).collect();
        let packed = pack(&w, taps, cin, cout);
        assert_eq!(unpack(&packed, taps, cin, cout), w);
        let back = transposed(&transposed(&packed, taps, cin, cout, None), taps, cout, cin, None);
        assert_eq!(back, packed);
    }

    #[test]
    fn transposing_swaps_the_channels_and_scales_by_output_channel() {
        let (taps, cin, cout) = (2, 33, 3);
        let w: Vec<f32> = (0..taps * cin * cout).map(|i| i as f32).collect();
        let t = transposed(&pack(&w, taps, cin, cout), taps, cin, cout, Some(&[1.0, 10.0, 100.0]));
        let plain = unpack(&t, taps, cout, cin);
        for o in 0..cout {
            for c in 0..cin {
                for k in 0..taps {
                    let scale = [1.0, 10.0, 100.0][o];
                    assert_eq!(plain[(c * cout + o) * taps + k], w[(o * cin + c) * taps + k] * scale);
                }
            }
        }
    }
}
