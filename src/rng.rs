//! Keyed random streams: the only randomness in the crate.
//!
//! A stream is identified by its purpose, never by how much was drawn before it, so no generator has to be
//! saved: a resumed run asks for the same stream and gets the same draws. The key is a BLAKE3 digest of
//! (seed, purpose, counters); the stream is ChaCha with 8 rounds (Bernstein 2008), a counter-based generator.

use rand::{Rng, RngExt, TryRng};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use std::convert::Infallible;

/// What a stream is for. The discriminants are part of every study's results: never renumber them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Purpose {
    /// A parameter's draw; text key: the parameter's name; counters: trial, redraw.
    Parameter = 1,
    /// The split of images and the choice of those shown; counters: stage of the split (test, validation), or class.
    Split = 2,
    /// Order of training images; counters: trial, epoch, fold.
    Shuffle = 3,
    /// Dropout masks; counters: trial, epoch, fold, sample position in the epoch, layer.
    Dropout = 4,
    /// An augmented view; text key: the image's digest; counters: view (bank), or trial and epoch (fresh).
    Augment = 5,
    /// Which view of the bank a sample takes; counters: trial, epoch, image, how often it was seen in the epoch.
    ViewChoice = 6,
    /// Initial weights; text key: the tensor's name; counters: trial and fold for a head, none for a backbone.
    Init = 7,
    /// Bootstrap draws of a report; counters: free.
    Bootstrap = 8,
    /// Over- and undersampling; counters: trial, epoch, fold.
    Resample = 9,
    /// The sampler's own choices; text key: the parameter's name; counters: trial and round (TPE), or the position in
    /// the sequence (Sobol).
    Sampler = 10,
    /// The synthetic data set; text key: what is drawn; counters: image.
    Synthetic = 11,
    /// Tests only.
    Test = 12,
    /// The noise of an augmented view; seeded by the view's draw.
    Noise = 13,
    /// The noise of the synthetic runner; counters: trial, epoch.
    SyntheticTrial = 20,
}

/// A stream of random numbers, fixed by its key alone.
#[derive(Clone, Debug)]
pub struct StreamRng(ChaCha8Rng);

impl StreamRng {
    /// The stream of (`seed`, `purpose`, `counters`).
    pub fn keyed(seed: u64, purpose: Purpose, counters: &[u64]) -> Self {
        Self::named(seed, purpose, "", counters)
    }

    /// The stream of (`seed`, `purpose`, `name`, `counters`), for keys with a text.
    pub fn named(seed: u64, purpose: Purpose, name: &str, counters: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"hpsearch stream 1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&(purpose as u32).to_le_bytes());
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        for counter in counters {
            hasher.update(&counter.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// A uniform number in [0, 1), with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniform integer in `0..n`, without bias.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.random_range(0..n)
    }

    /// 64 random bits, such as the seed of another stream.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A draw from the standard normal distribution.
    pub fn normal(&mut self) -> f32 {
        StandardNormal.sample(&mut self.0)
    }

    /// Fills a slice with random bits: many cheap draws at once, as dropout needs them.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Shuffles a slice in place (Fisher and Yates; Durstenfeld 1964).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }
}

impl TryRng for StreamRng {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_every_part_of_its_key() {
        let first = |s, p, n, c: &[u64]| StreamRng::named(s, p, n, c).next_u64();
        let base = first(1, Purpose::Test, "a", &[2, 3]);
        assert_eq!(base, first(1, Purpose::Test, "a", &[2, 3]));
        assert_ne!(base, first(2, Purpose::Test, "a", &[2, 3]));
        assert_ne!(base, first(1, Purpose::Split, "a", &[2, 3]));
        assert_ne!(base, first(1, Purpose::Test, "b", &[2, 3]));
        assert_ne!(base, first(1, Purpose::Test, "a", &[3, 2]));
        assert_ne!(base, first(1, Purpose::Test, "a", &[2, 3, 0]));
    }

    #[test]
    fn unit_is_uniform() {
        let mut rng = StreamRng::keyed(7, Purpose::Test, &[]);
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|_| rng.unit()).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        // Standard error of the mean of uniform draws: sqrt(1/12/n) = 0.0009.
        assert!((mean - 0.5).abs() < 0.004, "mean {mean}");
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
    }
}
