//! Where a kernel writes: some channels of every pixel of a buffer, from several threads.

use std::marker::PhantomData;
#[cfg(test)]
use std::mem::MaybeUninit;

/// A column slice of a `[pixels, stride]` buffer: `channels` channels of each pixel.
///
/// It is an exclusive borrow of the buffer. The kernels assign each pixel and channel to one task only, so several
/// threads may write through it.
pub struct Target<'a> {
    first: *mut f32,
    stride: usize,
    channels: usize,
    pixels: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Target` is an exclusive borrow of plain floats; writes go through the unsafe `row`, whose callers keep to
// rows and channels of their own.
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    /// Channels `offset..offset + channels` of every pixel of a buffer of `stride` channels.
    ///
    /// # Panics
    /// If the buffer is not a whole number of pixels or the channels do not lie inside the stride.
    pub fn columns(buffer: &'a mut [f32], stride: usize, offset: usize, channels: usize) -> Self {
        assert!(stride > 0 && buffer.len().is_multiple_of(stride) && offset + channels <= stride);
        let pixels = buffer.len() / stride;
        // `wrapping_add`: the buffer may be empty.
        Self { first: buffer.as_mut_ptr().wrapping_add(offset), stride, channels, pixels, _borrow: PhantomData }
    }

    /// All of an uninitialised buffer.
    #[cfg(test)]
    fn fresh(buffer: &'a mut [MaybeUninit<f32>], channels: usize) -> Self {
        let pixels = buffer.len() / channels;
        Self { first: buffer.as_mut_ptr().cast(), stride: channels, channels, pixels, _borrow: PhantomData }
    }

    /// Channels written of each pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Pixels of the buffer.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// The first channel of a pixel.
    ///
    /// # Safety
    /// `pixel < self.pixels()`; only `channels()` floats from there may be written, and not while another thread
    /// reads or writes the same ones.
    pub(super) unsafe fn row(&self, pixel: usize) -> *mut f32 {
        debug_assert!(pixel < self.pixels);
        // SAFETY: inside the buffer, by the caller's promise and the constructors' checks.
        unsafe { self.first.add(pixel * self.stride) }
    }
}

/// Where a kernel reads: the counterpart of [`Target`].
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    data: &'a [f32],
    stride: usize,
    offset: usize,
    channels: usize,
}

impl<'a> Source<'a> {
    /// Channels `offset..offset + channels` of every pixel of a buffer of `stride` channels.
    ///
    /// # Panics
    /// If the buffer is not a whole number of pixels or the channels do not lie inside the stride.
    pub fn columns(data: &'a [f32], stride: usize, offset: usize, channels: usize) -> Self {
        assert!(stride > 0 && data.len().is_multiple_of(stride) && offset + channels <= stride);
        Self { data, stride, offset, channels }
    }

    /// All channels of every pixel.
    ///
    /// # Panics
    /// If the buffer is not a whole number of pixels.
    pub fn whole(data: &'a [f32], channels: usize) -> Self {
        Self::columns(data, channels, 0, channels)
    }

    /// Channels read of each pixel.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Pixels of the buffer.
    pub fn pixels(&self) -> usize {
        self.data.len() / self.stride
    }

    /// The channels of a pixel.
    #[inline(always)]
    pub fn row(&self, pixel: usize) -> &'a [f32] {
        &self.data[pixel * self.stride + self.offset..][..self.channels]
    }
}

/// A new `[pixels, channels]` buffer, not cleared first, that `fill` writes in full.
///
/// # Safety
/// `fill` must write every element.
#[cfg(test)]
pub(crate) unsafe fn written(pixels: usize, channels: usize, fill: impl FnOnce(&Target<'_>)) -> Vec<f32> {
    let length = pixels * channels;
    let mut buffer = Vec::with_capacity(length);
    fill(&Target::fresh(&mut buffer.spare_capacity_mut()[..length], channels.max(1)));
    // SAFETY: the capacity is there, and `fill` wrote every element by the caller's promise.
    unsafe { buffer.set_len(length) };
    buffer
}

/// A new buffer of zeros.
pub(crate) fn zeroed(length: usize) -> Vec<f32> {
    vec![0.0; length]
}
