//! Relays between work on another thread and a sink that stays on this one.

use crate::data::{Task, Watch};
use crate::runner::{EpochSink, Phase};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

const POLL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Relay {
    latest: Mutex<Option<(Task, u64, u64)>>,
    /// Unlike progress, every warning is passed on.
    warnings: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Watch for Relay {
    fn progress(&self, task: Task, done: u64, total: u64) {
        if let Ok(mut latest) = self.latest.lock() {
            *latest = Some((task, done, total));
        }
    }
    fn warn(&self, message: &str) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.push(message.to_owned());
        }
    }
    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Relay {
    fn pass_on(&self, sink: &mut dyn EpochSink) {
        for warning in self.warnings.lock().map(|mut w| std::mem::take(&mut *w)).unwrap_or_default() {
            sink.warn(&warning);
        }
        let latest = self.latest.lock().ok().and_then(|mut latest| latest.take());
        if let Some((task, done, total)) = latest {
            sink.progress(Phase::Prepare(task), done, total);
        }
    }
}

/// Runs `work` on a thread of its own; meanwhile passes its progress and warnings to `sink`, and interrupts from `sink`
/// to it.
pub fn watched<T: Send>(sink: &mut dyn EpochSink, work: impl FnOnce(&dyn Watch) -> T + Send) -> T {
    let relay = Relay::default();
    std::thread::scope(|scope| {
        let (done, finished) = channel::<()>();
        let worker = scope.spawn({
            let relay = &relay;
            move || {
                let _done = done; // dropped at the end, even after a panic
                work(relay)
            }
        });
        while let Err(RecvTimeoutError::Timeout) = finished.recv_timeout(POLL) {
            if sink.interrupted() {
                relay.stop.store(true, Ordering::Relaxed);
            }
            relay.pass_on(sink);
        }
        relay.pass_on(sink);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
