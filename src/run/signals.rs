//! Ctrl-C, SIGTERM and SIGHUP: in a run, the first asks for a clean stop, the second ends the process at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Listens until dropped.
#[derive(Debug)]
pub(super) struct Listener {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Calls `first` at the first signal with its number; ends the process at the second.
    pub(super) fn new(first: impl Fn(i32) + Send + 'static) -> std::io::Result<Self> {
        let ignored = ignored();
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !ignored.contains(signal)))?;
        let handle = signals.handle();
        let thread = std::thread::spawn(move || {
            let mut asked = false;
            for signal in &mut signals {
                if asked {
                    // Workers end with this process, and what is on record is durable.
                    std::process::exit(exit_code(signal));
                }
                asked = true;
                first(signal);
            }
        });
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The signals that whoever started this process had it ignore: SIGHUP under `nohup`, SIGINT in the background of a script. They
/// stay ignored. Known on Linux only.
fn ignored() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let mask = mask.unwrap_or(0);
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| mask >> (signal - 1) & 1 == 1).collect()
}

/// Notes SIGTERM and SIGHUP, for a program that has a terminal to put in order before it ends.
#[derive(Debug)]
pub struct Termination(Arc<AtomicBool>);

impl Termination {
    /// Listens from now on, as long as the process lives.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> std::io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Whether a signal has asked the program to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The exit code: 130 for Ctrl-C, 143 for the others.
pub(super) fn exit_code(signal: i32) -> i32 {
    if signal == SIGINT { 130 } else { 143 }
}
