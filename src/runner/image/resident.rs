//! Cached features kept in GPU memory, where they fit: batches are gathered there, without a transfer.

use crate::data::features::Features;
use crate::nn::cuda::device::Memory;
use candle_core::{DType, Device, Result, Tensor};

/// Rows copied to the GPU at once.
const ROWS: usize = 256;

/// Bytes of GPU memory that features may take: half of what this process can still allocate; the rest is for training.
fn room(memory: &Memory) -> u64 {
    (memory.free + memory.reserved.saturating_sub(memory.used)) / 2
}

/// The rows of features on a GPU, `[images, row...]`.
pub struct Resident(Tensor);

impl Resident {
    /// Copies all rows to `device`; `None` on the CPU, where they are read in place, and where they do not fit.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(features: &Features, device: &Device, memory: Option<Memory>) -> Result<Option<Self>> {
        let bytes = 4 * (features.len() * features.row_len()) as u64;
        match memory {
            Some(memory) if bytes > 0 && bytes <= room(&memory) => {
                let mut shape = vec![features.len()];
                shape.extend_from_slice(features.shape());
                let all = Tensor::zeros(shape, DType::F32, device)?;
                let mut values = Vec::new();
                let positions: Vec<usize> = (0..features.len()).collect();
                for (number, positions) in positions.chunks(ROWS).enumerate() {
                    values.resize(positions.len() * features.row_len(), 0.0);
                    features.read_batch(positions, &mut values);
                    let mut shape = vec![positions.len()];
                    shape.extend_from_slice(features.shape());
                    all.slice_set(&Tensor::from_slice(&values, shape, device)?, 0, number * ROWS)?;
                }
                Ok(Some(Self(all)))
            }
            _ => Ok(None),
        }
    }

    /// The rows at these positions.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gather(&self, positions: &[usize]) -> Result<Tensor> {
        let positions: Vec<u32> = positions.iter().map(|&p| p as u32).collect();
        let count = positions.len();
        self.0.index_select(&Tensor::from_vec(positions, count, self.0.device())?, 0)
    }
}

/// Gathers the rows `(shelf, position)` into one tensor in this order, with one gather per shelf.
///
/// # Errors
/// If `wanted` is empty, or the device fails.
pub fn gather(wanted: &[(usize, usize)], of_shelf: impl Fn(usize, &[usize]) -> Result<Tensor>) -> Result<Tensor> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&i| wanted[i].0);
    let by_shelf: Vec<_> = order.chunk_by(|&a, &b| wanted[a].0 == wanted[b].0).collect();
    let pieces = by_shelf.iter().map(|rows| {
        let positions: Vec<usize> = rows.iter().map(|&i| wanted[i].1).collect();
        of_shelf(wanted[rows[0]].0, &positions)
    });
    let pieces = pieces.collect::<Result<Vec<_>>>()?;
    if let [one] = pieces.as_slice() {
        return Ok(one.clone());
    }
    let all = Tensor::cat(&pieces, 0)?;
    let mut places = vec![0u32; wanted.len()];
    for (place, &row) in order.iter().enumerate() {
        places[row] = place as u32;
    }
    all.index_select(&Tensor::from_vec(places, wanted.len(), all.device())?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_views_come_in_the_order_of_the_batch() {
        let shelves = [0f32, 100.0, 200.0].map(|first| {
            let values: Vec<f32> = (0..10).map(|i| first + i as f32).collect();
            Resident(Tensor::from_vec(values, (5, 2), &Device::Cpu).unwrap())
        });
        let rows = |wanted: &[(usize, usize)]| {
            gather(wanted, |shelf, positions| shelves[shelf].gather(positions)).unwrap().to_vec2::<f32>().unwrap()
        };
        let wanted = [(2, 4), (0, 1), (2, 0), (1, 3), (0, 1)];
        let expected: Vec<Vec<f32>> = wanted
            .iter()
            .map(|&(shelf, position)| {
                let first = 100.0 * shelf as f32 + 2.0 * position as f32;
                vec![first, first + 1.0]
            })
            .collect();
        assert_eq!(rows(&wanted), expected);
        assert_eq!(rows(&wanted[..1]), expected[..1]);
        assert!(shelves[0].gather(&[5]).is_err());
    }

    #[test]
    fn rows_may_take_half_of_what_is_left() {
        let memory = Memory { peak: 0, used: 30, reserved: 50, free: 80, total: 200 };
        assert_eq!(room(&memory), 50);
        assert_eq!(room(&Memory { used: 60, ..memory }), 40);
    }
}
