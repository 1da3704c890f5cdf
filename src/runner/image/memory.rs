//! What a trial takes of its device's memory.

use crate::nn::cuda::device;
use candle_core::Device;

/// Begins the measurement of a trial on a GPU. A process's own peak cannot be forgotten.
pub fn begin(device: &Device) {
    device::forget_peak(device);
}

/// The most that was taken at once, in bytes: on the CPU by this process since it began, on a GPU by this process since
/// [`begin`]. `None` where that cannot be told.
pub fn taken(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => resident_peak(&std::fs::read_to_string("/proc/self/status").ok()?),
        gpu => device::memory(gpu).map(|memory| memory.peak),
    }
}

/// Linux's count of the most resident pages of a process.
fn resident_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_kernels_words() {
        assert_eq!(resident_peak("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    1300 kB\nVmRSS:\t 7 kB\n"), Some(1300 * 1024));
        assert_eq!(resident_peak("VmRSS:\t 7 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_something() {
        assert!(taken(&Device::Cpu).unwrap() > 1 << 20);
    }
}
