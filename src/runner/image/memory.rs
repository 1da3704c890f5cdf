//! Peak memory of a trial on its device.

use crate::nn::cuda::device;
use candle_core::Device;

/// Resets the peak on a GPU, before a trial. The peak of the process, used on the CPU, cannot be reset.
pub fn begin(device: &Device) {
    device::forget_peak(device);
}

/// Peak memory in bytes: on the CPU, of this process since it started; on a GPU, of this process since [`begin`].
/// `None` where it is unknown.
pub fn taken(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => resident_peak(&std::fs::read_to_string("/proc/self/status").ok()?),
        gpu => device::memory(gpu).map(|memory| memory.peak),
    }
}

/// Peak resident set size in bytes, from the text of `/proc/self/status`.
fn resident_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_proc_status() {
        assert_eq!(resident_peak("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    1300 kB\nVmRSS:\t 7 kB\n"), Some(1300 * 1024));
        assert_eq!(resident_peak("VmRSS:\t 7 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_of_this_process_is_known() {
        assert!(taken(&Device::Cpu).unwrap() > 1 << 20);
    }
}
