//! Buffers of a network on the CPU, reused from call to call.

use std::sync::{Mutex, PoisonError};

/// Buffers kept for reuse.
#[derive(Default)]
pub(super) struct Arena(Vec<Vec<f32>>);

impl Arena {
    /// A buffer of `length` elements with arbitrary content.
    pub(super) fn take(&mut self, length: usize) -> Vec<f32> {
        let fitting = |b: &Vec<f32>| b.capacity() >= length;
        let best = (0..self.0.len()).filter(|&i| fitting(&self.0[i])).min_by_key(|&i| self.0[i].capacity());
        // Replace one that is too small rather than keep many.
        let mut buffer =
            best.or_else(|| self.0.len().checked_sub(1)).map(|i| self.0.swap_remove(i)).unwrap_or_default();
        if buffer.capacity() < length {
            return vec![0.0; length];
        }
        buffer.resize(length, 0.0);
        buffer
    }

    pub(super) fn give(&mut self, buffer: Vec<f32>) {
        self.0.push(buffer);
    }
}

/// Arenas of a network, one for each thread that computes at the same time.
#[derive(Default)]
pub(super) struct Arenas(Mutex<Vec<Arena>>);

impl Arenas {
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Arena) -> R) -> R {
        let mut arena = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = f(&mut arena);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
        result
    }
}
