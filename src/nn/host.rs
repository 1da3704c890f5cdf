//! Reading CPU tensors as slices, for operations written by hand.

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// The contiguous f32 values of a storage.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout, what: &'static str) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        _ => Err(Error::Msg(format!("{what} wants contiguous f32 values")).bt()),
    }
}

/// Calls `f` with the values of a contiguous f32 tensor on the CPU, without copying them.
pub(crate) fn with_slice<T>(tensor: &Tensor, what: &'static str, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout, what)?)),
        _ => Err(Error::Msg(format!("{what} wants a tensor on the CPU")).bt()),
    }
}
