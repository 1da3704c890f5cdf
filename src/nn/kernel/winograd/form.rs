//! Vectors of channels, and how transformed inputs are stored, by what the products multiply.

use super::super::arithmetic::round;
use super::VECTOR;

/// One vector of channels.
pub(super) type Lanes = [f32; VECTOR];

/// A vector from `from` on: whole, or the first `n` values followed by zeros.
///
/// # Safety
/// `from` must be valid for reading that many floats.
#[inline(always)]
pub(super) unsafe fn load<const WHOLE: bool>(from: *const f32, n: usize) -> Lanes {
    // SAFETY: the caller's promise.
    unsafe {
        if WHOLE {
            return from.cast::<Lanes>().read_unaligned();
        }
        let mut values = [0.0; VECTOR];
        for i in 0..n {
            values[i] = *from.add(i);
        }
        values
    }
}

/// The counterpart of [`load`].
///
/// # Safety
/// `to` must be valid for writing that many floats.
#[inline(always)]
pub(super) unsafe fn store<const WHOLE: bool>(values: Lanes, to: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if WHOLE {
            return to.cast::<Lanes>().write_unaligned(values);
        }
        for i in 0..n {
            *to.add(i) = values[i];
        }
    }
}

/// How transformed inputs are stored: as the products' arithmetic reads them.
pub(super) trait Form {
    /// Elements that `channels` take.
    #[inline(always)]
    fn words(channels: usize) -> usize {
        channels
    }

    /// Stores the first `n` of `values`, or all.
    ///
    /// # Safety
    /// `to` must be valid for as many words.
    unsafe fn store<const WHOLE: bool>(values: Lanes, to: *mut f32, n: usize);
}

/// [`super::super::arithmetic::Factors::F32`].
pub(super) struct Plain;

impl Form for Plain {
    #[inline(always)]
    unsafe fn store<const WHOLE: bool>(values: Lanes, to: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { store::<WHOLE>(values, to, n) }
    }
}

/// [`super::super::arithmetic::Factors::Rounded`].
pub(super) struct Rounded;

impl Form for Rounded {
    #[inline(always)]
    unsafe fn store<const WHOLE: bool>(values: Lanes, to: *mut f32, n: usize) {
        let mut rounded = [0.0; VECTOR];
        for i in 0..VECTOR {
            rounded[i] = round(values[i]);
        }
        // SAFETY: the caller's promise.
        unsafe { store::<WHOLE>(rounded, to, n) }
    }
}

/// [`super::super::arithmetic::Factors::Pairs`]; the processor must have them.
#[cfg(target_arch = "x86_64")]
pub(super) struct Paired;

#[cfg(target_arch = "x86_64")]
impl Form for Paired {
    #[inline(always)]
    fn words(channels: usize) -> usize {
        channels.div_ceil(2)
    }

    #[inline(always)]
    unsafe fn store<const WHOLE: bool>(values: Lanes, to: *mut f32, n: usize) {
        use std::arch::x86_64::{__m256bh, __m512, _mm512_cvtneps_pbh};
        // SAFETY: the caller's promise; all are as long.
        unsafe {
            let pairs = _mm512_cvtneps_pbh(std::mem::transmute::<Lanes, __m512>(values));
            let words = std::mem::transmute::<__m256bh, [f32; VECTOR / 2]>(pairs);
            if WHOLE {
                return to.cast::<[f32; VECTOR / 2]>().write_unaligned(words);
            }
            for i in 0..Self::words(n) {
                *to.add(i) = words[i];
            }
        }
    }
}
