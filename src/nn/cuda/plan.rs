//! What is decided on the host before cuDNN computes: which algorithm, how much workspace, which arithmetic.

use std::sync::atomic::{AtomicU8, Ordering};
use strum::VariantArray;

pub use crate::spec::Precision;

/// The largest workspace that a convolution may use, in bytes.
pub const WORKSPACE: usize = 1 << 30;

/// The arithmetic of this process: an index into [`Precision::VARIANTS`].
static PRECISION: AtomicU8 = AtomicU8::new(1);

/// The arithmetic of this process's convolutions.
pub fn precision() -> Precision {
    Precision::VARIANTS[usize::from(PRECISION.load(Ordering::Relaxed)) % Precision::VARIANTS.len()]
}

/// Sets [`precision`]: once, before a network is built. A process works on one study and so in one arithmetic.
pub fn set_precision(precision: Precision) {
    let index = Precision::VARIANTS.iter().position(|p| *p == precision).unwrap_or(1);
    PRECISION.store(index as u8, Ordering::Relaxed);
}

/// Whether an error says that cuDNN does not know an operation for these types or sizes, rather than that it failed.
pub fn is_refusal(text: &str) -> bool {
    ["NOT_SUPPORTED", "BAD_PARAM", COMPUTES_NO].iter().any(|refusal| text.contains(refusal))
}

/// Part of the error if no algorithm is left.
pub const COMPUTES_NO: &str = "cuDNN computes no";

/// An algorithm that cuDNN offers for a shape. cuDNN lists the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<A, M> {
    /// cuDNN's identifier.
    pub algorithm: A,
    /// The arithmetic it was rated for.
    pub math: M,
    /// Whether it can be used at all.
    pub works: bool,
    /// Bytes of workspace.
    pub workspace: usize,
    /// Whether it gives the same bits each time.
    pub deterministic: bool,
}

/// The offers that may be tried, in cuDNN's order: those that work, give the same bits each time and stay within the
/// workspace; with `math`, only those of this arithmetic.
pub fn eligible<A: Copy, M: Copy + PartialEq>(
    offers: &[Offer<A, M>],
    workspace: usize,
    math: Option<M>,
) -> Vec<Offer<A, M>> {
    let fits = |o: &&Offer<A, M>| {
        o.works && o.deterministic && o.workspace <= workspace && math.is_none_or(|wanted| wanted == o.math)
    };
    offers.iter().filter(fits).copied().collect()
}

/// The outcome of an attempt to run an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It ran.
    Done,
    /// It does not support this shape: not to be tried again.
    Unsupported,
    /// There is no memory for its workspace now.
    NoRoom,
}

/// Tries offers in order until one runs. Unsupported ones are removed for good; after one without memory for its
/// workspace, the next with a smaller workspace is tried. `Ok(false)`: none ran for lack of memory.
///
/// # Errors
/// The first error of `attempt`, or `None` if all offers have been removed.
pub fn first_that_runs<A: Copy, M: Copy, E>(
    offers: &mut Vec<Offer<A, M>>,
    mut attempt: impl FnMut(&Offer<A, M>) -> Result<Attempt, E>,
) -> Result<bool, Option<E>> {
    let mut room = usize::MAX;
    let mut at = 0;
    while at < offers.len() {
        if offers[at].workspace >= room {
            at += 1;
            continue;
        }
        match attempt(&offers[at]).map_err(Some)? {
            Attempt::Done => return Ok(true),
            Attempt::Unsupported => drop(offers.remove(at)),
            Attempt::NoRoom => {
                room = offers[at].workspace;
                at += 1;
            }
        }
    }
    if offers.is_empty() { Err(None) } else { Ok(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(algorithm: u32, math: char, workspace: usize) -> Offer<u32, char> {
        Offer { algorithm, math, works: true, workspace, deterministic: true }
    }

    #[test]
    fn only_working_deterministic_offers_within_the_workspace_are_eligible() {
        let offers = [
            Offer { works: false, ..offer(1, 't', 0) },
            Offer { deterministic: false, ..offer(2, 't', 0) },
            offer(3, 't', 2000),
            offer(4, 'f', 10),
            offer(5, 't', 1000),
        ];
        let chosen = |math| eligible(&offers, 1000, math).iter().map(|o| o.algorithm).collect::<Vec<_>>();
        assert_eq!(chosen(None), [4, 5]);
        assert_eq!(chosen(Some('t')), [5]);
        assert_eq!(chosen(Some('x')), [0u32; 0]);
    }

    #[test]
    fn a_refusal_is_distinguished_from_a_failure() {
        assert!(is_refusal("CudnnError(CUDNN_STATUS_NOT_SUPPORTED_SHAPE)"));
        assert!(is_refusal("CUDNN_STATUS_BAD_PARAM"));
        assert!(is_refusal(&format!("conv: {COMPUTES_NO} shape")));
        for failure in ["CUDNN_STATUS_EXECUTION_FAILED", "out of memory for a workspace", "CUDA_ERROR_ILLEGAL_ADDRESS"]
        {
            assert!(!is_refusal(failure), "{failure}");
        }
    }

    #[test]
    fn unsupported_offers_are_removed_and_the_next_runs() {
        let mut offers = vec![offer(1, 't', 5), offer(2, 't', 5), offer(3, 't', 5)];
        let run =
            |o: &Offer<u32, char>| Ok::<_, ()>(if o.algorithm == 2 { Attempt::Done } else { Attempt::Unsupported });
        assert_eq!(first_that_runs(&mut offers, run), Ok(true));
        assert_eq!(offers.iter().map(|o| o.algorithm).collect::<Vec<_>>(), [2, 3]);
        let mut none = vec![offer(1, 't', 5)];
        assert_eq!(first_that_runs(&mut none, run), Err(None));
        assert_eq!(first_that_runs(&mut vec![offer(9, 't', 0)], |_| Err::<Attempt, _>("lost")), Err(Some("lost")));
    }

    #[test]
    fn without_room_a_smaller_workspace_is_tried_and_nothing_is_removed() {
        let mut offers = vec![offer(1, 't', 500), offer(2, 't', 600), offer(3, 't', 100), offer(4, 't', 0)];
        let mut tried = Vec::new();
        let ran = first_that_runs(&mut offers, |o| {
            tried.push(o.algorithm);
            Ok::<_, ()>(if o.workspace < 50 { Attempt::Done } else { Attempt::NoRoom })
        });
        assert_eq!((ran, tried, offers.len()), (Ok(true), vec![1, 3, 4], 4));
        assert_eq!(first_that_runs(&mut offers, |_| Ok::<_, ()>(Attempt::NoRoom)), Ok(false));
    }
}
