//! The optimiser's in-place updates: kernels of `optimiser.cu`, one launch each.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::{CudaStorage, Error, Layout, Result, bail};

/// Compiled from `optimiser.cu` by `scripts/cuda-kernels`.
const PTX: &str = include_str!("optimiser.ptx");

/// Runs `kernel`, which updates the elements of `own` from those of `others`: f32, contiguous, of equal length.
///
/// # Errors
/// If they are not, or the device fails.
pub fn run(
    kernel: &'static str,
    own: (&mut CudaStorage, &Layout),
    others: &[(&CudaStorage, &Layout)],
    factors: &[f32],
) -> Result<()> {
    let device = own.0.device().clone();
    let stream = device.cuda_stream();
    let count = own.1.shape().elem_count();
    let address = |(storage, layout): (&CudaStorage, &Layout)| {
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("{kernel}: an operand is not contiguous") };
        if to - from != count {
            bail!("{kernel}: {} elements beside {count}", to - from);
        }
        Ok(storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0 + 4 * from as u64)
    };
    let mut addresses = vec![address((&*own.0, own.1))?];
    for other in others {
        addresses.push(address(*other)?);
    }
    if count == 0 {
        return Ok(());
    }
    let function = device.get_or_load_custom_func(kernel, "hpsearch-optimiser", PTX)?;
    let length = count as u64;
    let mut launch = function.builder();
    launch.arg(&length);
    for address in &addresses {
        launch.arg(address);
    }
    for factor in factors {
        launch.arg(factor);
    }
    let size = LaunchConfig::for_num_elems(u32::try_from(count).unwrap_or(u32::MAX));
    // SAFETY: the kernel's parameters are a length, as many addresses as operands, and factors; all operands have that
    // length.
    unsafe { launch.launch(size) }.map_err(Error::wrap)?;
    Ok(())
}
