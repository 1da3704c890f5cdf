//! Operations of candle's graph, composed of primitives that a GPU provides.
//!
//! Feature maps are `[N, H, W, C]`, convolution weights `[O, KH, KW, I]`.

use crate::nn::kernel::{ConvShape, Window};
use crate::nn::pool::PoolKind;
use crate::nn::tensor::dims4;
#[cfg(any(test, feature = "cuda"))]
use candle_core::Storage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Tensor, bail,
};
use std::sync::{Arc, OnceLock};

/// An operation that a device computes in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Primitive {
    /// A convolution, from input and weights.
    Convolve(ConvShape),
    /// `relu(conv + bias)`, from input, weights and bias.
    ConvolveBiasRelu(ConvShape),
    /// The gradient of a convolution's input, from weights and the output's gradient.
    DataGradient(ConvShape),
    /// The gradient of a convolution's weights, from input and the output's gradient.
    FilterGradient(ConvShape),
    /// The gradient of a ReLU's input, from its output and the output's gradient.
    ReluGradient,
    /// The sum of each channel over all pixels.
    ChannelSums,
    /// A pool.
    Pool(ConvShape, PoolKind),
    /// The gradient of a pool's input, from its input, its output and the output's gradient.
    PoolGradient(ConvShape, PoolKind),
    /// Feature maps concatenated along the channels.
    Concat,
    /// Some channels of every pixel.
    Slice { offset: usize, channels: usize },
}

impl Primitive {
    fn label(&self) -> &'static str {
        match self {
            Self::Convolve(_) => "conv",
            Self::ConvolveBiasRelu(_) => "conv-bias-relu",
            Self::DataGradient(_) => "conv-input-gradient",
            Self::FilterGradient(_) => "conv-weight-gradient",
            Self::ReluGradient => "relu-gradient",
            Self::ChannelSums => "channel-sums",
            Self::Pool(..) => "pool",
            Self::PoolGradient(..) => "pool-gradient",
            Self::Concat => "concat",
            Self::Slice { .. } => "channel-slice",
        }
    }

    /// The shape of the result, from those of the operands.
    fn shape(&self, operands: &[&[usize]]) -> Result<Vec<usize>> {
        let output = |s: &ConvShape| vec![s.batch, s.output[0], s.output[1], s.cout];
        let input = |s: &ConvShape| vec![s.batch, s.input[0], s.input[1], s.cin];
        let weights = |s: &ConvShape| vec![s.cout, s.window.kernel[0], s.window.kernel[1], s.cin];
        let (expected, result) = match self {
            Self::Convolve(s) => (vec![input(s), weights(s)], output(s)),
            Self::ConvolveBiasRelu(s) => (vec![input(s), weights(s), vec![s.cout]], output(s)),
            Self::DataGradient(s) => (vec![weights(s), output(s)], input(s)),
            Self::FilterGradient(s) => (vec![input(s), output(s)], weights(s)),
            Self::Pool(s, _) => (vec![input(s)], output(s)),
            Self::PoolGradient(s, _) => (vec![input(s), output(s), output(s)], input(s)),
            Self::ReluGradient | Self::ChannelSums => {
                let map = dims4(self.label(), operands[0])?.to_vec();
                let result = if *self == Self::ChannelSums { vec![map[3]] } else { map.clone() };
                (vec![map; operands.len()], result)
            }
            Self::Slice { offset, channels } => {
                let [n, h, w, c] = dims4(self.label(), operands[0])?;
                if offset + channels > c {
                    bail!("{}: {channels} channels from {offset} on of {c}", self.label());
                }
                (vec![vec![n, h, w, c]], vec![n, h, w, *channels])
            }
            Self::Concat => {
                let maps = operands.iter().map(|d| dims4(self.label(), d)).collect::<Result<Vec<_>>>()?;
                let [n, h, w, _] = maps[0];
                let channels = maps.iter().map(|m| m[3]).sum();
                (maps.iter().map(|m| vec![n, h, w, m[3]]).collect(), vec![n, h, w, channels])
            }
        };
        if operands != expected {
            bail!("{}: operands of {operands:?}, expected {expected:?}", self.label());
        }
        Ok(result)
    }

    fn on_cpu(&self, operands: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let dims: Vec<&[usize]> = operands.iter().map(|(_, l)| l.dims()).collect();
        let shape = self.shape(&dims)?;
        #[cfg(test)]
        {
            let result = super::host::compute(self, operands)?;
            assert_eq!(result.len(), shape.iter().product::<usize>(), "{self:?}");
            Ok((super::host::like(operands[0].0, result), shape.into()))
        }
        #[cfg(not(test))]
        bail!("{}: on a GPU only; {shape:?}", self.label())
    }

    #[cfg(feature = "cuda")]
    fn on_gpu(&self, operands: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        use super::cudnn::{self, Operand, PoolMode};
        use crate::nn::kernel::pool_cpu::Divisor;
        use candle_core::backend::{BackendDevice, BackendStorage};
        let dims: Vec<&[usize]> = operands.iter().map(|(_, l)| l.dims()).collect();
        let shape = self.shape(&dims)?;
        let map = |i: usize| dims4(self.label(), dims[i]);
        let mode = |kind: &PoolKind| match kind {
            PoolKind::Max => PoolMode::Max,
            PoolKind::Average(Divisor::Window) => PoolMode::AverageCounted,
            PoolKind::Average(Divisor::Inside) => PoolMode::AverageExcluded,
        };
        let device = operands[0].0.device().clone();
        if let Self::Concat | Self::Slice { .. } = self {
            let [n, h, w, channels] = dims4(self.label(), &shape)?;
            // SAFETY: the pieces fill it.
            let mut out = unsafe { device.alloc_uninit(&shape.as_slice().into(), operands[0].0.dtype()) }?;
            let mut column = 0;
            for (i, (storage, layout)) in operands.iter().enumerate() {
                let Some((start, _)) = layout.contiguous_offsets() else {
                    bail!("{}: an operand is not contiguous", self.label())
                };
                let own = map(i)?[3];
                let (start, width) = match self {
                    Self::Slice { offset, channels } => (start + offset, *channels),
                    _ => (start, own),
                };
                storage.copy2d(&mut out, n * h * w, width, own, channels, start, column)?;
                column += width;
            }
            return Ok((out, shape.into()));
        }
        let compute = |operands: &[(&CudaStorage, &Layout)]| {
            let at = |i: usize| Operand { storage: operands[i].0, layout: operands[i].1 };
            cudnn::with(&device, |gpu| match self {
                Self::Convolve(s) => gpu.convolve(s, at(0), at(1), None),
                Self::ConvolveBiasRelu(s) => gpu.convolve(s, at(0), at(1), Some(at(2))),
                Self::DataGradient(s) => gpu.data_gradient(s, at(0), at(1)),
                Self::FilterGradient(s) => gpu.filter_gradient(s, at(0), at(1)),
                Self::ReluGradient => gpu.relu_gradient(map(0)?, at(0), at(1)),
                Self::ChannelSums => gpu.channel_sums(map(0)?, at(0)),
                Self::Pool(s, kind) => gpu.pool(s, mode(kind), at(0)),
                Self::PoolGradient(s, kind) => gpu.pool_gradient(s, mode(kind), [at(0), at(1), at(2)]),
                Self::Concat | Self::Slice { .. } => bail!("{}: not of cuDNN", self.label()),
            })
        };
        let result = match compute(operands) {
            // cuDNN's versions differ in the operations they support in bf16; all support f32.
            Err(e) if operands[0].0.dtype() == DType::BF16 && super::plan::is_refusal(&e.to_string()) => {
                let wide = |(storage, layout): &(&CudaStorage, &Layout)| {
                    Ok((storage.to_dtype(layout, DType::F32)?, Layout::contiguous(layout.shape())))
                };
                let wide = operands.iter().map(wide).collect::<Result<Vec<_>>>()?;
                let result = compute(&wide.iter().map(|(storage, layout)| (storage, layout)).collect::<Vec<_>>())?;
                result.to_dtype(&Layout::contiguous(shape.as_slice()), DType::BF16)?
            }
            result => result?,
        };
        Ok((result, shape.into()))
    }

    #[cfg(not(feature = "cuda"))]
    fn on_gpu(&self, _: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        Err(Error::NotCompiledWithCudaSupport)
    }

    /// The gradients of the operands.
    fn gradients(&self, operands: &[&Tensor], y: &Tensor, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let dy = dy.contiguous()?;
        let plain: Vec<Tensor> = operands.iter().map(|t| t.detach()).collect();
        let wanted = |i: usize, f: &dyn Fn() -> Result<Tensor>| {
            if operands[i].track_op() { f().map(Some) } else { Ok(None) }
        };
        match self {
            Self::Convolve(s) => {
                let dx = wanted(0, &|| plain[1].apply_op2_no_bwd(&dy, &Self::DataGradient(*s)))?;
                let dw = wanted(1, &|| plain[0].apply_op2_no_bwd(&dy, &Self::FilterGradient(*s)))?;
                Ok(vec![dx, dw])
            }
            Self::ConvolveBiasRelu(s) => {
                let sums = y.detach().apply_op2_no_bwd(&dy, &Self::ReluGradient)?;
                let dx = wanted(0, &|| plain[1].apply_op2_no_bwd(&sums, &Self::DataGradient(*s)))?;
                let dw = wanted(1, &|| plain[0].apply_op2_no_bwd(&sums, &Self::FilterGradient(*s)))?;
                let db = wanted(2, &|| sums.apply_op1_no_bwd(&Self::ChannelSums))?;
                Ok(vec![dx, dw, db])
            }
            Self::Pool(s, kind) => {
                let gradient = Self::PoolGradient(*s, *kind);
                Ok(vec![wanted(0, &|| plain[0].apply_op3_no_bwd(&y.detach(), &dy, &gradient))?])
            }
            Self::Concat => {
                let mut offset = 0;
                let mut all = Vec::with_capacity(operands.len());
                for (i, piece) in operands.iter().enumerate() {
                    let channels = dims4(self.label(), piece.dims())?[3];
                    let slice = Self::Slice { offset, channels };
                    all.push(wanted(i, &|| dy.apply_op1_no_bwd(&slice))?);
                    offset += channels;
                }
                Ok(all)
            }
            _ => Err(Error::BackwardNotSupported { op: self.label() }),
        }
    }
}

impl CustomOp1 for Primitive {
    fn name(&self) -> &'static str {
        self.label()
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu(&[(s, l)])
    }
    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_gpu(&[(s, l)])
    }
    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.gradients(&[x], y, dy)?.pop().flatten())
    }
}

impl CustomOp2 for Primitive {
    fn name(&self) -> &'static str {
        self.label()
    }
    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu(&[(s1, l1), (s2, l2)])
    }
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_gpu(&[(s1, l1), (s2, l2)])
    }
    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut all = self.gradients(&[a, b], y, dy)?.into_iter();
        Ok((all.next().flatten(), all.next().flatten()))
    }
}

impl CustomOp3 for Primitive {
    fn name(&self) -> &'static str {
        self.label()
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu(&[(s1, l1), (s2, l2), (s3, l3)])
    }
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_gpu(&[(s1, l1), (s2, l2), (s3, l3)])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut all = self.gradients(&[a, b, c], y, dy)?.into_iter();
        Ok((all.next().flatten(), all.next().flatten(), all.next().flatten()))
    }
}

fn conv_shape(window: Window, x: &Tensor, cout: usize) -> Result<ConvShape> {
    let input = dims4("conv", x.dims())?;
    match ConvShape::new(input, cout, window) {
        Some(shape) => Ok(shape),
        None => bail!("an image of {}x{} is too small for {window:?}", input[1], input[2]),
    }
}

/// A parameter converted to the type of `x`. Its gradient is converted back to the parameter's own type.
fn like(x: &Tensor, parameter: &Tensor) -> Result<Tensor> {
    parameter.to_dtype(x.dtype())?.contiguous()
}

/// The convolution of `x` with `weights`, with gradients of both. It is computed in the type of `x`.
///
/// # Errors
/// If shapes do not fit, or the device fails.
pub fn conv(window: Window, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let shape = conv_shape(window, x, weights.dim(0)?)?;
    x.contiguous()?.apply_op2(&like(x, weights)?, Primitive::Convolve(shape))
}

/// `relu(conv(x, weights) + bias)`, with gradients of all. It is computed in the type of `x`.
///
/// # Errors
/// If shapes do not fit, or the device fails.
pub fn conv_bias_relu(window: Window, x: &Tensor, weights: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let shape = conv_shape(window, x, weights.dim(0)?)?;
    x.contiguous()?.apply_op3(&like(x, weights)?, &like(x, bias)?, Primitive::ConvolveBiasRelu(shape))
}

/// `relu(scale * conv(x, weights) + bias)` by output channel, with gradients of all. The scale is multiplied into
/// the weights, which are small, and candle's graph derives its gradient from theirs.
///
/// # Errors
/// If shapes do not fit, or the device fails.
pub fn conv_affine_relu(window: Window, x: &Tensor, weights: &Tensor, scale: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let scale = scale.reshape((scale.elem_count(), 1, 1, 1))?;
    conv_bias_relu(window, x, &weights.broadcast_mul(&scale)?, bias)
}

/// The pool of `x`, with a gradient.
///
/// # Errors
/// If the window does not fit, or the device fails.
pub fn pool(window: Window, kind: PoolKind, x: &Tensor) -> Result<Tensor> {
    let shape = conv_shape(window, x, dims4("pool", x.dims())?[3])?;
    x.contiguous()?.apply_op1(Primitive::Pool(shape, kind))
}

/// Feature maps concatenated along the channels, with gradients.
///
/// # Errors
/// If there are none, their heights, widths or batch sizes differ, or the device fails.
pub fn concat(pieces: &[Tensor]) -> Result<Tensor> {
    match pieces {
        [] => bail!("nothing to concatenate"),
        [a] => Ok(a.clone()),
        [a, b] => a.contiguous()?.apply_op2(&b.contiguous()?, Primitive::Concat),
        [a, b, c] => a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, Primitive::Concat),
        // In pairs: the last two first, so that the widest copies are made once.
        [first @ .., a, b] => concat(&[first, &[concat(&[a.clone(), b.clone()])?]].concat()),
    }
}

/// Mean and unbiased variance (divided by n - 1) of a batch, by channel.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    pub mean: Tensor,
    pub variance: Tensor,
}

/// Batch norm with the batch's statistics, then ReLU, with gradients of all; and the statistics. It is computed in
/// f32; the result has the type of `x`.
///
/// # Errors
/// If shapes do not fit, or the device fails.
pub fn batch_norm_relu(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<(Tensor, BatchMoments)> {
    let channels = dims4("batch norm", x.dims())?[3];
    if gamma.dims() != [channels] || beta.dims() != [channels] {
        bail!("batch norm: {:?} with {:?} scales and {:?} shifts", x.dims(), gamma.dims(), beta.dims());
    }
    let stats = Arc::<OnceLock<Tensor>>::default();
    let op = NormRelu { eps, stats: Arc::clone(&stats) };
    let wide = x.to_dtype(DType::F32)?.contiguous()?;
    let y = wide.apply_op3(&gamma.contiguous()?, &beta.contiguous()?, op)?.to_dtype(x.dtype())?;
    let Some(stats) = stats.get() else { bail!("batch norm left no statistics") };
    Ok((y, BatchMoments { mean: stats.get(0)?, variance: stats.get(1)? }))
}

/// See [`batch_norm_relu`].
struct NormRelu {
    eps: f32,
    /// `[4, C]`: mean, unbiased variance, mean, 1 / standard deviation.
    stats: Arc<OnceLock<Tensor>>,
}

/// A tensor of computed values, without gradients.
#[cfg(any(test, feature = "cuda"))]
fn wrapped(storage: Storage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(storage, shape, candle_core::op::BackpropOp::none(), false)
}

impl CustomOp3 for NormRelu {
    fn name(&self) -> &'static str {
        "batch-norm-relu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        #[cfg(test)]
        {
            let (y, stats) = super::host::normalise_relu(self.eps, [(s1, l1), (s2, l2), (s3, l3)])?;
            let stats = wrapped(Storage::Cpu(CpuStorage::F32(stats)), (4, l2.dims()[0]));
            drop(self.stats.set(stats));
            Ok((CpuStorage::F32(y), l1.shape().clone()))
        }
        #[cfg(not(test))]
        {
            let _ = (s1, s2, l2, s3, l3);
            bail!("batch norm of {:?}: on a GPU only", l1.dims())
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        use super::cudnn::{self, Operand};
        use candle_core::backend::BackendStorage;
        let operands = [(s1, l1), (s2, l2), (s3, l3)].map(|(storage, layout)| Operand { storage, layout });
        let dims = dims4("batch norm", l1.dims())?;
        let (y, stats) = cudnn::with(s1.device(), |gpu| gpu.normalise_relu(dims, self.eps, operands))?;
        drop(self.stats.set(wrapped(Storage::Cuda(stats), (4, dims[3]))));
        Ok((y, l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(stats) = self.stats.get() else { bail!("batch norm was not applied") };
        let dy = y.detach().apply_op2_no_bwd(&dy.contiguous()?, &Primitive::ReluGradient)?;
        let op = NormGradient { eps: self.eps, stats: stats.clone(), parameters: OnceLock::new() };
        let dx = x.detach().apply_op3_no_bwd(&gamma.detach(), &dy, &op)?;
        let Some(parameters) = op.parameters.get() else { bail!("batch norm left no gradients") };
        Ok((Some(dx), Some(parameters.get(0)?), Some(parameters.get(1)?)))
    }
}

/// The gradient of the input, from input, scale and the gradient before the ReLU; those of scale and shift are stored.
struct NormGradient {
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))] // only cuDNN needs it
    eps: f32,
    stats: Tensor,
    /// `[2, C]`.
    parameters: OnceLock<Tensor>,
}

impl CustomOp3 for NormGradient {
    fn name(&self) -> &'static str {
        "batch-norm-gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        #[cfg(test)]
        {
            let (stats, stats_layout) = self.stats.storage_and_layout();
            let Storage::Cpu(stats) = &*stats else { bail!("statistics are elsewhere") };
            let operands = [(s1, l1), (s2, l2), (s3, l3), (stats, stats_layout)];
            let (dx, parameters) = super::host::normalise_gradient(operands)?;
            let parameters = wrapped(Storage::Cpu(CpuStorage::F32(parameters)), (2, l2.dims()[0]));
            drop(self.parameters.set(parameters));
            Ok((CpuStorage::F32(dx), l1.shape().clone()))
        }
        #[cfg(not(test))]
        {
            let _ = (s1, s2, l2, s3, l3, &self.eps, &self.stats);
            bail!("batch norm of {:?}: on a GPU only", l1.dims())
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        use super::cudnn::{self, Operand};
        use candle_core::backend::BackendStorage;
        let (stats, stats_layout) = self.stats.storage_and_layout();
        let Storage::Cuda(stats) = &*stats else { bail!("statistics are elsewhere") };
        let operands =
            [(s1, l1), (s2, l2), (s3, l3), (stats, stats_layout)].map(|(storage, layout)| Operand { storage, layout });
        let dims = dims4("batch norm", l1.dims())?;
        let (dx, parameters) = cudnn::with(s1.device(), |gpu| gpu.normalise_gradient(dims, self.eps, operands))?;
        drop(self.parameters.set(wrapped(Storage::Cuda(parameters), (2, dims[3]))));
        Ok((dx, l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::pool_cpu::Divisor;
    use crate::nn::reference::{self, assert_close, differences, dot, elements, gradients, numbers, var};

    /// Input, output channels, window: those of InceptionV3, and unusual ones.
    fn cases() -> impl Iterator<Item = ([usize; 4], usize, Window)> {
        [
            ([2, 5, 6, 7], 9, Window::new([1, 1], 1, [0, 0])),
            ([1, 7, 6, 3], 5, Window::new([3, 3], 2, [0, 0])),
            ([2, 6, 5, 4], 3, Window::new([3, 3], 1, [1, 1])),
            ([1, 4, 9, 2], 6, Window::new([1, 7], 1, [0, 3])),
            ([1, 9, 4, 2], 5, Window::new([7, 1], 1, [3, 0])),
            ([1, 8, 7, 2], 3, Window::new([2, 3], 3, [1, 2])),
        ]
        .into_iter()
    }

    #[test]
    fn a_convolution_with_scale_bias_and_relu_agrees_with_finite_differences() {
        for (input, cout, window) in cases() {
            let shape = ConvShape::new(input, cout, window).unwrap();
            let what = format!("{input:?}, {cout}, {window:?}");
            let [kh, kw] = window.kernel;
            let (x, scale, bias) = (numbers(1, input.iter().product()), numbers(3, cout), numbers(4, cout));
            let (weights, grad) = (numbers(2, cout * kh * kw * input[3]), numbers(5, shape.output_pixels() * cout));
            let vars =
                [var(&x, &input), var(&weights, &[cout, input[3], kh, kw]), var(&scale, &[cout]), var(&bias, &[cout])];
            let rows = vars[1].permute((0, 2, 3, 1)).unwrap();
            let y = conv_affine_relu(window, &vars[0], &rows, &vars[2], &vars[3]).unwrap();
            let f = |x: &[f64], w: &[f64], s: &[f64], b: &[f64]| {
                reference::affine_relu(&reference::conv(&shape, x, w), &[s, b].concat())
            };
            assert_close(&elements(&y), &f(&x, &weights, &scale, &bias), 1e-6, &what);
            let ours = gradients(&y, &grad, &vars.iter().collect::<Vec<_>>());
            let by = [
                differences(&x, |x| dot(&f(x, &weights, &scale, &bias), &grad)),
                differences(&weights, |w| dot(&f(&x, w, &scale, &bias), &grad)),
                differences(&scale, |s| dot(&f(&x, &weights, s, &bias), &grad)),
                differences(&bias, |b| dot(&f(&x, &weights, &scale, b), &grad)),
            ];
            ours.iter().zip(&by).for_each(|(ours, by)| assert_close(ours, by, 2e-6, &what));
        }
    }

    #[test]
    fn a_plain_convolution_agrees_with_finite_differences() {
        for (input, cout, window) in cases() {
            let shape = ConvShape::new(input, cout, window).unwrap();
            let [kh, kw] = window.kernel;
            let (x, weights) = (numbers(1, input.iter().product()), numbers(2, cout * kh * kw * input[3]));
            let grad = numbers(5, shape.output_pixels() * cout);
            let vars = [var(&x, &input), var(&weights, &[cout, input[3], kh, kw])];
            let y = conv(window, &vars[0], &vars[1].permute((0, 2, 3, 1)).unwrap()).unwrap();
            let ours = gradients(&y, &grad, &[&vars[0], &vars[1]]);
            let by_x = differences(&x, |x| dot(&reference::conv(&shape, x, &weights), &grad));
            let by_w = differences(&weights, |w| dot(&reference::conv(&shape, &x, w), &grad));
            assert_close(&ours[0], &by_x, 1e-6, "input");
            assert_close(&ours[1], &by_w, 1e-6, "weights");
        }
    }

    #[test]
    fn pools_agree_with_finite_differences() {
        for kind in [PoolKind::Max, PoolKind::Average(Divisor::Window), PoolKind::Average(Divisor::Inside)] {
            for (input, _, window) in cases().filter(|(_, _, w)| w.padding.map(|p| 2 * p) <= w.kernel) {
                let shape = ConvShape::new(input, input[3], window).unwrap();
                let (x, grad) = (numbers(1, input.iter().product()), numbers(2, shape.output_pixels() * input[3]));
                let f = |x: &[f64]| match kind {
                    PoolKind::Max => reference::max_pool(&shape, x),
                    PoolKind::Average(d) => reference::average_pool(&shape, x, d == Divisor::Window),
                };
                let v = var(&x, &input);
                let y = pool(window, kind, &v).unwrap();
                assert_close(&elements(&y), &f(&x), 1e-6, "pool");
                let by = differences(&x, |x| dot(&f(x), &grad));
                assert_close(&gradients(&y, &grad, &[&v])[0], &by, 1e-6, &format!("{kind:?} {window:?}"));
            }
        }
    }

    #[test]
    fn batch_norm_agrees_with_finite_differences_and_returns_its_statistics() {
        let (dims, c) = ([2, 3, 4, 5], 5);
        let (x, gamma, beta, grad) = (numbers(1, 120), numbers(2, c), numbers(3, c), numbers(4, 120));
        let vars = [var(&x, &dims), var(&gamma, &[c]), var(&beta, &[c])];
        let (y, moments) = batch_norm_relu(&vars[0], &vars[1], &vars[2], 1e-3).unwrap();
        let f = reference::batch_norm_relu;
        assert_close(&elements(&y), &f(&x, &gamma, &beta, 1e-3), 1e-6, "value");
        let mean: Vec<f64> = (0..c).map(|k| x.iter().skip(k).step_by(c).sum::<f64>() / 24.0).collect();
        let variance: Vec<f64> =
            (0..c).map(|k| x.iter().skip(k).step_by(c).map(|v| (v - mean[k]).powi(2)).sum::<f64>() / 23.0).collect();
        assert_close(&elements(&moments.mean), &mean, 1e-6, "mean");
        assert_close(&elements(&moments.variance), &variance, 1e-6, "variance over n - 1");
        let ours = gradients(&y, &grad, &[&vars[0], &vars[1], &vars[2]]);
        assert_close(&ours[0], &differences(&x, |x| dot(&f(x, &gamma, &beta, 1e-3), &grad)), 3e-5, "input");
        assert_close(&ours[1], &differences(&gamma, |g| dot(&f(&x, g, &beta, 1e-3), &grad)), 3e-5, "scale");
        assert_close(&ours[2], &differences(&beta, |b| dot(&f(&x, &gamma, b, 1e-3), &grad)), 3e-5, "shift");
    }

    #[test]
    fn concatenation_and_its_gradients_agree_with_those_of_candle() {
        for pieces in 1..=6 {
            let vars: Vec<_> = (0..pieces).map(|i| var(&numbers(i as u64, 4 * (i + 1)), &[1, 2, 2, i + 1])).collect();
            let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let (ours, theirs) = (concat(&tensors).unwrap(), Tensor::cat(&tensors, 3).unwrap());
            assert_eq!(elements(&ours), elements(&theirs));
            let (weights, refs) = (numbers(9, ours.elem_count()), vars.iter().collect::<Vec<_>>());
            assert_eq!(gradients(&ours, &weights, &refs), gradients(&theirs, &weights, &refs));
        }
        assert!(concat(&[]).is_err());
    }

    #[test]
    fn operands_that_do_not_fit_are_refused_before_the_device_sees_them() {
        let x = var(&[0.0; 48], &[1, 4, 4, 3]);
        let window = Window::new([3, 3], 1, [0, 0]);
        let weights = |dims: [usize; 4]| var(&vec![0.0; dims.iter().product()], &dims);
        assert!(conv(window, &x, &weights([2, 3, 3, 3])).is_ok());
        for wrong in [[2, 3, 3, 4], [2, 3, 1, 3], [2, 1, 3, 3]] {
            let error = conv(window, &x, &weights(wrong)).unwrap_err().to_string();
            assert!(error.contains("expected [[1, 4, 4, 3], [2, 3, 3, 3]]"), "{error}");
        }
        assert!(conv(Window::new([5, 5], 1, [0, 0]), &x, &weights([2, 5, 5, 3])).is_err());
        let bias = var(&[0.0; 3], &[3]);
        assert!(conv_bias_relu(window, &x, &weights([2, 3, 3, 3]), &bias).is_err());
        assert!(batch_norm_relu(&x, &bias, &var(&[0.0; 2], &[2]), 1e-3).is_err());
        assert!(concat(&[x.as_tensor().clone(), weights([2, 4, 4, 3]).as_tensor().clone()]).is_err());
    }
}
