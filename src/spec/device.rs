//! Where trials compute, as people write it: `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// GPU numbers from this one on are taken for a mistake.
const MOST: usize = 1000;

/// The devices requested for a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Devices {
    /// Every GPU that can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// These GPUs, each once, in this order; never empty.
    Cuda(Vec<usize>),
}

/// Where one worker computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// Any device: an external program as a trial chooses for itself.
    Any,
    /// The CPU.
    Cpu,
    /// A GPU by its number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Devices {
    /// The devices one by one, without checking that they exist: for external programs as trials, which use them.
    pub fn each(&self) -> Vec<Device> {
        match self {
            Self::Auto => vec![Device::Any],
            Self::Cpu => vec![Device::Cpu],
            Self::Cuda(numbers) => numbers.iter().map(|&number| Device::Cuda(number)).collect(),
        }
    }
}

/// A text that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:N,M`")]
pub struct UnknownDevice(pub String);

impl FromStr for Devices {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let unknown = || UnknownDevice(text.to_owned());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            _ => {
                let mut numbers = Vec::new();
                for number in text.strip_prefix("cuda:").ok_or_else(unknown)?.split(',') {
                    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
                    match number.parse() {
                        Ok(n) if plain && n < MOST && !numbers.contains(&n) => numbers.push(n),
                        _ => return Err(unknown()),
                    }
                }
                Ok(Self::Cuda(numbers))
            }
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

impl TryFrom<String> for Devices {
    type Error = UnknownDevice;

    fn try_from(text: String) -> Result<Self, UnknownDevice> {
        text.parse()
    }
}

impl From<Devices> for String {
    fn from(devices: Devices) -> Self {
        devices.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood_and_written_back() {
        for (text, shown, devices) in [
            ("auto", "auto", Devices::Auto),
            ("cpu", "cpu", Devices::Cpu),
            ("cuda", "cuda:0", Devices::Cuda(vec![0])),
            ("cuda:3", "cuda:3", Devices::Cuda(vec![3])),
            ("cuda:1,0", "cuda:1,0", Devices::Cuda(vec![1, 0])),
        ] {
            assert_eq!(text.parse(), Ok(devices.clone()));
            assert_eq!(devices.to_string(), shown);
            assert_eq!(shown.parse(), Ok(devices));
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for bad in ["", "gpu", "CPU", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:0,", "cuda:,0", "cuda:-1", "cuda:+1"]
        {
            assert!(bad.parse::<Devices>().is_err(), "{bad}");
        }
        for bad in ["cuda:0,0", "cuda:1000", "cuda:0, 1", "cuda:99999999999999999999"] {
            assert!(bad.parse::<Devices>().is_err(), "{bad}");
        }
    }
}
