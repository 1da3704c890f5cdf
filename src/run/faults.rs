//! The failure class of a worker that died.

use crate::engine::FailureClass;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The kernel's count of out-of-memory kills; `None` where it is not available.
pub(super) fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Failure class and reason for a worker that ended. `status`: `None` if it had to be killed. `kills_before`:
/// [`oom_kills`] when it was started; `words`: its last lines on standard error.
pub(super) fn classify(status: Option<ExitStatus>, kills_before: Option<u64>, words: &str) -> (FailureClass, String) {
    let said = if words.is_empty() { String::new() } else { format!("; its last words: {words}") };
    let Some(status) = status else { return (FailureClass::Lost, format!("the worker closed its pipe{said}")) };
    // Texts of Rust's allocator before it aborts, and of exceptions from CUDA and C++ libraries.
    // The last two are Slurm's.
    let allocation = [
        "memory allocation of",
        "std::bad_alloc",
        "out of memory",
        "OUT_OF_MEMORY",
        "oom-kill event",
        "oom_kill event",
    ];
    if allocation.iter().any(|text| words.contains(text)) {
        return (FailureClass::Oom, format!("the worker ran out of memory{said}"));
    }
    match (status.signal(), status.code()) {
        (Some(9), _) if oom_kills().zip(kills_before).is_some_and(|(now, before)| now > before) => {
            (FailureClass::Oom, "the kernel killed the worker for memory".to_owned())
        }
        (Some(signal), _) => (FailureClass::Lost, format!("the worker was killed by signal {signal}{said}")),
        (None, Some(code)) => (FailureClass::Lost, format!("the worker ended with code {code}{said}")),
        (None, None) => (FailureClass::Lost, format!("the worker ended{said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_deaths_are_classified() {
        let class = |raw, words| classify(Some(ExitStatus::from_raw(raw)), None, words).0;
        assert_eq!(class(9, ""), FailureClass::Lost);
        assert_eq!(class(6, "memory allocation of 9000000000 bytes failed"), FailureClass::Oom);
        assert_eq!(class(1 << 8, "thread panicked"), FailureClass::Lost);
        let (_, reason) = classify(Some(ExitStatus::from_raw(11)), None, "words");
        assert_eq!(reason, "the worker was killed by signal 11; its last words: words");
    }
}
