//! Resolves the requested devices to those of this machine, and counts the workers that share them.

use crate::nn::cuda;
use crate::nn::kernel::Isa;
use crate::nn::kernel::arithmetic::{Arithmetic, has_pairs};
use crate::spec::{BackboneKind, Device, Devices, Precision, StudySpec};

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Built without CUDA.
    #[error(
        "use device `{devices}`: this program was built without CUDA\nhint: build it with `--features cuda`, or use \
         `--device cpu`"
    )]
    NotBuilt {
        /// What was asked for.
        devices: Devices,
    },
    /// No driver, or no GPU.
    #[error(
        "use device `{devices}`: no NVIDIA GPU can be used here ({reason})\nhint: `nvidia-smi` must list one; \
         `--device cpu` works without"
    )]
    NoGpu {
        /// What was asked for.
        devices: Devices,
        /// What the driver says.
        reason: String,
    },
    /// No GPU of this number.
    #[error("use device `cuda:{number}`: there are {there} GPUs, counted from 0")]
    NoSuch {
        /// The number asked for.
        number: usize,
        /// How many GPUs there are.
        there: usize,
    },
    /// The GPU exists but cannot be opened.
    #[error("open device `cuda:{number}`")]
    Open {
        /// Its number.
        number: usize,
        /// What candle says.
        source: candle_core::Error,
    },
}

/// How many GPUs the driver lists. Creates no context, so takes none of their memory.
///
/// # Errors
/// If there is no driver or no GPU, in the driver's words.
#[cfg(feature = "cuda")]
fn gpus() -> Result<usize, String> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    // Depending on how it is linked, cudarc panics where the driver's library is missing.
    match std::panic::catch_unwind(CudaContext::device_count) {
        Ok(Ok(n)) if n > 0 => Ok(n as usize),
        Ok(Ok(_)) => Err("the driver lists none".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the driver's library cannot be loaded".to_owned()),
    }
}

/// The devices to which workers are assigned in turn; at least one.
///
/// # Errors
/// If a requested GPU is not available.
pub fn resolve(devices: &Devices) -> Result<Vec<Device>, DeviceError> {
    Ok(found(devices)?.0)
}

/// The same, and for `auto` what was found, in words.
///
/// # Errors
/// As [`resolve`].
pub fn found(devices: &Devices) -> Result<(Vec<Device>, Option<String>), DeviceError> {
    #[cfg(feature = "cuda")]
    let there = || gpus().map_err(|reason| DeviceError::NoGpu { devices: devices.clone(), reason });
    #[cfg(not(feature = "cuda"))]
    let there = || Err(DeviceError::NotBuilt { devices: devices.clone() });
    match devices {
        Devices::Cpu => Ok((vec![Device::Cpu], None)), // without loading the driver
        other => chosen(other, there()),
    }
}

fn chosen(devices: &Devices, there: Result<usize, DeviceError>) -> Result<(Vec<Device>, Option<String>), DeviceError> {
    match (devices, there) {
        (Devices::Cpu, _) => Ok((vec![Device::Cpu], None)),
        (Devices::Auto, Err(error)) => {
            let why = match error {
                DeviceError::NotBuilt { .. } => "this program was built without CUDA".to_owned(),
                DeviceError::NoGpu { reason, .. } => format!("no NVIDIA GPU can be used here ({reason})"),
                other => other.to_string(),
            };
            Ok((vec![Device::Cpu], Some(format!("cpu, as {why}"))))
        }
        (Devices::Auto, Ok(there)) => {
            let named = |n: usize| match gpu_name(n) {
                Some(name) => format!("cuda:{n}, {name}"),
                None => format!("cuda:{n}"),
            };
            let words = (0..there).map(named).collect::<Vec<_>>().join("; ");
            Ok(((0..there).map(Device::Cuda).collect(), Some(words)))
        }
        (Devices::Cuda(_), Err(error)) => Err(error),
        (Devices::Cuda(numbers), Ok(there)) => match numbers.iter().find(|&&n| n >= there) {
            Some(&number) => Err(DeviceError::NoSuch { number, there }),
            None => Ok((numbers.iter().copied().map(Device::Cuda).collect(), None)),
        },
    }
}

/// What the driver calls a GPU, if it says so.
fn gpu_name(number: usize) -> Option<String> {
    #[cfg(feature = "cuda")]
    {
        use candle_core::cuda_backend::cudarc::driver::result::device;
        device::get_name(device::get(i32::try_from(number).ok()?).ok()?).ok()
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = number;
        None
    }
}

/// Whether a study has networks whose convolutions are our own on the CPU, and so know a precision: InceptionV3.
fn knows_precision(spec: &StudySpec) -> bool {
    spec.networks().iter().any(|network| network.backbone == BackboneKind::InceptionV3)
}

/// What results depend on beyond a study where `device` computes, in words: the processor, its instructions and what they
/// multiply; or the GPU, the version of cuDNN and the precision.
pub fn arithmetic(spec: &StudySpec, device: Device) -> String {
    let precision = spec.run.precision;
    match device {
        Device::Cuda(number) => {
            let name = gpu_name(number).unwrap_or_else(|| "a GPU".to_owned());
            let cudnn = cuda::device::cudnn_version().unwrap_or_default();
            format!("{name}, cuDNN {cudnn}, {precision}")
        }
        Device::Any | Device::Cpu => on_cpu(if knows_precision(spec) { precision } else { Precision::F32 }),
    }
}

fn on_cpu(precision: Precision) -> String {
    let frozen = Arithmetic::frozen(Isa::best(), precision).name();
    let trained = Arithmetic::trained(Isa::best(), precision).name();
    let apart = if frozen == trained { String::new() } else { format!(", frozen layers {frozen}") };
    format!("{} {trained}{apart}", std::env::consts::ARCH)
}

/// What to tell whoever asks for bf16 where this processor computes and does not multiply it.
pub fn remark(spec: &StudySpec, devices: &[Device]) -> Option<String> {
    let here = knows_precision(spec) && spec.cluster.is_none();
    remark_if(has_pairs(), devices, spec.run.precision).filter(|_| here)
}

fn remark_if(has_pairs: bool, devices: &[Device], precision: Precision) -> Option<String> {
    let in_vain = !has_pairs && precision.of_frozen() == Precision::Bf16 && devices.contains(&Device::Cpu);
    in_vain.then(|| {
        format!(
            "`precision = \"{precision}\"` brings nothing on this processor, which has no AVX512-BF16: factors of \
             InceptionV3's convolutions are rounded, and multiplied no faster than with `\"f32\"`"
        )
    })
}

/// Opens a device.
///
/// # Errors
/// If it is not available.
pub fn open(device: Device) -> Result<candle_core::Device, DeviceError> {
    let device = match device {
        Device::Any => resolve(&Devices::Auto)?.first().copied().unwrap_or(Device::Cpu),
        Device::Cuda(number) => resolve(&Devices::Cuda(vec![number]))?[0],
        Device::Cpu => Device::Cpu,
    };
    match device {
        Device::Cuda(number) => cuda::device::open(number).map_err(|source| DeviceError::Open { number, source }),
        Device::Any | Device::Cpu => Ok(candle_core::Device::Cpu),
    }
}

/// The number of worker processes: `per_device` on each device or, without it, `workers` in all but at least one per
/// device.
pub fn workers(workers: u32, per_device: Option<u32>, devices: usize) -> u32 {
    let devices = u32::try_from(devices).unwrap_or(u32::MAX).max(1);
    per_device.map_or(workers.max(devices), |n| n.saturating_mul(devices)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, there: Option<usize>) -> Result<Vec<String>, DeviceError> {
        let devices: Devices = text.parse().unwrap();
        let missing = DeviceError::NoGpu { devices: devices.clone(), reason: "no driver".to_owned() };
        let (chosen, _) = chosen(&devices, there.ok_or(missing))?;
        Ok(chosen.iter().map(Device::to_string).collect())
    }

    #[test]
    fn auto_takes_every_gpu_or_else_the_cpu() {
        assert_eq!(names("auto", Some(2)).unwrap(), ["cuda:0", "cuda:1"]);
        assert_eq!(names("auto", None).unwrap(), ["cpu"]);
        assert_eq!(names("cpu", Some(2)).unwrap(), ["cpu"]);
        assert_eq!(names("cpu", None).unwrap(), ["cpu"]);
    }

    #[test]
    fn auto_says_what_it_found() {
        let missing = || DeviceError::NoGpu { devices: Devices::Auto, reason: "no driver".to_owned() };
        let words = |there| chosen(&Devices::Auto, there).unwrap().1.unwrap();
        assert_eq!(words(Err(missing())), "cpu, as no NVIDIA GPU can be used here (no driver)");
        let unbuilt = DeviceError::NotBuilt { devices: Devices::Auto };
        assert_eq!(words(Err(unbuilt)), "cpu, as this program was built without CUDA");
        assert!(chosen(&"cuda:0".parse().unwrap(), Ok(1)).unwrap().1.is_none());
    }

    #[test]
    fn a_cpus_arithmetic_names_what_its_convolutions_multiply() {
        let of = on_cpu;
        let plain = format!("{} {}", std::env::consts::ARCH, Isa::best().name());
        assert_eq!([of(Precision::F32), of(Precision::Tf32)], [plain.clone(), plain.clone()]);
        let narrow = Arithmetic::bf16(Isa::best()).name();
        assert!(narrow.contains("bf16"), "{narrow}");
        assert_eq!(of(Precision::Bf16), format!("{plain}, frozen layers {narrow}"));
        assert_eq!(of(Precision::Amp), format!("{} {narrow}", std::env::consts::ARCH));
    }

    #[test]
    fn only_inception_knows_a_precision() {
        let of = |network: &str| {
            let study = format!(
                "[data]\nsynthetic = {{ images = 40 }}\nsize = 75\n{network}\n[run]\nprecision = \"amp\"\n[budget]\nn_trials = 2\n"
            );
            let loaded = crate::config::from_text(&study).map_err(|e| e.render(false)).unwrap();
            arithmetic(&loaded.spec, Device::Cpu)
        };
        let tail = "weights = \"random\"\n[space]\nlearning_rate = { type = \"float\", low = 0.001, high = 0.1 }";
        let fixed = |backbone: &str| of(&format!("[network]\nbackbone = \"{backbone}\"\n{tail}"));
        assert!(fixed("inception_v3").contains("bf16") && !fixed("resnet18").contains("bf16"));
        let searched = |choices: &str| of(&format!("[network]\n{tail}\nbackbone = {{ choices = {choices} }}"));
        assert!(searched("[\"resnet18\", \"inception_v3\"]").contains("bf16"));
        assert!(!searched("[\"resnet18\", \"resnet50\"]").contains("bf16"));
    }

    #[test]
    fn bf16_in_vain_is_remarked_on() {
        let remarked = |has_pairs, device, precision| remark_if(has_pairs, &[device], precision).is_some();
        for precision in [Precision::Bf16, Precision::Amp] {
            assert!(remarked(false, Device::Cpu, precision));
            assert!(!remarked(true, Device::Cpu, precision) && !remarked(false, Device::Cuda(0), precision));
        }
        assert!(!remarked(false, Device::Cpu, Precision::Tf32));
    }

    #[test]
    fn a_named_gpu_must_exist() {
        assert_eq!(names("cuda:3,1", Some(4)).unwrap(), ["cuda:3", "cuda:1"]);
        assert!(names("cuda", None).unwrap_err().to_string().contains("`nvidia-smi` must list one"));
        let error = names("cuda:0,4", Some(4)).unwrap_err().to_string();
        assert!(error.starts_with("use device `cuda:4`: there are 4 GPUs"), "{error}");
    }

    #[test]
    fn the_cpu_needs_no_driver_and_a_missing_gpu_is_an_error() {
        assert!(open(Device::Cpu).unwrap().is_cpu());
        assert!(open(Device::Cuda(999)).is_err());
    }

    #[test]
    fn workers_can_be_counted_per_device() {
        assert_eq!(workers(1, None, 1), 1);
        assert_eq!(workers(3, None, 2), 3);
        assert_eq!(workers(1, None, 4), 4);
        assert_eq!(workers(7, Some(2), 3), 6);
    }
}
