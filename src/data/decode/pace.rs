//! A bound on the memory of images that are being decoded at once.

use std::sync::{Condvar, Mutex, PoisonError};

/// Shared by every decoding thread of the process: 2 GiB of decoded pixels at a time, or a single larger image.
pub(super) static MEMORY: Pace = Pace { limit: 2 << 30, used: Mutex::new(0), freed: Condvar::new() };

/// A semaphore in bytes: admits work while its memory fits the limit.
pub(super) struct Pace {
    limit: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

impl Pace {
    /// Waits until `bytes` more fit, or until nothing else is admitted. Dropping the permit releases them.
    pub(super) fn wait_for(&self, bytes: u64) -> Permit<'_> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut u64| *used > 0 && used.saturating_add(bytes) > self.limit;
        let mut used = self.freed.wait_while(used, full).unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        Permit { pace: self, bytes }
    }
}

/// A share of the memory limit, released when dropped.
pub(super) struct Permit<'a> {
    pace: &'a Pace,
    bytes: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.pace.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.pace.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn no_more_is_granted_than_fits_and_a_giant_goes_alone() {
        let pace = Pace { limit: 10, used: Mutex::new(0), freed: Condvar::new() };
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [4, 4, 4, 50, 3, 3, 3] {
                let (pace, now, most) = (&pace, &now, &most);
                scope.spawn(move || {
                    let _permit = pace.wait_for(bytes);
                    most.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(bytes, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 50, "the giant ran, and ran alone");
        assert_eq!(*pace.used.lock().unwrap(), 0);
    }
}
