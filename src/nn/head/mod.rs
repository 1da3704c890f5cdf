//! The head on a backbone: global average pooling, batch norm, dropout, dense; optionally with a hidden layer.

mod dropout;
mod norm;

pub use dropout::{DropoutKey, mask};
pub use norm::{BatchNorm1d, EPSILON as NORM_EPSILON};

use super::{Mode, init};
use crate::ids::TrialNumber;
use crate::spec::{HeadKind, HeadSpec};
use candle_core::{Device, Result, Tensor, Var};

/// A dense layer, `weight` being `[out, in]` as in PyTorch.
#[derive(Debug)]
struct Dense {
    name: &'static str,
    weight: Var,
    bias: Var,
}

impl Dense {
    /// PyTorch's `nn.Linear` initialisation: uniform, bound 1 / sqrt(in).
    fn new(
        name: &'static str,
        (inputs, outputs): (usize, usize),
        seed: u64,
        key: &[u64],
        device: &Device,
    ) -> Result<Self> {
        let bound = 1.0 / (inputs as f64).sqrt();
        let draw = |part: &str, n| init::uniform(&format!("head.{name}.{part}"), n, bound, seed, key);
        Ok(Self {
            name,
            weight: Var::from_vec(draw("weight", inputs * outputs), (outputs, inputs), device)?,
            bias: Var::from_vec(draw("bias", outputs), outputs, device)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // With the weight as the left factor its gradient is laid out as it is: transposing one takes longer than all else.
        self.weight.matmul(&x.t()?)?.t()?.broadcast_add(&self.bias)
    }
}

/// The head of one model of one trial.
#[derive(Debug)]
pub struct Head {
    norm: BatchNorm1d,
    hidden: Option<Dense>,
    out: Dense,
    dropout: f64,
}

impl Head {
    /// A new head on `channels` features, its weights drawn from (`seed`, tensor name, `trial`, `fold`).
    pub fn new(
        spec: &HeadSpec,
        channels: usize,
        classes: usize,
        seed: u64,
        (trial, fold): (TrialNumber, u32),
        device: &Device,
    ) -> Result<Self> {
        let key = [u64::from(trial.0), u64::from(fold)];
        let (hidden, inputs) = match spec.kind {
            HeadKind::Linear => (None, channels),
            HeadKind::Hidden => {
                let units = spec.hidden_units as usize;
                (Some(Dense::new("hidden", (channels, units), seed, &key, device)?), units)
            }
        };
        Ok(Self {
            norm: BatchNorm1d::new(channels, device)?,
            hidden,
            out: Dense::new("out", (inputs, classes), seed, &key, device)?,
            dropout: spec.dropout,
        })
    }

    /// Logits `[N, classes]` of feature maps `[N, H, W, C]` or pooled features `[N, C]`.
    ///
    /// Dropout acts in `Mode::Train` only, with the masks of `key`.
    pub fn forward(&self, x: &Tensor, mode: Mode, key: &DropoutKey) -> Result<Tensor> {
        let pooled = pool(x)?;
        let drop = |x: Tensor, layer: u64| {
            if mode == Mode::Eval || self.dropout == 0.0 {
                return Ok(x);
            }
            let (n, width) = x.dims2()?;
            &x * mask(key, layer, self.dropout, n, width, x.device())?
        };
        let mut x = drop(self.norm.forward(&pooled, mode)?, 0)?;
        if let Some(hidden) = &self.hidden {
            x = drop(hidden.forward(&x)?.relu()?, 1)?;
        }
        self.out.forward(&x)
    }

    /// Parameters by name, in a fixed order.
    pub fn parameters(&self) -> Vec<(String, Var)> {
        let mut all: Vec<_> =
            self.norm.parameters().map(|(name, var)| (format!("head.norm.{name}"), var.clone())).into();
        for dense in self.hidden.iter().chain([&self.out]) {
            all.push((format!("head.{}.weight", dense.name), dense.weight.clone()));
            all.push((format!("head.{}.bias", dense.name), dense.bias.clone()));
        }
        all
    }

    /// Replaces the running statistics by those of a population of pooled features.
    pub fn set_statistics(&self, population: &Population) -> Result<()> {
        let device = self.norm.parameters()[0].1.device();
        let [mean, variance] = population.statistics();
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, population.sums.len(), device);
        self.norm.set_statistics(&tensor(mean)?, &tensor(variance)?)
    }

    /// For each row of pooled features `[N, C]` the mean over the channels of the squared distance from the running mean in
    /// units of the running variance.
    pub fn distances(&self, pooled: &Tensor) -> Result<Vec<f64>> {
        let [(_, mean), (_, variance), _] = self.norm.buffers();
        let centred = pooled.detach().broadcast_sub(&mean.as_detached_tensor())?;
        let squares = centred.sqr()?.broadcast_div(&(variance.as_detached_tensor() + NORM_EPSILON)?)?;
        Ok(squares.mean(1)?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    }

    /// Running statistics by name, in a fixed order.
    pub fn buffers(&self) -> Vec<(String, Var)> {
        self.norm.buffers().map(|(name, var)| (format!("head.norm.{name}"), var.clone())).into()
    }
}

/// Sums over pooled features, for their mean and variance.
#[derive(Clone, Debug)]
pub struct Population {
    count: usize,
    /// For each channel the sum and the sum of squares; in f64 the difference of squares is precise enough.
    sums: Vec<[f64; 2]>,
}

impl Population {
    /// An empty population with the head's number of channels.
    pub fn new(head: &Head) -> Self {
        Self { count: 0, sums: vec![[0.0; 2]; head.norm.parameters()[0].1.elem_count()] }
    }

    /// Adds feature maps `[N, H, W, C]` or pooled features `[N, C]`.
    pub fn add(&mut self, x: &Tensor) -> Result<()> {
        let rows: Vec<Vec<f32>> = pool(&x.detach())?.to_vec2()?;
        for row in &rows {
            for (sums, &x) in self.sums.iter_mut().zip(row) {
                *sums = [sums[0] + f64::from(x), sums[1] + f64::from(x) * f64::from(x)];
            }
        }
        self.count += rows.len();
        Ok(())
    }

    /// Mean and (sample) variance of every channel.
    fn statistics(&self) -> [Vec<f32>; 2] {
        let n = self.count.max(1) as f64;
        let unbias = n / (n - 1.0).max(1.0);
        let mean = self.sums.iter().map(|[sum, _]| (sum / n) as f32).collect();
        let variance = |[sum, squares]: &[f64; 2]| ((squares / n - (sum / n).powi(2)).max(0.0) * unbias) as f32;
        [mean, self.sums.iter().map(variance).collect()]
    }
}

/// Global average pooling: `[N, H, W, C]` to `[N, C]`; pooled features stay as they are.
pub fn pool(x: &Tensor) -> Result<Tensor> {
    match *x.dims() {
        [_, _] => Ok(x.clone()),
        [n, h, w, c] => x.reshape((n, h * w, c))?.mean(1),
        _ => candle_core::bail!("a head takes [N, H, W, C] or [N, C], not {:?}", x.dims()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    const KEY: DropoutKey = DropoutKey { seed: 3, trial: TrialNumber(1), epoch: Epoch(2), fold: 0, first_sample: 0 };

    fn head(kind: HeadKind, dropout: f64) -> Head {
        let spec = HeadSpec { kind, dropout, hidden_units: 6 };
        Head::new(&spec, 4, 3, 9, (TrialNumber(1), 0), &Device::Cpu).unwrap()
    }

    fn maps() -> Tensor {
        let values: Vec<f32> = (0..5 * 2 * 3 * 4).map(|i| ((i * 37) % 23) as f32 / 7.0).collect();
        Tensor::from_vec(values, (5, 2, 3, 4), &Device::Cpu).unwrap()
    }

    #[test]
    fn maps_and_their_means_give_the_same_logits() {
        for kind in [HeadKind::Linear, HeadKind::Hidden] {
            let (a, b) = (head(kind, 0.5), head(kind, 0.5));
            let pooled = maps().mean((1, 2)).unwrap();
            let a = a.forward(&maps(), Mode::Train, &KEY).unwrap();
            let b = b.forward(&pooled, Mode::Train, &KEY).unwrap();
            assert_eq!(a.dims(), [5, 3]);
            let off = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(off < 1e-5, "{off}");
        }
    }

    #[test]
    fn initial_weights_are_keyed_by_trial_and_fold() {
        let spec = HeadSpec { kind: HeadKind::Hidden, dropout: 0.0, hidden_units: 6 };
        let draw = |trial, fold| {
            let head = Head::new(&spec, 4, 3, 9, (TrialNumber(trial), fold), &Device::Cpu).unwrap();
            head.parameters().iter().flat_map(|(_, v)| v.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
        };
        let base: Vec<f32> = draw(1, 0);
        assert_eq!(base, draw(1, 0));
        assert_ne!(base, draw(2, 0));
        assert_ne!(base, draw(1, 1));
    }

    /// Inference with the statistics of a population normalises that population: means 0, variances 1 (but for the
    /// epsilon, and a channel without variance), however large the means are.
    #[test]
    fn statistics_of_a_population_normalise_it() {
        let (n, c) = (40, 3);
        let wave = |i: usize, j: usize| [((i * 7 % 11) as f32).sin(), (i * i % 13) as f32 * 50.0 + 3e4, 2.5][j];
        let rows: Vec<f32> = (0..n * c).map(|k| wave(k / c, k % c)).collect();
        let rows = Tensor::from_vec(rows, (n, c), &Device::Cpu).unwrap();
        let spec = HeadSpec { kind: HeadKind::Linear, dropout: 0.0, hidden_units: 1 };
        let head = Head::new(&spec, c, 2, 9, (TrialNumber(1), 0), &Device::Cpu).unwrap();
        let mut population = Population::new(&head);
        for (start, length) in [(0, 16), (16, 16), (32, 8)] {
            population.add(&rows.narrow(0, start, length).unwrap()).unwrap();
        }
        head.set_statistics(&population).unwrap();
        let y: Vec<Vec<f32>> = head.norm.forward(&rows, Mode::Eval).unwrap().to_vec2().unwrap();
        for (j, wanted) in [1.0, 1.0, 0.0].into_iter().enumerate() {
            let mean = y.iter().map(|row| f64::from(row[j])).sum::<f64>() / n as f64;
            let variance = y.iter().map(|row| (f64::from(row[j]) - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            assert!(mean.abs() < 2e-4 && (variance - wanted).abs() < 2e-4, "channel {j}: {mean}, {variance}");
        }
    }

    #[test]
    fn dropout_is_for_training_only() {
        let head = head(HeadKind::Hidden, 0.5);
        let logits = |mode, key: &DropoutKey| head.forward(&maps(), mode, key).unwrap().to_vec2::<f32>().unwrap();
        let other = DropoutKey { epoch: Epoch(3), ..KEY };
        assert_eq!(logits(Mode::Eval, &KEY), logits(Mode::Eval, &other));
        assert_ne!(logits(Mode::Train, &KEY), logits(Mode::Train, &other));
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for kind in [HeadKind::Linear, HeadKind::Hidden] {
            let head = head(kind, 0.3);
            let loss = || {
                let y = head.forward(&maps(), Mode::Train, &KEY).unwrap();
                y.sqr().unwrap().mean_all().unwrap()
            };
            let grads = loss().backward().unwrap();
            for (name, var) in head.parameters() {
                let analytic: Vec<f32> = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let start: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
                for i in 0..start.len() {
                    let at = |d: f32| {
                        let mut moved = start.clone();
                        moved[i] += d;
                        var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap()).unwrap();
                        f64::from(loss().to_scalar::<f32>().unwrap())
                    };
                    let h = 1e-2;
                    let numeric = (at(h) - at(-h)) / (2.0 * f64::from(h));
                    let off = (numeric - f64::from(analytic[i])).abs();
                    assert!(off < 3e-3 * numeric.abs().max(0.3), "{name}[{i}]: {numeric} against {}", analytic[i]);
                }
                var.set(&Tensor::from_vec(start, var.dims(), &Device::Cpu).unwrap()).unwrap();
            }
        }
    }
}
