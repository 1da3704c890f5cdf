//! Batch norm with batch statistics and ReLU in one operation, and the gradient of ReLU.

use super::kernel::norm_cpu::{self, Fitted, Moments};
use super::kernel::{Isa, Source, Target, target};
use super::tensor::{elements, with_elements};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// `relu(gamma * (x - mean) / sqrt(variance + eps) + beta)` by channel, mean and variance those of the batch.
#[derive(Clone, Debug)]
pub struct BatchNormRelu {
    eps: f32,
    isa: Isa,
    moments: Arc<OnceLock<Moments>>,
}

impl BatchNormRelu {
    /// One application; make a new one for each.
    pub fn new(eps: f32, isa: Isa) -> Self {
        Self { eps, isa, moments: Arc::default() }
    }

    /// Normalises `[..., C]`; also the batch's mean and variance (over n, not n - 1).
    ///
    /// # Errors
    /// If shapes do not fit or there is no pixel.
    pub fn apply(self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, Moments)> {
        let moments = Arc::clone(&self.moments);
        let y = x.apply_op3(gamma, beta, self)?;
        match moments.get() {
            Some(m) => Ok((y, m.clone())),
            None => bail!("batch norm left no statistics"),
        }
    }

    fn rstd(&self, moments: &Moments) -> Vec<f32> {
        rstd(&moments.variance, self.eps)
    }
}

/// `1 / sqrt(variance + eps)`.
pub(super) fn rstd(variance: &[f32], eps: f32) -> Vec<f32> {
    variance.iter().map(|&v| (1.0 / (f64::from(v) + f64::from(eps)).sqrt()) as f32).collect()
}

impl CustomOp3 for BatchNormRelu {
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
        let x = elements(self.name(), s1, l1)?;
        let (gamma, beta) = (elements(self.name(), s2, l2)?, elements(self.name(), s3, l3)?);
        let channels = gamma.len();
        if l1.dims().last() != Some(&channels) || beta.len() != channels || x.is_empty() {
            bail!("{}: {:?} with {channels} scales and {} shifts", self.name(), l1.dims(), beta.len());
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
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(moments) = self.moments.get() else { bail!("batch norm was not applied") };
        let op = NormGradient {
            isa: self.isa,
            gamma: gamma.detach(),
            beta: beta.detach(),
            mean: moments.mean.clone(),
            rstd: self.rstd(moments),
        };
        let all = x.detach().apply_op3_no_bwd(&y.detach(), &grad.contiguous()?, &op)?;
        let (n, c) = (x.elem_count(), gamma.elem_count());
        Ok((Some(all.narrow(0, 0, n)?.reshape(x.dims())?), Some(all.narrow(0, n, c)?), Some(all.narrow(0, n + c, c)?)))
    }
}

/// From input, output and its gradient to one flat tensor: the gradients of input, gamma, beta.
struct NormGradient {
    isa: Isa,
    gamma: Tensor,
    beta: Tensor,
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl CustomOp3 for NormGradient {
    fn name(&self) -> &'static str {
        "batch-norm-relu-gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        _: &CpuStorage,
        _: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, grad) = (elements(self.name(), s1, l1)?, elements(self.name(), s3, l3)?);
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
        Ok((CpuStorage::F32(out), length.into()))
    }
}

/// The gradient before a ReLU from its output and the gradient behind it.
pub(super) fn relu_gradient(isa: Isa, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    y.detach().apply_op2_no_bwd(&grad.contiguous()?, &ReluGradient { isa })
}

struct ReluGradient {
    isa: Isa,
}

impl CustomOp2 for ReluGradient {
    fn name(&self) -> &'static str {
        "relu-gradient"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, grad) = (elements(self.name(), s1, l1)?, elements(self.name(), s2, l2)?);
        let channels = l1.dims().last().copied().unwrap_or(1).max(1);
        // SAFETY: every pixel is written.
        let out = unsafe {
            target::written(y.len() / channels, channels, |out| {
                let (y, grad) = (Source::whole(y, channels), Source::whole(grad, channels));
                norm_cpu::relu_gradient(self.isa, y, grad, out);
            })
        };
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{self, assert_close, differences, dot, elements, gradients, numbers, var};

    #[test]
    fn batch_norm_and_its_gradients_agree_with_differences() {
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
