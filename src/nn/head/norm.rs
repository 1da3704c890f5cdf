//! Batch norm over rows, as one fused operation with gradients.

use crate::nn::Mode;
use crate::nn::operation::{Host, Operation, apply3};
use crate::nn::tensor::with_elements;
use candle_core::{Device, Result, Shape, Tensor, Var};

/// Added to a variance before the square root.
pub const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Batch norm of `[N, C]` (Ioffe and Szegedy 2015): PyTorch's `BatchNorm1d`, with one difference. Over the first ten
/// steps the running statistics are plain means of the batches seen (PyTorch's `momentum=None`); later steps use a
/// momentum of 0.1. So validation after a short epoch uses statistics of data, not the initial 0 and 1.
#[derive(Debug)]
pub struct BatchNorm1d {
    weight: Var,
    bias: Var,
    running_mean: Var,
    running_var: Var,
    /// Steps seen, a scalar.
    steps: Var,
}

impl BatchNorm1d {
    /// The identity, on `channels` channels.
    pub fn new(channels: usize, device: &Device) -> Result<Self> {
        let filled = |x: f32| Var::from_tensor(&Tensor::full(x, channels, device)?);
        Ok(Self {
            weight: filled(1.0)?,
            bias: filled(0.0)?,
            running_mean: filled(0.0)?,
            running_var: filled(1.0)?,
            steps: Var::from_tensor(&Tensor::full(0f32, (), device)?)?,
        })
    }

    /// Scale and shift.
    pub fn parameters(&self) -> [(&'static str, &Var); 2] {
        [("weight", &self.weight), ("bias", &self.bias)]
    }

    /// Running statistics, and the number of steps they come from.
    pub fn buffers(&self) -> [(&'static str, &Var); 3] {
        [("running_mean", &self.running_mean), ("running_var", &self.running_var), ("num_batches_tracked", &self.steps)]
    }

    /// Replaces the running statistics.
    pub fn set_statistics(&self, mean: &Tensor, variance: &Tensor) -> Result<()> {
        self.running_mean.set(mean)?;
        self.running_var.set(variance)
    }

    /// Normalises `[N, C]` rows: in training with the batch's statistics, else with the running ones.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        match (mode, x.device()) {
            (Mode::Eval, _) => {
                let scale = self.weight.div(&(self.running_var.as_tensor() + EPSILON)?.sqrt()?)?;
                let shift = (self.bias.as_tensor() - self.running_mean.mul(&scale)?)?;
                x.broadcast_mul(&scale)?.broadcast_add(&shift)
            }
            (Mode::Train, Device::Cpu) => self.train_on_cpu(&x.contiguous()?),
            (Mode::Train, _) => self.train_on_any_device(x),
        }
    }

    fn train_on_cpu(&self, x: &Tensor) -> Result<Tensor> {
        let (n, c) = x.dims2()?;
        let (mean, variance) = with_elements("batch norm", x, |x| Ok(statistics(x, n, c)))?;
        self.track(&Tensor::from_slice(&mean, c, x.device())?, &Tensor::from_slice(&variance, c, x.device())?, n)?;
        let inverse = variance.iter().map(|v| 1.0 / (v + EPSILON as f32).sqrt()).collect();
        apply3(Normalise { mean, inverse }, x, self.weight.as_tensor(), self.bias.as_tensor())
    }

    fn train_on_any_device(&self, x: &Tensor) -> Result<Tensor> {
        let mean = x.mean_keepdim(0)?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(0)?;
        self.track(&mean.squeeze(0)?.detach(), &variance.squeeze(0)?.detach(), x.dim(0)?)?;
        let inverse = (variance + EPSILON)?.sqrt()?.recip()?;
        centred.broadcast_mul(&inverse)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }

    /// Updates the running statistics; the running variance is the sample variance (divided by n - 1).
    fn track(&self, mean: &Tensor, variance: &Tensor, n: usize) -> Result<()> {
        if !mean.device().is_cpu() {
            return self.track_on_device(mean, variance, n);
        }
        let steps = f64::from(self.steps.to_scalar::<f32>()?) + 1.0;
        let momentum = MOMENTUM.max(1.0 / steps);
        let unbias = n as f64 / (n as f64 - 1.0).max(1.0);
        let blend = |old: &Var, new: &Tensor, factor: f64| {
            old.set(&((old.as_detached_tensor() * (1.0 - momentum))? + (new * (momentum * factor))?)?)
        };
        blend(&self.running_mean, mean, 1.0)?;
        blend(&self.running_var, variance, unbias)?;
        self.steps.set(&Tensor::full(steps as f32, (), self.steps.device())?)
    }
}

impl BatchNorm1d {
    /// [`BatchNorm1d::track`] without reading the number of steps back from the device.
    fn track_on_device(&self, mean: &Tensor, variance: &Tensor, n: usize) -> Result<()> {
        let unbias = n as f64 / (n as f64 - 1.0).max(1.0);
        let steps = (self.steps.as_detached_tensor() + 1.0)?;
        let momentum = steps.recip()?.maximum(MOMENTUM)?;
        let blend = |old: &Var, new: &Tensor| {
            let kept = old.as_detached_tensor();
            old.set(&(&kept + (new - &kept)?.broadcast_mul(&momentum)?)?)
        };
        blend(&self.running_mean, mean)?;
        blend(&self.running_var, &(variance * unbias)?)?;
        self.steps.set(&steps)
    }
}

/// Mean and (population) variance of every column.
fn statistics(x: &[f32], n: usize, c: usize) -> (Vec<f32>, Vec<f32>) {
    let mut mean = vec![0f32; c];
    for row in x.chunks_exact(c) {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += x);
    }
    mean.iter_mut().for_each(|m| *m /= n as f32);
    let mut variance = vec![0f32; c];
    for row in x.chunks_exact(c) {
        variance.iter_mut().zip(row).zip(&mean).for_each(|((v, x), m)| *v += (x - m) * (x - m));
    }
    variance.iter_mut().for_each(|v| *v /= n as f32);
    (mean, variance)
}

/// (x - mean) * inverse * weight + bias, where mean and inverse standard deviation are those of x.
struct Normalise {
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl Operation<3> for Normalise {
    fn name(&self) -> &'static str {
        "batch-norm-1d"
    }

    fn on_host(&self, [x, weight, bias]: [Host<'_>; 3]) -> Result<(Vec<f32>, Shape)> {
        let (dims, x, weight, bias) = (x.dims, x.values, weight.values, bias.values);
        let c = self.mean.len();
        let scale: Vec<f32> = weight.iter().zip(&self.inverse).map(|(w, i)| w * i).collect();
        let mut y = vec![0f32; x.len()];
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for j in 0..c {
                y[j] = (x[j] - self.mean[j]) * scale[j] + bias[j];
            }
        }
        Ok((y, dims.into()))
    }

    /// With x^ = (x - mean) * inverse: d bias = sum g, d weight = sum g x^,
    /// d x = weight * inverse * (g - mean(g) - x^ mean(g x^)).
    fn gradients(&self, [x, weight, _]: [&Tensor; 3], _: &Tensor, gradient: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let (n, c) = x.dims2()?;
        let device = x.device();
        let name = self.name();
        let (sums, dx) = with_elements(name, x, |xs| {
            with_elements(name, gradient, |gs| {
                let (mut g_sum, mut gx_sum) = (vec![0f32; c], vec![0f32; c]);
                for (x, g) in xs.chunks_exact(c).zip(gs.chunks_exact(c)) {
                    for j in 0..c {
                        g_sum[j] += g[j];
                        gx_sum[j] += g[j] * (x[j] - self.mean[j]) * self.inverse[j];
                    }
                }
                // Cached features need no gradient: this saves half of the work of a head-only step.
                let dx = x.track_op().then(|| {
                    with_elements(name, weight, |w| {
                        let mut dx = vec![0f32; xs.len()];
                        for ((d, x), g) in dx.chunks_exact_mut(c).zip(xs.chunks_exact(c)).zip(gs.chunks_exact(c)) {
                            for j in 0..c {
                                let normal = (x[j] - self.mean[j]) * self.inverse[j];
                                let centred = g[j] - (g_sum[j] + normal * gx_sum[j]) / n as f32;
                                d[j] = w[j] * self.inverse[j] * centred;
                            }
                        }
                        Ok(dx)
                    })
                });
                Ok(((g_sum, gx_sum), dx))
            })
        })?;
        let dx = dx.transpose()?.map(|dx| Tensor::from_vec(dx, (n, c), device)).transpose()?;
        let (g_sum, gx_sum) = sums;
        Ok([dx, Some(Tensor::from_vec(gx_sum, c, device)?), Some(Tensor::from_vec(g_sum, c, device)?)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, StreamRng};

    fn random(shape: (usize, usize), stream: u64) -> Tensor {
        let mut rng = StreamRng::keyed(1, Purpose::Test, &[stream]);
        let values: Vec<f32> = (0..shape.0 * shape.1).map(|_| rng.unit() as f32 * 3.0 - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn vector(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn running_statistics_are_the_same_without_reading_the_number_of_steps() {
        let norm = || BatchNorm1d::new(2, &Device::Cpu).unwrap();
        let (reading, lazy) = (norm(), norm());
        for step in 0..14 {
            let new = |x: f32| Tensor::new(&[x + step as f32, x * 0.7f32.powi(step)], &Device::Cpu).unwrap();
            reading.track(&new(1.0), &new(3.0), 5).unwrap();
            lazy.track_on_device(&new(1.0), &new(3.0), 5).unwrap();
            for ((_, a), (name, b)) in reading.buffers().into_iter().zip(lazy.buffers()) {
                let (a, b) = (a.flatten_all().unwrap(), b.flatten_all().unwrap());
                for (a, b) in a.to_vec1::<f32>().unwrap().iter().zip(b.to_vec1::<f32>().unwrap()) {
                    assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{name} after {step}: {a} and {b}");
                }
            }
        }
    }

    /// The hand-written operation against the same formula in candle's own operations, gradients included.
    #[test]
    fn the_fused_pass_agrees_with_plain_operations() {
        let norm = BatchNorm1d::new(5, &Device::Cpu).unwrap();
        norm.weight.set(&random((1, 5), 1).squeeze(0).unwrap()).unwrap();
        norm.bias.set(&random((1, 5), 2).squeeze(0).unwrap()).unwrap();
        let x = Var::from_tensor(&random((7, 5), 3)).unwrap();
        let v = random((7, 5), 4);
        let run = |y: Tensor| {
            let grads = (&y * &v).unwrap().sum_all().unwrap().backward().unwrap();
            let grad = |var: &Var| vector(grads.get(var).unwrap());
            [vector(&y), grad(&x), grad(&norm.weight), grad(&norm.bias)]
        };
        let fused = run(norm.train_on_cpu(&x).unwrap());
        let (mean, var) = (vector(&norm.running_mean), vector(&norm.running_var));
        let plain = run(norm.train_on_any_device(&x).unwrap());
        for (a, b) in fused.iter().flatten().zip(plain.iter().flatten()) {
            assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{a} {b}");
        }
        // The second step saw the same batch, so the mean of both is that of the first.
        for (a, b) in mean.iter().chain(&var).zip(vector(&norm.running_mean).iter().chain(&vector(&norm.running_var))) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn cached_features_get_no_gradient() {
        let norm = BatchNorm1d::new(5, &Device::Cpu).unwrap();
        let x = random((4, 5), 3);
        let grads = norm.forward(&x, Mode::Train).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_none());
        assert!(grads.get(&norm.weight).is_some());
    }

    #[test]
    fn running_statistics_are_means_at_first_and_move_by_a_tenth_later() {
        let norm = BatchNorm1d::new(1, &Device::Cpu).unwrap();
        for value in 1..=20 {
            // Two rows around `value`: mean `value`, sample variance 2.
            let x = Tensor::from_vec(vec![value as f32 - 1.0, value as f32 + 1.0], (2, 1), &Device::Cpu).unwrap();
            norm.forward(&x, Mode::Train).unwrap();
            if value == 10 {
                assert!((vector(&norm.running_mean)[0] - 5.5).abs() < 1e-5);
            }
        }
        let wanted = (11..=20).fold(5.5, |m, v| 0.9 * m + 0.1 * f64::from(v));
        assert!((f64::from(vector(&norm.running_mean)[0]) - wanted).abs() < 1e-5);
        assert!((vector(&norm.running_var)[0] - 2.0).abs() < 1e-5);
    }
}
