//! Prefetching: threads prepare pieces in order before the consumer needs them, a bounded number ahead.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// State shared by the producer threads and the consumer.
struct Queue<T> {
    state: Mutex<State<T>>,
    /// Signals that a piece is ready or work has stopped.
    made: Condvar,
    /// Signals that a piece was taken or work has stopped.
    taken: Condvar,
}

struct State<T> {
    ready: BTreeMap<usize, T>,
    /// The next piece to start.
    next: usize,
    /// Pieces handed to the consumer.
    consumed: usize,
    /// The consumer has finished or failed, or a producer has panicked.
    over: bool,
}

/// Makes pieces `0..count` with `threads` threads, at most `depth` of them ahead of the consumer, and passes them in
/// order to `each` on the calling thread. Returns the total time the calling thread waited for pieces.
///
/// A piece depends on its number alone, so neither the number of threads nor `depth` can change a result. The threads
/// are separate from the pool on which kernels run, and have ended when this returns: after the last piece, after the
/// first error of `each` (which is returned), or after a panic on either side (which is propagated).
///
/// # Panics
/// If `make` or `each` does.
pub fn ahead<T: Send, E>(
    count: usize,
    depth: usize,
    threads: usize,
    make: impl Fn(usize) -> T + Sync,
    mut each: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<Duration, E> {
    let queue = Queue {
        state: Mutex::new(State { ready: BTreeMap::new(), next: 0, consumed: 0, over: false }),
        made: Condvar::new(),
        taken: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| queue.work(count, depth.max(1), &make));
        }
        // Stops the threads also when `each` fails or panics, as the scope waits for them.
        let _end = End(&queue);
        let mut waited = Duration::ZERO;
        for i in 0..count {
            let began = Instant::now();
            let Some(piece) = queue.take(i) else { break };
            waited += began.elapsed();
            each(i, piece)?;
        }
        Ok(waited)
    })
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, count: usize, depth: usize, make: &impl Fn(usize) -> T) {
        loop {
            let full = |s: &mut State<T>| !s.over && s.next < count && s.next >= s.consumed + depth;
            let mut state = self.taken.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
            if state.over || state.next >= count {
                return;
            }
            let i = state.next;
            state.next += 1;
            drop(state);
            // If `make` panics, dropping the guard wakes the consumer, which would otherwise wait for ever.
            let guard = End(self);
            let piece = make(i);
            std::mem::forget(guard);
            self.lock().ready.insert(i, piece);
            self.made.notify_all();
        }
    }

    /// Piece `i`, when it is ready; `None` if a producer has panicked.
    fn take(&self, i: usize) -> Option<T> {
        let missing = |s: &mut State<T>| !s.over && !s.ready.contains_key(&i);
        let mut state = self.made.wait_while(self.lock(), missing).unwrap_or_else(PoisonError::into_inner);
        let piece = state.ready.remove(&i);
        state.consumed = i + 1;
        drop(state);
        self.taken.notify_all();
        piece
    }
}

/// Tells producers and consumer to stop when dropped.
struct End<'a, T>(&'a Queue<T>);

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.made.notify_all();
        self.0.taken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn pieces_come_in_order_whatever_the_threads_and_the_depth() {
        for (threads, depth) in [(1, 1), (3, 1), (2, 4), (8, 100)] {
            let mut seen = Vec::new();
            let each = |i, piece| {
                seen.push((i, piece));
                Ok::<_, Infallible>(())
            };
            ahead(50, depth, threads, |i| i * i, each).unwrap();
            assert_eq!(seen, (0..50).map(|i| (i, i * i)).collect::<Vec<_>>());
        }
        ahead(0, 2, 2, |i| i, |_, _| Err(())).unwrap();
    }

    #[test]
    fn no_more_than_depth_pieces_are_begun_ahead() {
        let (begun, consumed, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let make = |_| {
            most.fetch_max((begun.fetch_add(1, SeqCst) + 1).saturating_sub(consumed.load(SeqCst)), SeqCst);
        };
        let each = |_, ()| {
            consumed.fetch_add(1, SeqCst);
            std::thread::yield_now();
            Ok::<_, Infallible>(())
        };
        ahead(200, 3, 4, make, each).unwrap();
        // The piece that the consumer holds is no longer ahead, though this test has not yet counted it as consumed.
        assert!(most.load(SeqCst) <= 4, "{}", most.load(SeqCst));
    }

    #[test]
    fn the_first_error_stops_all_work() {
        let made = AtomicUsize::new(0);
        let make = |_| made.fetch_add(1, SeqCst);
        let result = ahead(1_000_000, 2, 2, make, |i, _| if i == 5 { Err("enough") } else { Ok(()) });
        assert_eq!(result, Err("enough"));
        assert!(made.load(SeqCst) <= 8);
    }

    #[test]
    fn a_panic_of_a_producer_is_propagated_instead_of_hanging() {
        let make = |i: usize| assert_ne!(i, 3, "made to panic");
        let caught = std::panic::catch_unwind(|| ahead(10, 2, 2, make, |_, ()| Ok::<_, Infallible>(())));
        assert!(caught.is_err());
    }

    #[test]
    fn waiting_is_measured() {
        let slow = |_| std::thread::sleep(Duration::from_millis(5));
        let waited = ahead(4, 1, 1, slow, |_, ()| Ok::<_, Infallible>(())).unwrap();
        assert!(waited >= Duration::from_millis(10), "{waited:?}");
    }
}
