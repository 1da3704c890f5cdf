//! Concatenation along the channels. candle's own backward pass adds strided views one element at a time.

use crate::nn::operation::{Host, Operation, apply2, apply3, forward1};
use candle_core::{Result, Shape, Tensor, bail};

/// Concatenates feature maps `[..., C_i]` along the last dimension, with gradients.
///
/// # Errors
/// If there are none, or their shapes differ in more than the channels.
pub fn concat(pieces: &[Tensor]) -> Result<Tensor> {
    match pieces {
        [] => bail!("nothing to concatenate"),
        [a] => Ok(a.clone()),
        [a, b] => apply2(Concat, a, b),
        [a, b, c] => apply3(Concat, a, b, c),
        [a, b, c, rest @ ..] => {
            let mut all = vec![apply3(Concat, a, b, c)?];
            all.extend_from_slice(rest);
            concat(&all)
        }
    }
}

struct Concat;

impl Concat {
    fn forward(&self, pieces: &[Host<'_>]) -> Result<(Vec<f32>, Shape)> {
        let mut parts = Vec::with_capacity(pieces.len());
        let Some(first) = pieces.first() else { bail!("nothing to concatenate") };
        let Some((_, outer)) = first.dims.split_last() else { bail!("a scalar has no channels") };
        for piece in pieces {
            match piece.dims.split_last() {
                Some((&channels, dims)) if dims == outer && channels > 0 => {
                    parts.push(piece.values.chunks_exact(channels));
                }
                _ => bail!("concat: {:?} beside {:?}", piece.dims, first.dims),
            }
        }
        let channels = pieces.iter().map(|p| p.dims[outer.len()]).sum::<usize>();
        let pixels = outer.iter().product::<usize>();
        let mut out = Vec::with_capacity(pixels * channels);
        for _ in 0..pixels {
            for part in &mut parts {
                out.extend_from_slice(part.next().unwrap_or_default());
            }
        }
        let shape: Vec<usize> = outer.iter().copied().chain([channels]).collect();
        Ok((out, shape.into()))
    }
}

/// The gradient of one piece.
fn slice(grad: &Tensor, offset: &mut usize, piece: &Tensor) -> Result<Option<Tensor>> {
    let channels = *piece.dims().last().unwrap_or(&0);
    let op = Slice { offset: *offset, channels };
    *offset += channels;
    if piece.track_op() { forward1(op, grad).map(Some) } else { Ok(None) }
}

impl Operation<2> for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn on_host(&self, pieces: [Host<'_>; 2]) -> Result<(Vec<f32>, Shape)> {
        self.forward(&pieces)
    }

    fn gradients(&self, [a, b]: [&Tensor; 2], _: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let mut at = 0;
        Ok([slice(grad, &mut at, a)?, slice(grad, &mut at, b)?])
    }
}

impl Operation<3> for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn on_host(&self, pieces: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        self.forward(&pieces)
    }

    fn gradients(&self, [a, b, c]: [&Tensor; 3], _: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let mut at = 0;
        Ok([slice(grad, &mut at, a)?, slice(grad, &mut at, b)?, slice(grad, &mut at, c)?])
    }
}

/// Some channels of every pixel.
struct Slice {
    offset: usize,
    channels: usize,
}

impl Operation<1> for Slice {
    fn name(&self) -> &'static str {
        "channel-slice"
    }

    fn on_host(&self, [x]: [Host<'_>; 1]) -> Result<(Vec<f32>, Shape)> {
        let Some((&stride, outer)) = x.dims.split_last() else { bail!("a scalar has no channels") };
        let mut out = Vec::with_capacity(outer.iter().product::<usize>() * self.channels);
        for pixel in x.values.chunks_exact(stride.max(1)) {
            out.extend_from_slice(&pixel[self.offset..self.offset + self.channels]);
        }
        let shape: Vec<usize> = outer.iter().copied().chain([self.channels]).collect();
        Ok((out, shape.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{elements, gradients, numbers, var};

    #[test]
    fn values_and_gradients_agree_with_those_of_candle() {
        for pieces in 1..=6 {
            let vars: Vec<_> = (0..pieces).map(|i| var(&numbers(i as u64, 4 * (i + 1)), &[1, 2, 2, i + 1])).collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let ours = concat(&tensors).unwrap();
            assert_eq!(elements(&ours), elements(&Tensor::cat(&tensors, 3).unwrap()));
            let weights = numbers(9, ours.elem_count());
            let refs: Vec<_> = vars.iter().collect();
            let theirs = Tensor::cat(&tensors, 3).unwrap();
            assert_eq!(gradients(&ours, &weights, &refs), gradients(&theirs, &weights, &refs));
        }
    }

    #[test]
    fn unequal_images_are_refused() {
        let (a, b) = (var(&[0.0; 4], &[1, 2, 2, 1]), var(&[0.0; 2], &[1, 2, 1, 1]));
        assert!(concat(&[a.as_tensor().clone(), b.as_tensor().clone()]).is_err());
        assert!(concat(&[]).is_err());
    }
}
