//! The features of a request, ready to be read.

use super::number;
use super::request::value_bytes;
use super::shelf::{Row, Shelf};
use crate::spec::CachePrecision;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of more bytes than this are never held in memory, only mapped.
const SMALL: usize = 64 << 10;
/// Batches of at least this many values are read by several threads.
const PARALLEL: usize = 1 << 18;

/// The features of a request's images, in the request's order. While this exists, the cache keeps their files.
#[derive(Debug)]
pub struct Features {
    shape: Vec<usize>,
    length: usize,
    precision: CachePrecision,
    rows: Vec<Row>,
    resident: Option<Resident>,
    _shelf: Shelf,
}

impl Features {
    pub(super) fn new(
        shape: Vec<usize>,
        precision: CachePrecision,
        rows: Vec<Row>,
        shelf: Shelf,
        memory: &Memory,
    ) -> Self {
        let length = shape.iter().product();
        let mut features = Self { shape, length, precision, rows, resident: None, _shelf: shelf };
        if length * value_bytes(precision) <= SMALL {
            features.resident = memory.reserve(features.len() * length).map(|share| {
                let mut values = vec![0.0; features.len() * length];
                let all: Vec<usize> = (0..features.len()).collect();
                features.read_batch(&all, &mut values);
                Resident { values, _share: share }
            });
        }
        features
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Shape of one image's features: `[C]` if pooled, else `[H, W, C]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Values of one image: the product of the shape.
    pub fn row_len(&self) -> usize {
        self.length
    }

    /// Whether the values are held in memory, not only mapped.
    #[cfg(test)]
    pub(crate) fn in_memory(&self) -> bool {
        self.resident.is_some()
    }

    /// Reads the features of the request's `position`-th image.
    ///
    /// # Panics
    /// If there is no such image, or `out` is not [`Features::row_len`] long.
    pub fn read(&self, position: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.length, "room for one row");
        match &self.resident {
            Some(resident) => out.copy_from_slice(&resident.values[position * self.length..][..self.length]),
            None => number::decode(self.rows[position].bytes(), self.precision, out),
        }
    }

    /// Reads the features of several images, one after the other.
    ///
    /// # Panics
    /// If there is no such image, or `out` is not `positions.len()` times [`Features::row_len`] long.
    pub fn read_batch(&self, positions: &[usize], out: &mut [f32]) {
        assert_eq!(out.len(), positions.len() * self.length, "room for the rows");
        if self.length == 0 {
            return;
        }
        if out.len() >= PARALLEL {
            let rows = out.par_chunks_exact_mut(self.length).zip(positions);
            rows.for_each(|(out, &position)| self.read(position, out));
        } else {
            let rows = out.chunks_exact_mut(self.length).zip(positions);
            rows.for_each(|(out, &position)| self.read(position, out));
        }
    }
}

/// Rows in memory.
#[derive(Debug)]
struct Resident {
    values: Vec<f32>,
    _share: Share,
}

/// The budget of rows in memory, shared by all features of a cache.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: Arc::default() }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, values: usize) -> Option<Share> {
        let bytes = 4 * values as u64;
        let grow = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.try_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()?;
        Some(Share { used: Arc::clone(&self.used), bytes })
    }
}

/// A part of the memory budget, released when dropped.
#[derive(Debug)]
struct Share {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
