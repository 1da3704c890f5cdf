//! What convolutions multiply: f32, or operands rounded to bf16.
//!
//! Sums are f32 either way, and so are feature maps, weights and gradients between kernels; with bf16, operands are
//! rounded (to nearest, ties to even) on their way into a product, as tensor cores and PyTorch's autocast do. A product
//! of two bf16 is exact in f32.
//!
//! AVX512-BF16 multiplies two pairs and adds both products to one sum, in the time of one multiply-add of f32. Operands
//! lie in *words* of 32 bits for it, each a pair along the axis that is summed over: two channels of a pixel, or two
//! pixels of a channel. Buffers of words are `f32` like all others, so that they come from the same arenas; only the
//! micro-kernels look into them. Other processors multiply rounded f32: the same products, no faster than f32, but for numbers
//! below 1e-38, which AVX512-BF16 takes for zero.

#[cfg(target_arch = "x86_64")]
use super::micro_avx512;
use super::{Isa, LANES, isa::on_isa, panel};
use crate::spec::Precision;
use rayon::prelude::*;

/// How operands are given to products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factors {
    /// As they are.
    F32,
    /// Rounded to bf16, two in a word.
    Pairs,
    /// Rounded to bf16, in f32.
    Rounded,
}

/// Instructions, and what they multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arithmetic {
    pub(super) isa: Isa,
    factors: Factors,
}

impl From<Isa> for Arithmetic {
    /// Products of f32.
    fn from(isa: Isa) -> Self {
        Self { isa: isa.checked(), factors: Factors::F32 }
    }
}

/// Elements of one task of a conversion.
const TASK: usize = 1 << 15;

impl Arithmetic {
    /// That of frozen layers on the CPU, which has no TF32.
    pub fn frozen(isa: Isa, precision: Precision) -> Self {
        if precision.of_frozen() == Precision::Bf16 { Self::bf16(isa) } else { isa.into() }
    }

    /// That of trained layers on the CPU.
    pub fn trained(isa: Isa, precision: Precision) -> Self {
        if precision == Precision::Amp { Self::bf16(isa) } else { isa.into() }
    }

    /// Products of operands rounded to bf16, in pairs if the processor multiplies those and `isa` is AVX-512.
    pub fn bf16(isa: Isa) -> Self {
        let isa = isa.checked();
        let factors = if isa == Isa::Avx512 && has_pairs() { Factors::Pairs } else { Factors::Rounded };
        Self { isa, factors }
    }

    /// Products of operands rounded to bf16 and kept in f32, on any processor.
    pub fn rounded(isa: Isa) -> Self {
        Self { isa: isa.checked(), factors: Factors::Rounded }
    }

    /// Its name: part of cache keys on disk, as that of [`Isa::name`].
    pub fn name(self) -> String {
        match self.factors {
            Factors::F32 => self.isa.name().to_owned(),
            Factors::Pairs => format!("{}-bf16", self.isa.name()),
            Factors::Rounded => format!("{} rounded to bf16", self.isa.name()),
        }
    }

    /// The instructions.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// How operands are given to products.
    pub fn factors(self) -> Factors {
        self.factors
    }

    /// Whether operands are rounded: maps go through [`Arithmetic::map`], weights through [`Arithmetic::panels`].
    pub fn rounds(self) -> bool {
        self.factors != Factors::F32
    }

    /// Elements of a buffer for `channels` operands that are summed over.
    pub fn words(self, channels: usize) -> usize {
        if self.factors == Factors::Pairs { channels.div_ceil(2) } else { channels }
    }

    /// The pixels of a feature map, `[pixels, channels]`, as the convolutions of this arithmetic read them:
    /// `[pixels, words(channels)]`, into a buffer with arbitrary content. An odd last channel is paired with a zero.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn map(self, map: &[f32], channels: usize, out: &mut [f32]) {
        let words = self.words(channels);
        assert!(map.len().is_multiple_of(channels) && out.len() == map.len() / channels * words);
        let each = TASK.div_ceil(channels);
        out.par_chunks_mut(each * words).zip(map.par_chunks(each * channels)).for_each(|(out, map)| {
            if self.factors == Factors::Pairs && !channels.is_multiple_of(2) {
                out.chunks_exact_mut(words).zip(map.chunks_exact(channels)).for_each(|(out, map)| self.row(map, out));
            } else {
                // No pair lies across two pixels: they are converted as one row.
                self.row(map, out);
            }
        });
    }

    fn row(self, row: &[f32], out: &mut [f32]) {
        match self.factors {
            Factors::F32 => out.copy_from_slice(row),
            Factors::Rounded => {
                on_isa!(self.isa, round_row(row: &[f32] = row, out: &mut [f32] = out));
            }
            Factors::Pairs => {
                assert_eq!(out.len(), row.len().div_ceil(2));
                #[cfg(target_arch = "x86_64")]
                // SAFETY: pairs are chosen only where the processor has them; the lengths were checked.
                unsafe {
                    micro_avx512::pair_row(row.as_ptr(), row.len(), out.as_mut_ptr());
                }
            }
        }
    }

    /// [`Arithmetic::map`] into a new buffer.
    pub fn mapped(self, map: &[f32], channels: usize) -> Vec<f32> {
        let mut out = vec![0.0; map.len() / channels * self.words(channels)];
        self.map(map, channels, &mut out);
        out
    }

    /// Elements of a buffer for [`Arithmetic::panels`].
    pub fn packed_length(self, taps: usize, cin: usize, cout: usize) -> usize {
        panel::packed_shape(taps, self.words(cin), cout).iter().product()
    }

    /// Packed weights, `[panels, taps * cin, LANES]`, as the convolutions of this arithmetic read them:
    /// `[panels, taps * words(cin), LANES]`, into a buffer with arbitrary content. An odd last channel is paired with zeros.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn panels(self, packed: &[f32], cin: usize, out: &mut [f32]) {
        let words = self.words(cin);
        assert!(packed.len().is_multiple_of(cin * LANES) && out.len() == packed.len() / cin * words);
        out.par_chunks_mut(words * LANES).zip(packed.par_chunks(cin * LANES)).for_each(|(out, packed)| {
            if self.factors != Factors::Pairs {
                return self.row(packed, out);
            }
            let rows = packed.chunks(2 * LANES).zip(out.chunks_exact_mut(LANES));
            rows.for_each(|(rows, out)| {
                let (even, odd) = rows.split_at(LANES);
                self.interleave(even, if odd.is_empty() { &[0.0; LANES] } else { odd }, out);
            });
        });
    }

    /// Pairs of the elements of two rows.
    ///
    /// # Panics
    /// If lengths differ, or this is not an arithmetic of pairs.
    pub(super) fn interleave(self, even: &[f32], odd: &[f32], out: &mut [f32]) {
        assert!(self.factors == Factors::Pairs && even.len() == odd.len() && out.len() == even.len());
        #[cfg(target_arch = "x86_64")]
        // SAFETY: pairs are chosen only where the processor has them; the lengths were checked.
        unsafe {
            micro_avx512::interleave(even.as_ptr(), odd.as_ptr(), even.len(), out.as_mut_ptr());
        }
    }
}

/// Whether this processor multiplies pairs of bf16 (AVX512-BF16).
#[cfg(target_arch = "x86_64")]
pub fn has_pairs() -> bool {
    Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16")
}

/// Whether this processor multiplies pairs of bf16 (AVX512-BF16).
#[cfg(not(target_arch = "x86_64"))]
pub fn has_pairs() -> bool {
    false
}

/// The nearest bf16, of two the even one; NaNs stay NaNs.
#[inline(always)]
pub(super) fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    f32::from_bits(if x.is_nan() { bits | 0x40_0000 } else { nearest } & 0xffff_0000)
}

/// For [`on_isa`].
#[inline(always)]
fn round_row(row: &[f32], out: &mut [f32]) {
    assert_eq!(row.len(), out.len());
    for i in 0..row.len() {
        out[i] = round(row[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{f32s, narrow, numbers};
    use half::bf16;

    /// Ties, numbers that round up into the next binade or to infinity, infinities, zeros.
    const SPECIAL: [f32; 12] = [
        1.0,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        -1.0 - 1.0 / 256.0,
        1.998_046_9,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-30,
        65_504.0,
    ];

    /// The bf16 in a buffer, in order.
    fn halves(arithmetic: Arithmetic, words: &[f32]) -> Vec<f32> {
        if arithmetic.factors() != Factors::Pairs {
            return words.to_vec();
        }
        let both =
            |word: &f32| [bf16::from_bits(word.to_bits() as u16), bf16::from_bits((word.to_bits() >> 16) as u16)];
        words.iter().flat_map(both).map(bf16::to_f32).collect()
    }

    fn nearest(values: &[f32]) -> Vec<f32> {
        values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()
    }

    #[test]
    fn maps_are_rounded_to_the_nearest_bf16() {
        for arithmetic in narrow() {
            for channels in [1, 2, 5, 16, 31, 32, 33, 70] {
                let mut map = f32s(&numbers(1, channels * 1000));
                map[..SPECIAL.len()].copy_from_slice(&SPECIAL);
                let mut found = halves(arithmetic, &arithmetic.mapped(&map, channels));
                if arithmetic.factors() == Factors::Pairs && !channels.is_multiple_of(2) {
                    found = found
                        .chunks(channels + 1)
                        .flat_map(|row| {
                            assert_eq!(row[channels], 0.0);
                            &row[..channels]
                        })
                        .copied()
                        .collect();
                }
                assert_eq!(found, nearest(&map), "{arithmetic:?} {channels}");
            }
            assert!(halves(arithmetic, &arithmetic.mapped(&[f32::NAN; 4], 2)).iter().all(|v| v.is_nan()));
            let tiny = halves(arithmetic, &arithmetic.mapped(&[1e-40, -1e-40], 2));
            let expected =
                if arithmetic.factors() == Factors::Pairs { vec![0.0, -0.0] } else { nearest(&[1e-40, -1e-40]) };
            assert_eq!(tiny, expected, "{arithmetic:?}");
        }
    }

    #[test]
    fn panels_are_rounded_and_paired_along_the_input_channels() {
        for arithmetic in narrow() {
            for (taps, cin, cout) in [(9, 3, 33), (1, 4, 32), (2, 1, 5)] {
                let weights = f32s(&numbers(2, taps * cin * cout));
                let packed = panel::pack(&weights, taps, cin, cout);
                let mut out = vec![7.0; arithmetic.packed_length(taps, cin, cout)];
                arithmetic.panels(&packed, cin, &mut out);
                let words = arithmetic.words(cin);
                let found = halves(arithmetic, &out);
                let per_word = found.len() / out.len();
                for (i, expected) in nearest(&packed).into_iter().enumerate() {
                    let (row, lane) = (i / LANES, i % LANES);
                    let (tap, channel) = (row / cin, row % cin);
                    let word = (tap * words + channel / per_word) * LANES + lane;
                    assert_eq!(found[word * per_word + channel % per_word], expected, "{arithmetic:?} {i}");
                }
            }
        }
    }
}
