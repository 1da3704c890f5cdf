//! Opening a device, and this process's use of its memory.

use candle_core::{Device, Result};

/// This process's use of a GPU's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Largest amount in use at once since [`forget_peak`].
    pub peak: u64,
    /// In use now.
    pub used: u64,
    /// In use or kept for reuse.
    pub reserved: u64,
    /// Used by no process.
    pub free: u64,
    /// The GPU's memory.
    pub total: u64,
}

/// Opens the `ordinal`-th GPU with one stream, which all threads of this process share. Freed memory is kept for the
/// next step instead of being returned to the GPU at every synchronisation.
///
/// # Errors
/// If there is no such GPU, or this build cannot use it.
pub fn open(ordinal: usize) -> Result<Device> {
    #[cfg(feature = "cuda")]
    {
        let device = Device::new_cuda_with_stream(ordinal)?;
        gpu::prepare(&device)?;
        Ok(device)
    }
    #[cfg(not(feature = "cuda"))]
    Err(candle_core::Error::Msg(format!("GPU {ordinal}: this program was built without the feature `cuda`")))
}

/// The number of visible GPUs.
pub fn count() -> usize {
    #[cfg(feature = "cuda")]
    {
        gpu::count()
    }
    #[cfg(not(feature = "cuda"))]
    0
}

/// A GPU's name; `None` for the CPU.
pub fn name(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    {
        gpu::name(device)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// The versions of CUDA that the driver supports and of cuDNN; `None` in a build without them.
pub fn versions() -> Option<String> {
    #[cfg(feature = "cuda")]
    {
        Some(gpu::versions())
    }
    #[cfg(not(feature = "cuda"))]
    None
}

/// The version of cuDNN; `None` in a build without it.
pub fn cudnn_version() -> Option<String> {
    #[cfg(feature = "cuda")]
    {
        Some(gpu::cudnn_version())
    }
    #[cfg(not(feature = "cuda"))]
    None
}

/// The memory of a GPU; `None` for the CPU, or if the driver does not report it.
pub fn memory(device: &Device) -> Option<Memory> {
    #[cfg(feature = "cuda")]
    {
        gpu::memory(device)
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// Resets [`Memory::peak`].
pub fn forget_peak(device: &Device) {
    #[cfg(feature = "cuda")]
    gpu::forget_peak(device);
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

/// Returns kept memory to the GPU, for other processes or against fragmentation.
pub fn give_back(device: &Device) {
    #[cfg(feature = "cuda")]
    gpu::give_back(device);
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::{Device, Memory, Result};
    use candle_core::Error;
    use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys};
    use std::sync::Arc;
    use sys::CUmemPool_attribute as Attribute;

    pub fn count() -> usize {
        // Without a driver the call itself fails, in some builds with a panic of the loader.
        let found = std::panic::catch_unwind(CudaContext::device_count);
        found.ok().and_then(std::result::Result::ok).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    }

    fn context(device: &Device) -> Option<Arc<CudaContext>> {
        device.as_cuda_device().ok().map(|d| Arc::clone(d.cuda_stream().context()))
    }

    fn pool(context: &CudaContext) -> Option<sys::CUmemoryPool> {
        if !context.has_async_alloc() {
            return None;
        }
        context.bind_to_thread().ok()?;
        // SAFETY: the context's own device.
        unsafe { device::get_mem_pool(context.cu_device()) }.ok()
    }

    fn set(pool: sys::CUmemoryPool, attribute: Attribute, mut value: u64) -> bool {
        // SAFETY: these attributes are 64-bit numbers.
        unsafe { mem_pool::set_attribute(pool, attribute, std::ptr::from_mut(&mut value).cast()) }.is_ok()
    }

    fn get(pool: sys::CUmemoryPool, attribute: Attribute) -> Option<u64> {
        let mut value = 0u64;
        // SAFETY: these attributes are 64-bit numbers.
        unsafe { mem_pool::get_attribute(pool, attribute, std::ptr::from_mut(&mut value).cast()) }.ok()?;
        Some(value)
    }

    pub fn prepare(device: &Device) -> Result<()> {
        let gpu = device.as_cuda_device()?;
        // SAFETY: all that this process does on the GPU goes through this one stream, in order.
        unsafe { gpu.disable_event_tracking() };
        let context = Arc::clone(gpu.cuda_stream().context());
        context.bind_to_thread().map_err(Error::wrap)?;
        if let Some(pool) = pool(&context) {
            set(pool, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX);
        }
        Ok(())
    }

    pub fn name(device: &Device) -> Option<String> {
        context(device)?.name().ok()
    }

    pub fn versions() -> String {
        let mut driver = 0;
        // SAFETY: writes one number.
        let known = unsafe { sys::cuDriverGetVersion(&mut driver) }.result().is_ok();
        let driver = if known { format!("{}.{}", driver / 1000, driver % 1000 / 10) } else { "unknown".to_owned() };
        format!("driver for CUDA {driver}, cuDNN {}", cudnn_version())
    }

    pub fn cudnn_version() -> String {
        let cudnn = candle_core::cuda_backend::cudarc::cudnn::result::get_version();
        format!("{}.{}.{}", cudnn / 10_000, cudnn / 100 % 100, cudnn % 100)
    }

    pub fn memory(device: &Device) -> Option<Memory> {
        let context = context(device)?;
        let pool = pool(&context)?;
        let (free, total) = context.mem_get_info().ok()?;
        Some(Memory {
            peak: get(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            used: get(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            reserved: get(pool, Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            free: free as u64,
            total: total as u64,
        })
    }

    pub fn forget_peak(device: &Device) {
        if let Some(pool) = context(device).and_then(|c| pool(&c)) {
            set(pool, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0);
        }
    }

    pub fn give_back(device: &Device) {
        let _ = device.synchronize();
        if let Some(pool) = context(device).and_then(|c| pool(&c)) {
            // SAFETY: the device's own pool.
            let _ = unsafe { mem_pool::trim_to(pool, 0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_gpu_is_an_error_and_the_cpu_has_neither_gpu_memory_nor_name() {
        let error = open(4096).unwrap_err().to_string();
        assert!(!error.is_empty());
        assert_eq!((memory(&Device::Cpu), name(&Device::Cpu)), (None, None));
        forget_peak(&Device::Cpu);
        give_back(&Device::Cpu);
    }
}
