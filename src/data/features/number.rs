//! Rows as bytes: f32 or f16, little-endian.

use crate::spec::CachePrecision;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values converted together, by vector instructions where the machine has them.
const BLOCK: usize = 512;

/// Appends encoded values. Those too large for f16 become infinite: see [`too_large`].
pub(super) fn encode(values: &[f32], precision: CachePrecision, out: &mut Vec<u8>) {
    match precision {
        CachePrecision::F32 => {
            let start = out.len();
            out.resize(start + size_of_val(values), 0);
            for (bytes, value) in out[start..].as_chunks_mut().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
        CachePrecision::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            for block in values.chunks(BLOCK) {
                let halves = &mut halves[..block.len()];
                halves.convert_from_f32_slice(block);
                out.extend(halves.iter().flat_map(|h| h.to_le_bytes()));
            }
        }
    }
}

/// Reads as many values as `out` holds.
///
/// # Panics
/// If `bytes` is not that long.
pub(super) fn decode(bytes: &[u8], precision: CachePrecision, out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * super::request::value_bytes(precision), "bytes of a row");
    match precision {
        CachePrecision::F32 => {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        CachePrecision::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            for (values, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
                let halves = &mut halves[..values.len()];
                for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                    *half = f16::from_le_bytes(*bytes);
                }
                halves.convert_to_f32_slice(values);
            }
        }
    }
}

/// What `decode(encode(values))` gives, in place.
pub(super) fn round(values: &mut [f32], precision: CachePrecision) {
    if precision == CachePrecision::F16 {
        let mut halves = [f16::ZERO; BLOCK];
        for block in values.chunks_mut(BLOCK) {
            let halves = &mut halves[..block.len()];
            halves.convert_from_f32_slice(block);
            halves.convert_to_f32_slice(block);
        }
    }
}

/// The first finite value that f16 would make infinite: 65520 is the first that is rounded up beyond 65504.
pub(super) fn too_large(values: &[f32], precision: CachePrecision) -> Option<(usize, f32)> {
    let found = |(_, v): &(usize, f32)| v.is_finite() && v.abs() >= 65520.0;
    (precision == CachePrecision::F16).then(|| values.iter().copied().enumerate().find(found)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(values: &[f32], precision: CachePrecision) -> Vec<f32> {
        let mut bytes = Vec::new();
        encode(values, precision, &mut bytes);
        let mut back = vec![0.0; values.len()];
        decode(&bytes, precision, &mut back);
        back
    }

    #[test]
    fn f32_is_kept_to_the_bit() {
        let values: Vec<f32> =
            (0..3000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9) & 0xBFFF_FFFF)).collect();
        assert_eq!(
            there_and_back(&values, CachePrecision::F32).iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
            values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn f16_rounds_to_the_nearest_ties_to_even() {
        // IEEE 754 binary16: ten bits of mantissa, so near 1 the spacing is 1/1024, near 2048 it is 2; smallest
        // subnormal 2^-24.
        let (given, wanted): (Vec<f32>, Vec<f32>) = [
            (1.0, 1.0),
            (1.0 + 1.0 / 2048.0, 1.0),
            (1.0 + 3.0 / 2048.0, 1.0 + 2.0 / 1024.0),
            (1.0 + 1.01 / 2048.0, 1.0 + 1.0 / 1024.0),
            (2049.0, 2048.0),
            (2051.0, 2052.0),
            (-65504.0, -65504.0),
            (65519.0, 65504.0),
            (5.960_464_5e-8, 5.960_464_5e-8),
            (2.0e-8, 0.0),
        ]
        .into_iter()
        .unzip();
        assert_eq!(there_and_back(&given, CachePrecision::F16), wanted);
        let mut rounded = given.clone();
        round(&mut rounded, CachePrecision::F16);
        assert_eq!(rounded, wanted);
        assert_eq!(too_large(&given, CachePrecision::F16), None);
        assert_eq!(too_large(&[1.0, -65520.0], CachePrecision::F16), Some((1, -65520.0)));
        assert_eq!(too_large(&[70000.0], CachePrecision::F32), None);
        assert_eq!(there_and_back(&[65520.0], CachePrecision::F16), [f32::INFINITY]);
    }
}
