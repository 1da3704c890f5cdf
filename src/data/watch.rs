//! Whoever waits for long work on images: hears how far it is, and may call it off.

/// Told from any thread while images are read, decoded or waited for.
pub trait Watch: Sync {
    /// So many of so many are done of this (`reading`, `decoding`, `waiting for another process`).
    fn progress(&self, _what: &str, _done: u64, _total: u64) {}
    /// Something was wrong and has been put right, such as a torn file that is made again.
    fn warn(&self, _message: &str) {}
    /// Whether to stop as soon as possible.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Hears nothing, calls nothing off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Watch for Quiet {}
