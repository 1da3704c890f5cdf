//! Convolution as an operation of candle: any kernel size, padding by axis, and an optional fused
//! `relu(scale * y + bias)`.
//!
//! Weights are packed (see [`panel`]).

use super::norm::relu_gradient;
use crate::nn::conv::Conv;
use crate::nn::kernel::{self, ConvShape, Isa, Window, conv_cpu, panel, weight_gradient};
use crate::nn::operation::{Host, Operation, apply2, apply3, forward2, forward3};
use crate::nn::tensor::{dims4, with_elements};
use candle_core::{Result, Shape, Tensor, bail};

impl Conv {
    /// `conv(x, weights)` with gradients of both.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn apply(self, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
        apply2(self, x, weights)
    }

    /// `relu(scale * conv(x, weights) + bias)`, with gradients of all. `affine` is `[2, O]`: scale, bias.
    ///
    /// # Errors
    /// If shapes do not fit.
    pub fn apply_affine(self, x: &Tensor, weights: &Tensor, affine: &Tensor) -> Result<Tensor> {
        apply3(self, x, weights, affine)
    }

    fn shape(&self, x: &[usize], weights: &[usize]) -> Result<ConvShape> {
        let input = dims4("conv", x)?;
        let cin = self.packed_cin(weights)?;
        if cin != input[3] {
            bail!("conv: {} channels in, weights for {cin}", input[3]);
        }
        match ConvShape::new(input, self.cout, self.window) {
            Some(shape) => Ok(shape),
            None => bail!("conv: an image of {}x{} is too small for {:?}", input[1], input[2], self.window),
        }
    }

    fn forward(&self, x: Host<'_>, w: Host<'_>, affine: Option<&[f32]>) -> Result<(Vec<f32>, Shape)> {
        let shape = self.shape(x.dims, w.dims)?;
        let lanes = panel::panels(self.cout) * kernel::LANES;
        let (scale, bias) = match affine {
            Some(a) if a.len() == 2 * self.cout => (panel::padded(&a[..self.cout]), panel::padded(&a[self.cout..])),
            Some(a) => bail!("conv: {} factors and summands for {} channels", a.len(), self.cout),
            None => (vec![1.0; lanes], vec![0.0; lanes]),
        };
        let epilogue = conv_cpu::Epilogue { scale: &scale, bias: &bias, relu: affine.is_some() };
        // SAFETY: a convolution writes every element of its output.
        let out = unsafe {
            kernel::target::written(shape.output_pixels(), self.cout, |out| {
                conv_cpu::forward(self.isa, &shape, x.values, w.values, epilogue, out);
            })
        };
        let [h, w] = shape.output;
        Ok((out, (shape.batch, h, w, self.cout).into()))
    }

    /// The gradients of input (if required), weights and affine part, given the gradient before the ReLU.
    fn gradients(
        &self,
        x: &Tensor,
        weights: &Tensor,
        affine: Option<&Tensor>,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Tensor, Option<Tensor>)> {
        let shape = self.shape(x.dims(), weights.dims())?;
        let (affine, plain) = (affine.map(Tensor::detach), weights.detach());
        let input = if x.track_op() {
            let op = InputGradient { isa: self.isa, shape, affine: affine.clone() };
            Some(forward2(op, grad, &plain)?)
        } else {
            None
        };
        let has_affine = affine.is_some();
        let op = ParameterGradient { isa: self.isa, shape, affine };
        let all = forward3(op, &x.detach(), grad, &plain)?;
        let n = weights.elem_count();
        let weight = all.narrow(0, 0, n)?.reshape(weights.dims())?;
        let affine = if has_affine { Some(all.narrow(0, n, 2 * self.cout)?.reshape((2, self.cout))?) } else { None };
        Ok((input, weight, affine))
    }
}

impl Operation<2> for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn on_host(&self, [x, w]: [Host<'_>; 2]) -> Result<(Vec<f32>, Shape)> {
        self.forward(x, w, None)
    }

    fn gradients(&self, [x, w]: [&Tensor; 2], _: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let (x, w, _) = self.gradients(x, w, None, grad)?;
        Ok([x, Some(w)])
    }
}

impl Operation<3> for Conv {
    fn name(&self) -> &'static str {
        "conv-affine-relu"
    }

    fn on_host(&self, [x, w, affine]: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        self.forward(x, w, Some(affine.values))
    }

    fn gradients(&self, [x, w, affine]: [&Tensor; 3], y: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grad = relu_gradient(self.isa, y, grad)?;
        let (x, w, a) = self.gradients(x, w, Some(affine), &grad)?;
        Ok([x, Some(w), a.filter(|_| affine.track_op())])
    }
}

/// The gradient of the input, from the gradient before the ReLU and the weights.
struct InputGradient {
    isa: Isa,
    shape: ConvShape,
    /// `[2, O]`; the first row is the scale.
    affine: Option<Tensor>,
}

impl Operation<2> for InputGradient {
    fn name(&self) -> &'static str {
        "conv-input-gradient"
    }

    fn on_host(&self, [grad, w]: [Host<'_>; 2]) -> Result<(Vec<f32>, Shape)> {
        let shape = &self.shape;
        let transposed =
            |scale: Option<&[f32]>| panel::transposed(w.values, shape.window.taps(), shape.cin, shape.cout, scale);
        let transposed = match &self.affine {
            Some(affine) => with_elements(self.name(), affine, |a| Ok(transposed(Some(a))))?,
            None => transposed(None),
        };
        // SAFETY: the classes of an input gradient cover every input pixel.
        let out = unsafe {
            kernel::target::written(shape.input_pixels(), shape.cin, |out| {
                conv_cpu::input_gradient(self.isa, shape, grad.values, &transposed, conv_cpu::Write::Replace, out);
            })
        };
        let [h, w] = shape.input;
        Ok((out, (shape.batch, h, w, shape.cin).into()))
    }
}

/// One flat tensor from the input, the gradient before the ReLU and the weights: the gradient of the packed weights,
/// then, if there is an affine part, that of the scale and that of the bias.
struct ParameterGradient {
    isa: Isa,
    shape: ConvShape,
    affine: Option<Tensor>,
}

impl Operation<3> for ParameterGradient {
    fn name(&self) -> &'static str {
        "conv-parameter-gradient"
    }

    fn on_host(&self, [x, grad, w]: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        let (x, grad, w) = (x.values, grad.values, w.values);
        let cout = self.shape.cout;
        let extra = if self.affine.is_some() { 2 * cout } else { 0 };
        let mut out = vec![0f32; w.len() + extra];
        let (weights, tail) = out.split_at_mut(w.len());
        weight_gradient::weight_gradient(self.isa, &self.shape, x, grad, weights);
        if let Some(affine) = &self.affine {
            with_elements(self.name(), affine, |a| {
                tail[..cout].copy_from_slice(&weight_gradient::scaled(self.isa, weights, w, &a[..cout]));
                tail[cout..].copy_from_slice(&kernel::norm_cpu::sums(self.isa, grad, cout));
                Ok(())
            })?;
        }
        let length = out.len();
        Ok((out, length.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{self, assert_close, differences, dot, elements, gradients, numbers, var};
    use candle_core::Device;

    /// Input, output channels, kernel, stride, padding.
    type Case = ([usize; 4], usize, [usize; 2], usize, [usize; 2]);

    /// Every window of InceptionV3, and unusual ones.
    const CASES: [Case; 12] = [
        ([2, 5, 6, 7], 9, [1, 1], 1, [0, 0]),
        ([1, 7, 6, 3], 5, [3, 3], 2, [0, 0]),
        ([2, 6, 5, 4], 33, [3, 3], 1, [1, 1]),
        ([1, 5, 5, 13], 3, [3, 3], 1, [0, 0]),
        ([1, 4, 9, 2], 6, [1, 7], 1, [0, 3]),
        ([1, 9, 4, 2], 17, [7, 1], 1, [3, 0]),
        ([2, 3, 3, 5], 2, [1, 3], 1, [0, 1]),
        ([2, 3, 3, 5], 2, [3, 1], 1, [1, 0]),
        ([1, 6, 6, 2], 3, [5, 5], 1, [2, 2]),
        ([1, 1, 1, 25], 40, [3, 3], 1, [1, 1]),
        ([1, 8, 7, 2], 3, [2, 3], 3, [1, 2]),
        ([1, 3, 3, 10], 22, [1, 1], 1, [0, 0]),
    ];

    fn each_case(f: impl Fn(&ConvShape, Conv, &str)) {
        for (input, cout, kernel, stride, padding) in CASES {
            let window = Window::new(kernel, stride, padding);
            let shape = ConvShape::new(input, cout, window).unwrap();
            for isa in Isa::all_available() {
                f(&shape, Conv { window, cout, isa }, &format!("{input:?} -> {cout}, {window:?}, {isa:?}"));
            }
        }
    }

    struct Operands {
        x: Vec<f64>,
        weights: Vec<f64>,
        affine: Vec<f64>,
        grad: Vec<f64>,
    }

    fn operands(shape: &ConvShape) -> Operands {
        Operands {
            x: numbers(1, shape.input_pixels() * shape.cin),
            weights: numbers(2, shape.window.taps() * shape.cin * shape.cout),
            affine: numbers(3, 2 * shape.cout),
            grad: numbers(4, shape.output_pixels() * shape.cout),
        }
    }

    fn tensors(shape: &ConvShape, conv: Conv, o: &Operands) -> [candle_core::Var; 3] {
        let [h, w] = shape.input;
        let [kh, kw] = shape.window.kernel;
        let plain = var(&o.weights, &[shape.cout, shape.cin, kh, kw]);
        let packed = candle_core::Var::from_tensor(&conv.pack(&plain.detach()).unwrap()).unwrap();
        [var(&o.x, &[shape.batch, h, w, shape.cin]), packed, var(&o.affine, &[2, shape.cout])]
    }

    #[test]
    fn convolution_and_its_gradients_agree_with_finite_differences_on_every_isa() {
        each_case(|shape, conv, what| {
            let o = operands(shape);
            let [x, w, _] = tensors(shape, conv, &o);
            let y = conv.apply(&x, &w).unwrap();
            assert_close(&elements(&y), &reference::conv(shape, &o.x, &o.weights), 1e-6, what);
            let [dx, dw] = gradients(&y, &o.grad, &[&x, &w]).try_into().unwrap();
            let loss = |x: &[f64], w: &[f64]| dot(&reference::conv(shape, x, w), &o.grad);
            assert_close(&dx, &differences(&o.x, |x| loss(x, &o.weights)), 1e-6, what);
            let dw = panel::unpack(&dw, shape.window.taps(), shape.cin, shape.cout);
            assert_close(&dw, &differences(&o.weights, |w| loss(&o.x, w)), 1e-6, what);
        });
    }

    #[test]
    fn the_fused_convolution_and_its_gradients_agree_with_finite_differences_on_every_isa() {
        each_case(|shape, conv, what| {
            let mut o = operands(shape);
            // A channel whose scale is 0 still gets a gradient of the scale.
            o.affine[0] = 0.0;
            let [x, w, a] = tensors(shape, conv, &o);
            let y = conv.apply_affine(&x, &w, &a).unwrap();
            let fused = |x: &[f64], w: &[f64], a: &[f64]| reference::affine_relu(&reference::conv(shape, x, w), a);
            assert_close(&elements(&y), &fused(&o.x, &o.weights, &o.affine), 1e-6, what);
            let [dx, dw, da] = gradients(&y, &o.grad, &[&x, &w, &a]).try_into().unwrap();
            let by_x = differences(&o.x, |x| dot(&fused(x, &o.weights, &o.affine), &o.grad));
            let by_w = differences(&o.weights, |w| dot(&fused(&o.x, w, &o.affine), &o.grad));
            let by_a = differences(&o.affine, |a| dot(&fused(&o.x, &o.weights, a), &o.grad));
            assert_close(&dx, &by_x, 2e-6, what);
            let dw = panel::unpack(&dw, shape.window.taps(), shape.cin, shape.cout);
            assert_close(&dw, &by_w, 2e-6, what);
            assert_close(&da, &by_a, 2e-6, what);
        });
    }

    #[test]
    fn an_input_that_needs_no_gradient_gets_none() {
        let conv = Conv::new(Window::new([1, 1], 1, [0, 0]), 4);
        let x = Tensor::ones((1, 2, 2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let w = conv.pack(&Tensor::ones((4, 3, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let w = candle_core::Var::from_tensor(&w).unwrap();
        let store = conv.apply(&x, &w).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(store.get(&x).is_none());
        let unpacked = conv.unpack(store.get(&w).unwrap()).unwrap();
        assert_eq!(elements(&unpacked), [4.0; 12]);
    }

    #[test]
    fn long_sums_and_many_pixels_agree_with_the_reference_and_between_thread_counts() {
        // More products than a block of the forward sums, more pixels than a block of the weight gradient, and few
        // enough channels that the pixels are split; two panels, the second of 29 channels.
        let window = Window::new([3, 3], 1, [1, 1]);
        let shape = ConvShape::new([2, 50, 43, 37], 61, window).unwrap();
        let o = operands(&shape);
        let all: Vec<Vec<Vec<f32>>> = Isa::all_available()
            .map(|isa| {
                let conv = Conv { window, cout: 61, isa };
                // With one thread all taps of a panel may be one task, with two a row of them, with eight each is one.
                let [one, two, eight] = [1, 2, 8].map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| {
                        let [x, w, a] = tensors(&shape, conv, &o);
                        let y = conv.apply_affine(&x, &w, &a).unwrap();
                        let mut all = gradients(&y, &o.grad, &[&x, &w, &a]);
                        all.push(elements(&y));
                        all
                    })
                });
                assert!(one == two && one == eight, "{isa:?}");
                one
            })
            .collect();
        let expected = reference::affine_relu(&reference::conv(&shape, &o.x, &o.weights), &o.affine);
        for results in &all {
            assert_close(&results[3], &expected, 1e-6, "forward");
            for (ours, first) in results.iter().zip(&all[0]) {
                let first: Vec<f64> = first.iter().map(|&v| f64::from(v)).collect();
                assert_close(ours, &first, 1e-5, "between paths");
            }
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let conv = Conv::new(Window::new([3, 3], 1, [0, 0]), 4);
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let w = conv.pack(&zeros(&[4, 2, 3, 3])).unwrap();
        assert!(conv.pack(&zeros(&[4, 2, 3, 1])).is_err());
        assert!(conv.apply(&zeros(&[1, 2, 5, 2]), &w).is_err(), "too small");
        assert!(conv.apply(&zeros(&[1, 5, 5, 3]), &w).is_err(), "channels");
        assert!(conv.apply(&zeros(&[1, 5, 5, 2]).transpose(1, 3).unwrap(), &w).is_err(), "strides");
        assert!(conv.apply_affine(&zeros(&[1, 5, 5, 2]), &w, &zeros(&[2, 3])).is_err(), "affine");
        assert_eq!(conv.apply(&zeros(&[1, 5, 5, 2]), &w).unwrap().dims(), [1, 3, 3, 4]);
    }
}
