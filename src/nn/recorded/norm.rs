//! Batch norm with batch statistics and ReLU in one operation, and the gradient of ReLU.

use crate::nn::kernel::norm_cpu::{self, Fitted, Moments};
use crate::nn::kernel::{Isa, Source, Target, target};
use crate::nn::operation::{Host, Operation, apply3, forward2, forward3};
use crate::nn::tensor::with_elements;
use candle_core::{Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// `relu(gamma * (x - mean) / sqrt(variance + eps) + beta)` by channel, with mean and variance of the batch.
#[derive(Clone, Debug)]
pub struct BatchNormRelu {
    eps: f32,
    isa: Isa,
    moments: Arc<OnceLock<Moments>>,
}

impl BatchNormRelu {
    /// For a single application: make a new one for each call.
    pub fn new(eps: f32, isa: Isa) -> Self {
        Self { eps, isa, moments: Arc::default() }
    }

    /// Normalises `[..., C]`; also returns the batch's mean and variance (divided by n, not n - 1).
    ///
    /// # Errors
    /// If shapes do not fit or there is no pixel.
    pub fn apply(self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, Moments)> {
        let moments = Arc::clone(&self.moments);
        let y = apply3(self, x, gamma, beta)?;
        match moments.get() {
            Some(m) => Ok((y, m.clone())),
            None => bail!("batch norm left no statistics"),
        }
    }

    fn rstd(&self, moments: &Moments) -> Vec<f32> {
        norm_cpu::rstd(&moments.variance, self.eps)
    }
}

impl Operation<3> for BatchNormRelu {
    fn name(&self) -> &'static str {
        "batch-norm-relu"
    }

    fn on_host(&self, [x, gamma, beta]: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        let (dims, x, gamma, beta) = (x.dims, x.values, gamma.values, beta.values);
        let channels = gamma.len();
        if dims.last() != Some(&channels) || beta.len() != channels || x.is_empty() {
            bail!("{}: {:?} with {channels} scales and {} shifts", self.name(), dims, beta.len());
        }
        let moments = norm_cpu::moments(self.isa, x, channels);
        let scale: Vec<f32> = gamma.iter().zip(self.rstd(&moments)).map(|(g, r)| g * r).collect();
        let out = unsafe {
            // SAFETY: every pixel is written.
            target::written(x.len() / channels, channels, |out| {
                norm_cpu::normalise_relu(self.isa, x, &moments.mean, &scale, beta, out);
            })
        };
        if self.moments.set(moments).is_err() {
            bail!("{}: applied twice", self.name());
        }
        Ok((out, dims.into()))
    }

    fn gradients(&self, [x, gamma, beta]: [&Tensor; 3], y: &Tensor, grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let Some(moments) = self.moments.get() else { bail!("batch norm was not applied") };
        let op = NormGradient {
            isa: self.isa,
            gamma: gamma.detach(),
            beta: beta.detach(),
            mean: moments.mean.clone(),
            rstd: self.rstd(moments),
        };
        let all = forward3(op, &x.detach(), &y.detach(), grad)?;
        let (n, c) = (x.elem_count(), gamma.elem_count());
        Ok([Some(all.narrow(0, 0, n)?.reshape(x.dims())?), Some(all.narrow(0, n, c)?), Some(all.narrow(0, n + c, c)?)])
    }
}

/// One flat tensor from the input, the output and the output's gradient: the gradients of input, gamma and beta.
struct NormGradient {
    isa: Isa,
    gamma: Tensor,
    beta: Tensor,
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl Operation<3> for NormGradient {
    fn name(&self) -> &'static str {
        "batch-norm-relu-gradient"
    }

    fn on_host(&self, [x, _, grad]: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        let (x, grad) = (x.values, grad.values);
        let channels = self.mean.len();
        let mut out = vec![0f32; x.len() + 2 * channels];
        let (dx, tail) = out.split_at_mut(x.len());
        let dx = Target::columns(dx, channels, 0, channels);
        let [gamma, beta] = with_elements(self.name(), &self.gamma, |gamma| {
            with_elements(self.name(), &self.beta, |beta| {
                let fitted = Fitted { gamma, beta, mean: &self.mean, rstd: &self.rstd };
                Ok(norm_cpu::norm_gradients(self.isa, x, Source::whole(grad, channels), fitted, &dx))
            })
        })?;
        tail[..channels].copy_from_slice(&gamma);
        tail[channels..].copy_from_slice(&beta);
        let length = out.len();
        Ok((out, length.into()))
    }
}

/// The gradient of a ReLU's input, from its output and the output's gradient.
pub(super) fn relu_gradient(isa: Isa, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    forward2(ReluGradient { isa }, &y.detach(), grad)
}

struct ReluGradient {
    isa: Isa,
}

impl Operation<2> for ReluGradient {
    fn name(&self) -> &'static str {
        "relu-gradient"
    }

    fn on_host(&self, [y, grad]: [Host<'_>; 2]) -> Result<(Vec<f32>, Shape)> {
        let (dims, y, grad) = (y.dims, y.values, grad.values);
        let channels = dims.last().copied().unwrap_or(1).max(1);
        // SAFETY: every pixel is written.
        let out = unsafe {
            target::written(y.len() / channels, channels, |out| {
                let (y, grad) = (Source::whole(y, channels), Source::whole(grad, channels));
                norm_cpu::relu_gradient(self.isa, y, grad, out);
            })
        };
        Ok((out, dims.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{self, assert_close, differences, dot, elements, gradients, numbers, var};

    #[test]
    fn batch_norm_and_its_gradients_agree_with_finite_differences() {
        for (pixels, channels, offset) in [(11, 5, 0.0), (40, 19, 0.0), (9, 8, 100.0)] {
            let x: Vec<f64> = numbers(1, pixels * channels).iter().map(|v| f64::from((v + offset) as f32)).collect();
            let (gamma, beta) = (numbers(2, channels), numbers(3, channels));
            let grad = numbers(4, x.len());
            let reference = reference::batch_norm_relu;
            for isa in Isa::all_available() {
                let what = format!("{pixels} pixels, {channels} channels around {offset}, {isa:?}");
                let vars = [var(&x, &[1, pixels, 1, channels]), var(&gamma, &[channels]), var(&beta, &[channels])];
                let norm = BatchNormRelu::new(1e-3, isa);
                let (y, moments) = norm.apply(&vars[0], &vars[1], &vars[2]).unwrap();
                assert_close(&elements(&y), &reference(&x, &gamma, &beta, 1e-3), 1e-5, &what);
                let mean: Vec<f64> =
                    (0..channels).map(|k| x.iter().skip(k).step_by(channels).sum::<f64>() / pixels as f64).collect();
                assert_close(&moments.mean, &mean, 1e-6, &what);
                let ours = gradients(&y, &grad, &[&vars[0], &vars[1], &vars[2]]);
                let by_x = differences(&x, |x| dot(&reference(x, &gamma, &beta, 1e-3), &grad));
                let by_gamma = differences(&gamma, |g| dot(&reference(&x, g, &beta, 1e-3), &grad));
                let by_beta = differences(&beta, |b| dot(&reference(&x, &gamma, b, 1e-3), &grad));
                assert_close(&ours[0], &by_x, 3e-5, &what);
                assert_close(&ours[1], &by_gamma, 3e-5, &what);
                assert_close(&ours[2], &by_beta, 3e-5, &what);
            }
        }
    }

    #[test]
    fn statistics_do_not_depend_on_the_number_of_threads() {
        let x = reference::f32s(&numbers(1, 3000 * 7));
        let moments = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| norm_cpu::moments(Isa::best(), &x, 7))
        });
        assert_eq!(moments[0], moments[1]);
    }

    #[test]
    fn a_constant_channel_has_no_variance() {
        let m = norm_cpu::moments(Isa::best(), &[1e4f32; 600], 2);
        assert_eq!(m, Moments { mean: vec![1e4; 2], variance: vec![0.0; 2] });
    }
}
