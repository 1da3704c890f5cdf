//! From candle's tensors to slices and back.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

/// The elements of an operand of a custom operation: f32, contiguous.
pub(super) fn elements<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: an operand is not contiguous") };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// The elements of a small tensor on any device, in row-major order.
pub(super) fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.flatten_all()?.to_vec1::<f32>()
}

/// Values as the bytes of a file: f32, little-endian.
pub(crate) fn little_endian(values: &[f32]) -> Vec<u8> {
    // Written so that it becomes one copy: flattening an iterator of arrays may go byte by byte.
    let mut bytes = vec![0; size_of_val(values)];
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    bytes
}

/// Calls `f` with the elements of a tensor in host memory.
pub(super) fn with_elements<R>(op: &str, t: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(elements(op, storage, layout)?),
        _ => bail!("{op}: not in host memory"),
    }
}

/// A feature map's four dimensions.
pub(super) fn dims4(op: &str, dims: &[usize]) -> Result<[usize; 4]> {
    match dims.try_into() {
        Ok(dims) => Ok(dims),
        Err(_) => bail!("{op}: expected [N, H, W, C], got {dims:?}"),
    }
}
