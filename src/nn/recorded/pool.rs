//! Max and average pools of any window, with gradients.

use crate::nn::kernel::pool_cpu::{self, Divisor};
use crate::nn::kernel::{ConvShape, Isa, Source, Window, target};
use crate::nn::operation::{Host, Operation, apply1, forward1, forward3};
use crate::nn::pool::PoolKind;
use crate::nn::tensor::dims4;
use candle_core::{Result, Shape, Tensor, bail};

/// A pool over `[N, H, W, C]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Kernel, stride and padding.
    pub window: Window,
    /// Maximum or average.
    pub kind: PoolKind,
    /// Which loops compute it on the CPU.
    pub isa: Isa,
}

impl Pool {
    /// A pool with the fastest instruction set of this processor.
    pub fn new(window: Window, kind: PoolKind) -> Self {
        Self { window, kind, isa: Isa::best() }
    }

    /// Pools `x`, with a gradient.
    ///
    /// # Errors
    /// If the window does not fit.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        apply1(self, x)
    }

    fn shape(&self, dims: &[usize]) -> Result<ConvShape> {
        let input = dims4("pool", dims)?;
        match ConvShape::new(input, input[3], self.window) {
            Some(shape) => Ok(shape),
            None => bail!("pool: an image of {}x{} is too small for {:?}", input[1], input[2], self.window),
        }
    }
}

impl Operation<1> for Pool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn on_host(&self, [x]: [Host<'_>; 1]) -> Result<(Vec<f32>, Shape)> {
        let (shape, x) = (self.shape(x.dims)?, x.values);
        // SAFETY: both pools write every pixel.
        let out = unsafe {
            target::written(shape.output_pixels(), shape.cout, |out| match self.kind {
                PoolKind::Max => pool_cpu::max(self.isa, &shape, x, out),
                PoolKind::Average(divisor) => pool_cpu::average(self.isa, &shape, divisor, x, None, out),
            })
        };
        let [h, w] = shape.output;
        Ok((out, (shape.batch, h, w, shape.cout).into()))
    }

    fn gradients(&self, [x]: [&Tensor; 1], y: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        if !x.track_op() {
            return Ok([None]);
        }
        let op = PoolGradient { pool: *self, shape: self.shape(x.dims())? };
        Ok([Some(match self.kind {
            PoolKind::Max => forward3(op, &x.detach(), &y.detach(), grad)?,
            PoolKind::Average(_) => forward1(op, grad)?,
        })])
    }
}

struct PoolGradient {
    pool: Pool,
    shape: ConvShape,
}

impl PoolGradient {
    fn zeros(&self) -> Vec<f32> {
        target::zeroed(self.shape.input_pixels() * self.shape.cin)
    }

    fn output(&self, gradient: Vec<f32>) -> (Vec<f32>, Shape) {
        let [h, w] = self.shape.input;
        (gradient, (self.shape.batch, h, w, self.shape.cin).into())
    }
}

/// The gradient of the average pool, from the output's gradient.
impl Operation<1> for PoolGradient {
    fn name(&self) -> &'static str {
        "average-pool-gradient"
    }

    fn on_host(&self, [grad]: [Host<'_>; 1]) -> Result<(Vec<f32>, Shape)> {
        let PoolKind::Average(divisor) = self.pool.kind else { bail!("a max pool's gradient needs its operands") };
        let mut out = self.zeros();
        let grad = Source::whole(grad.values, self.shape.cin);
        pool_cpu::add_average_gradient(self.pool.isa, &self.shape, divisor, grad, &mut out);
        Ok(self.output(out))
    }
}

/// The gradient of the max pool, from the input, the output and the output's gradient.
impl Operation<3> for PoolGradient {
    fn name(&self) -> &'static str {
        "max-pool-gradient"
    }

    fn on_host(&self, [x, y, grad]: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        let mut out = self.zeros();
        let [y, grad] = [y, grad].map(|s| Source::whole(s.values, self.shape.cin));
        pool_cpu::add_max_gradient(self.pool.isa, &self.shape, x.values, y, grad, &mut out);
        Ok(self.output(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{self, assert_close, differences, dot, elements, gradients, numbers, var};
    use candle_core::{Device, Var};

    const CASES: [([usize; 4], Window); 5] = [
        ([2, 7, 8, 5], Window::new([3, 3], 2, [0, 0])),
        ([1, 5, 4, 19], Window::new([3, 3], 1, [1, 1])),
        ([2, 1, 1, 3], Window::new([3, 3], 1, [1, 1])),
        ([1, 6, 5, 2], Window::new([2, 3], 2, [1, 1])),
        ([1, 4, 4, 8], Window::new([2, 2], 2, [0, 0])),
    ];

    fn check(kind: PoolKind, reference: impl Fn(&ConvShape, &[f64]) -> Vec<f64>) {
        for (input, window) in CASES {
            let shape = ConvShape::new(input, input[3], window).unwrap();
            let x = numbers(1, input.iter().product());
            let grad = numbers(2, shape.output_pixels() * input[3]);
            for isa in Isa::all_available() {
                let what = format!("{kind:?} of {input:?}, {window:?}, {isa:?}");
                let v = var(&x, &input);
                let y = Pool { window, kind, isa }.apply(&v).unwrap();
                assert_close(&elements(&y), &reference(&shape, &x), 1e-6, &what);
                let expected = differences(&x, |x| dot(&reference(&shape, x), &grad));
                assert_close(&gradients(&y, &grad, &[&v])[0], &expected, 1e-6, &what);
            }
        }
    }

    #[test]
    fn pools_and_their_gradients_agree_with_finite_differences() {
        check(PoolKind::Max, reference::max_pool);
        check(PoolKind::Average(Divisor::Window), |s, x| reference::average_pool(s, x, true));
        check(PoolKind::Average(Divisor::Inside), |s, x| reference::average_pool(s, x, false));
    }

    #[test]
    fn the_first_of_equal_maxima_gets_the_gradient() {
        // torch: x = ones(1,1,3,3); max_pool2d(x, 2, 1).sum().backward() gives [[1,1,0],[1,1,0],[0,0,0]].
        let x = Var::ones((1, 3, 3, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let y = Pool::new(Window::new([2, 2], 1, [0, 0]), PoolKind::Max).apply(&x).unwrap();
        assert_eq!(gradients(&y, &[1.0; 4], &[&x])[0], [1., 1., 0., 1., 1., 0., 0., 0., 0.]);
    }

    #[test]
    fn nan_is_not_pooled_away() {
        let x = Tensor::new(&[1f32, f32::NAN, 2.0, 3.0], &Device::Cpu).unwrap().reshape((1, 2, 2, 1)).unwrap();
        for isa in Isa::all_available() {
            let pool = Pool { window: Window::new([2, 2], 2, [0, 0]), kind: PoolKind::Max, isa };
            assert!(elements(&pool.apply(&x).unwrap())[0].is_nan());
        }
    }
}
