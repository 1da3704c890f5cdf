//! AdamW and SGD with momentum, as PyTorch computes them, with state that checkpoints can save and restore.

#[cfg(feature = "cuda")]
use super::cuda::update;
use super::tensor::{elements, with_elements};
use crate::spec::{OptimiserKind, TrainingSpec};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var};
use rayon::prelude::*;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Elements of one task. Updates are element by element, so for them this affects only speed.
const CHUNK: usize = 1 << 14;

/// A parameter and the optimiser's state for it.
#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    /// Multiplies the learning rate.
    multiplier: f64,
    decay: f64,
    /// The optimiser's step before its first.
    since: u64,
    /// AdamW: mean gradient; SGD: momentum buffer.
    first: Tensor,
    /// AdamW: mean squared gradient.
    second: Option<Tensor>,
}

/// An optimiser over named parameters in groups.
#[derive(Debug)]
pub struct Optimiser {
    kind: OptimiserKind,
    momentum: f64,
    /// The largest global norm of the gradients; 0: no limit.
    clip_norm: f64,
    steps: u64,
    slots: Vec<Slot>,
}

/// Parameters that share a learning rate.
pub struct Group {
    /// Multiplies the scheduled learning rate.
    pub multiplier: f64,
    /// Parameters by name. Biases and the scales and shifts of norms have no weight decay.
    pub parameters: Vec<(String, Var)>,
    /// Steps of the optimiser in which these have no gradients yet: they do not count as theirs, as in PyTorch.
    pub since: u64,
}

impl Group {
    /// One group for each unfrozen stage, from parameters in network order. The last stage has the learning-rate
    /// multiplier `backbone_rate`, each earlier one `layer_decay` times that of the next.
    pub fn by_stage(parameters: Vec<(String, Var)>, training: &TrainingSpec, since: u64) -> Vec<Self> {
        let mut stages: Vec<(String, Self)> = Vec::new();
        for (name, var) in parameters {
            let stage = name.split('.').next().unwrap_or_default().to_owned();
            match stages.last_mut() {
                Some((last, group)) if *last == stage => group.parameters.push((name, var)),
                _ => stages.push((stage, Self { multiplier: 0.0, parameters: vec![(name, var)], since })),
            }
        }
        let mut multiplier = training.backbone_rate;
        for (_, group) in stages.iter_mut().rev() {
            group.multiplier = multiplier;
            multiplier *= training.layer_decay;
        }
        stages.into_iter().map(|(_, group)| group).collect()
    }
}

/// Whether weight decay acts on a parameter: on the weights of convolutions and dense layers only.
pub fn decays(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    let (last, owner) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    last == "weight" && !owner.starts_with("bn") && !owner.starts_with("norm")
}

impl Optimiser {
    /// The optimiser that `spec` names, with zeroed state.
    pub fn new(spec: &TrainingSpec, groups: Vec<Group>) -> Result<Self> {
        let mut slots = Vec::new();
        for group in groups {
            for (name, var) in group.parameters {
                let zeros = || Tensor::zeros(var.shape(), var.dtype(), var.device());
                slots.push(Slot {
                    multiplier: group.multiplier,
                    decay: if decays(&name) { spec.weight_decay } else { 0.0 },
                    since: group.since,
                    first: zeros()?,
                    second: matches!(spec.optimiser, OptimiserKind::AdamW).then(zeros).transpose()?,
                    name,
                    var,
                });
            }
        }
        let TrainingSpec { optimiser: kind, momentum, clip_norm, .. } = *spec;
        Ok(Self { kind, momentum, clip_norm, steps: 0, slots })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates every parameter that has a gradient, at learning rate `rate` times its group's multiplier.
    pub fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        let clip = self.clip(gradients)?;
        for slot in &self.slots {
            let Some(gradient) = gradients.get(&slot.var) else { continue };
            let (gradient, scale) = match &clip {
                Clip::By(scale) => (gradient.contiguous()?, *scale),
                Clip::ByScalar(scale) => (gradient.broadcast_mul(scale)?, 1.0),
            };
            slot.update(
                self.kind,
                &gradient,
                scale,
                rate * slot.multiplier,
                self.momentum,
                self.steps.saturating_sub(slot.since),
            )?;
        }
        Ok(())
    }

    /// The factor for all gradients, as in torch's `clip_grad_norm_` over all parameters.
    fn clip(&self, gradients: &GradStore) -> Result<Clip> {
        let all = self.slots.iter().filter_map(|slot| gradients.get(&slot.var));
        if self.clip_norm == 0.0 {
            return Ok(Clip::By(1.0));
        }
        let mut on_device: Option<Tensor> = None;
        let mut sum = 0.0;
        for gradient in all {
            if gradient.device().is_cpu() {
                sum += squares(&gradient.contiguous()?)?;
            } else {
                let squares = gradient.sqr()?.sum_all()?;
                on_device = Some(match on_device {
                    Some(sum) => (sum + squares)?,
                    None => squares,
                });
            }
        }
        Ok(match on_device {
            // Not read back, so that nothing waits for the device.
            Some(sum) => Clip::ByScalar((self.clip_norm / (sum.sqrt()? + 1e-6)?)?.minimum(1.0)?),
            None => Clip::By((self.clip_norm / (sum.sqrt() + 1e-6)).min(1.0) as f32),
        })
    }

    /// What a checkpoint must hold in addition to the parameters and [`Optimiser::steps`], by name, in a fixed order.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for slot in &self.slots {
            all.push((format!("first/{}", slot.name), slot.first.clone()));
            all.extend(slot.second.iter().map(|t| (format!("second/{}", slot.name), t.clone())));
        }
        all
    }

    /// Restores a checkpoint's state: `state(name)` returns a tensor of the name and shape that [`Optimiser::state`] gave;
    /// without one, the optimiser's own stays.
    pub fn restore(&mut self, steps: u64, mut state: impl FnMut(&str) -> Option<Tensor>) {
        for slot in &mut self.slots {
            if let Some(first) = state(&format!("first/{}", slot.name)) {
                slot.first = first;
            }
            if slot.second.is_some()
                && let Some(second) = state(&format!("second/{}", slot.name))
            {
                slot.second = Some(second);
            }
        }
        self.steps = steps;
    }
}

/// The factor that gradients are clipped with.
enum Clip {
    By(f32),
    /// A scalar on a device.
    ByScalar(Tensor),
}

/// The sum of a contiguous tensor's squares: the same for every number of threads.
fn squares(gradient: &Tensor) -> Result<f64> {
    with_elements("clip", gradient, |values| {
        let parts = values.par_chunks(CHUNK).map(|part| part.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>());
        Ok(parts.collect::<Vec<f64>>().iter().sum())
    })
}

impl Slot {
    fn update(
        &self,
        kind: OptimiserKind,
        gradient: &Tensor,
        scale: f32,
        rate: f64,
        momentum: f64,
        steps: u64,
    ) -> Result<()> {
        match (kind, &self.second) {
            (OptimiserKind::AdamW, Some(second)) => {
                let power = i32::try_from(steps).unwrap_or(i32::MAX);
                let corrections = (1.0 - BETA1.powi(power), 1.0 - BETA2.powi(power));
                self.first.inplace_op2(gradient, &Blend { keep: BETA1, square: false, scale })?;
                second.inplace_op2(gradient, &Blend { keep: BETA2, square: true, scale })?;
                let step = AdamStep {
                    shrink: (1.0 - rate * self.decay) as f32,
                    rate: (rate / corrections.0) as f32,
                    root: corrections.1.sqrt() as f32,
                };
                self.var.inplace_op3(&self.first, second, &step)
            }
            _ => {
                let sgd = SgdBuffer { momentum: momentum as f32, decay: self.decay as f32, scale };
                self.first.inplace_op3(gradient, self.var.as_tensor(), &sgd)?;
                self.var.inplace_op2(&self.first, &Descend { rate: rate as f32 })
            }
        }
    }
}

fn values<'a>(storage: &'a mut CpuStorage, layout: &Layout, what: &'static str) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&mut values[from..to]),
        _ => candle_core::bail!("{what} wants contiguous f32 values"),
    }
}

fn each2(a: &mut [f32], b: &[f32], f: impl Fn(&mut f32, f32) + Sync) {
    a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| f(a, *b)));
}

fn each3(a: &mut [f32], b: &[f32], c: &[f32], f: impl Fn(&mut f32, f32, f32) + Sync) {
    a.par_chunks_mut(CHUNK)
        .zip(b.par_chunks(CHUNK).zip(c.par_chunks(CHUNK)))
        .for_each(|(a, (b, c))| a.iter_mut().zip(b.iter().zip(c)).for_each(|(a, (b, c))| f(a, *b, *c)));
}

/// a = keep a + (1 - keep) g, or g squared, where g is the gradient times `scale`.
struct Blend {
    keep: f64,
    square: bool,
    scale: f32,
}

impl Blend {
    /// Factors of a and of the gradient or its square.
    fn factors(&self) -> [f32; 2] {
        let scale = if self.square { self.scale * self.scale } else { self.scale };
        // In f32, 1 - .999 would have a relative error of 1e-5.
        [self.keep as f32, (1.0 - self.keep) as f32 * scale]
    }
}

/// Moves `average` towards `value`, which has its shape: it keeps a share `keep` of itself.
pub(super) fn blend(average: &Tensor, value: &Tensor, keep: f64) -> Result<()> {
    average.inplace_op2(value, &Blend { keep, square: false, scale: 1.0 })
}

impl InplaceOp2 for Blend {
    fn name(&self) -> &'static str {
        "moment"
    }
    fn cpu_fwd(&self, a: &mut CpuStorage, al: &Layout, g: &CpuStorage, gl: &Layout) -> Result<()> {
        let [keep, rest] = self.factors();
        let (a, g) = (values(a, al, self.name())?, elements(self.name(), g, gl)?);
        if self.square {
            each2(a, g, |a, g| *a = keep * *a + rest * (g * g));
        } else {
            each2(a, g, |a, g| *a = keep * *a + rest * g);
        }
        Ok(())
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, a: &mut CudaStorage, al: &Layout, g: &CudaStorage, gl: &Layout) -> Result<()> {
        let kernel = if self.square { "moment_of_squares" } else { "moment" };
        update::run(kernel, (a, al), &[(g, gl)], &self.factors())
    }
}

/// p = shrink p - rate m / (sqrt(v) / root + epsilon).
struct AdamStep {
    shrink: f32,
    rate: f32,
    root: f32,
}

impl InplaceOp3 for AdamStep {
    fn name(&self) -> &'static str {
        "adamw"
    }
    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        pl: &Layout,
        m: &CpuStorage,
        ml: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> Result<()> {
        let Self { shrink, rate, root } = *self;
        let (m, v) = (elements(self.name(), m, ml)?, elements(self.name(), v, vl)?);
        each3(values(p, pl, self.name())?, m, v, |p, m, v| {
            *p = shrink * *p - rate * (m / (v.sqrt() / root + EPSILON as f32));
        });
        Ok(())
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        p: &mut CudaStorage,
        pl: &Layout,
        m: &CudaStorage,
        ml: &Layout,
        v: &CudaStorage,
        vl: &Layout,
    ) -> Result<()> {
        let Self { shrink, rate, root } = *self;
        update::run("adamw", (p, pl), &[(m, ml), (v, vl)], &[shrink, rate, root, EPSILON as f32])
    }
}

/// b = momentum b + scale g + decay p.
struct SgdBuffer {
    momentum: f32,
    decay: f32,
    /// Always 1 on a device, where the gradient is scaled before.
    scale: f32,
}

impl InplaceOp3 for SgdBuffer {
    fn name(&self) -> &'static str {
        "momentum"
    }
    fn cpu_fwd(
        &self,
        b: &mut CpuStorage,
        bl: &Layout,
        g: &CpuStorage,
        gl: &Layout,
        p: &CpuStorage,
        pl: &Layout,
    ) -> Result<()> {
        let Self { momentum, decay, scale } = *self;
        let (g, p) = (elements(self.name(), g, gl)?, elements(self.name(), p, pl)?);
        each3(values(b, bl, self.name())?, g, p, |b, g, p| *b = momentum * *b + (scale * g + decay * p));
        Ok(())
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        b: &mut CudaStorage,
        bl: &Layout,
        g: &CudaStorage,
        gl: &Layout,
        p: &CudaStorage,
        pl: &Layout,
    ) -> Result<()> {
        update::run("momentum", (b, bl), &[(g, gl), (p, pl)], &[self.momentum, self.decay])
    }
}

/// p = p - rate b.
struct Descend {
    rate: f32,
}

impl InplaceOp2 for Descend {
    fn name(&self) -> &'static str {
        "descend"
    }
    fn cpu_fwd(&self, p: &mut CpuStorage, pl: &Layout, b: &CpuStorage, bl: &Layout) -> Result<()> {
        let rate = self.rate;
        each2(values(p, pl, self.name())?, elements(self.name(), b, bl)?, |p, b| *p -= rate * b);
        Ok(())
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, p: &mut CudaStorage, pl: &Layout, b: &CudaStorage, bl: &Layout) -> Result<()> {
        update::run("descend", (p, pl), &[(b, bl)], &[self.rate])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::figures::{figures, list, s};
    use crate::spec::{ImbalancePolicy, LossKind, ScheduleKind};
    use candle_core::Device;

    pub(crate) fn spec(optimiser: OptimiserKind) -> TrainingSpec {
        TrainingSpec {
            epochs: 10,
            batch_size: 8,
            optimiser,
            learning_rate: 0.05,
            weight_decay: 0.1,
            momentum: 0.9,
            backbone_rate: 0.1,
            schedule: ScheduleKind::Constant,
            warmup_epochs: 0.0,
            loss: LossKind::CrossEntropy,
            focal_gamma: 2.0,
            label_smoothing: 0.0,
            imbalance: ImbalancePolicy::None,
            ..TrainingSpec::default()
        }
    }

    struct Problem {
        w: Var,
        b: Var,
        x: Tensor,
        y: Tensor,
    }

    impl Problem {
        fn new() -> Self {
            let tensor = |name, shape: (usize, usize)| {
                Tensor::from_vec(s(name, shape.0 * shape.1), shape, &Device::Cpu).unwrap()
            };
            Self {
                w: Var::from_tensor(&tensor("w", (3, 2))).unwrap(),
                b: Var::from_tensor(&tensor("b", (1, 3)).squeeze(0).unwrap()).unwrap(),
                x: tensor("x", (8, 2)),
                y: tensor("y", (8, 3)),
            }
        }

        fn optimiser(&self, kind: OptimiserKind) -> Optimiser {
            let parameters = vec![("out.weight".into(), self.w.clone()), ("out.bias".into(), self.b.clone())];
            Optimiser::new(&spec(kind), vec![Group { multiplier: 1.0, parameters, since: 0 }]).unwrap()
        }

        fn clipping(&self, kind: OptimiserKind) -> Optimiser {
            let clip_norm = figures()["clip_norm"].as_f64().unwrap();
            Optimiser { clip_norm, ..self.optimiser(kind) }
        }

        fn step(&self, optimiser: &mut Optimiser, step: u32) {
            let y = self.x.matmul(&self.w.t().unwrap()).unwrap().broadcast_add(&self.b).unwrap();
            let loss = (y - &self.y).unwrap().sqr().unwrap().mean_all().unwrap();
            optimiser.step(&loss.backward().unwrap(), 0.05 / (1.0 + f64::from(step) / 10.0)).unwrap();
        }

        fn values(&self) -> Vec<f32> {
            let v = |t: &Var| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            [v(&self.w), v(&self.b)].concat()
        }
    }

    /// Twenty steps with a changing learning rate, decay on the weight but not on the bias, against PyTorch in f64.
    #[test]
    fn trajectories_agree_with_pytorch() {
        use OptimiserKind::{AdamW, Sgd};
        for (case, (kind, clips)) in [(AdamW, false), (Sgd, false), (AdamW, true), (Sgd, true)].into_iter().enumerate()
        {
            let problem = Problem::new();
            let mut optimiser = if clips { problem.clipping(kind) } else { problem.optimiser(kind) };
            for step in 0..20 {
                problem.step(&mut optimiser, step);
                let wanted = list(&figures()["trajectories"][case]["course"][step as usize]);
                for (ours, theirs) in problem.values().into_iter().zip(wanted) {
                    assert!((f64::from(ours) - theirs).abs() < 2e-6, "case {case}, step {step}: {ours}, not {theirs}");
                }
            }
            assert_eq!(optimiser.steps(), 20);
        }
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        for kind in [OptimiserKind::AdamW, OptimiserKind::Sgd] {
            let straight = Problem::new();
            let mut optimiser = straight.optimiser(kind);
            (0..6).for_each(|step| straight.step(&mut optimiser, step));

            let broken = Problem::new();
            let mut optimiser = broken.optimiser(kind);
            (0..3).for_each(|step| broken.step(&mut optimiser, step));
            let state: std::collections::BTreeMap<_, _> =
                optimiser.state().into_iter().map(|(name, t)| (name, t.copy().unwrap())).collect();
            let mut fresh = broken.optimiser(kind);
            fresh.restore(optimiser.steps(), |name| Some(state[name].clone()));
            (3..6).for_each(|step| broken.step(&mut fresh, step));
            assert_eq!(straight.values(), broken.values());
        }
    }

    #[test]
    fn a_group_has_its_own_rate_and_what_has_no_gradient_stays() {
        let problem = Problem::new();
        let parameters = |v: &Var, name: &str| vec![(name.to_owned(), v.clone())];
        let idle = Var::from_vec(vec![1f32], 1, &Device::Cpu).unwrap();
        let groups = vec![
            Group { multiplier: 1.0, parameters: parameters(&problem.b, "out.bias"), since: 0 },
            Group { multiplier: 0.0, parameters: parameters(&problem.w, "out.weight"), since: 0 },
            Group { multiplier: 1.0, parameters: parameters(&idle, "idle.weight"), since: 0 },
        ];
        let before = problem.values();
        problem.step(&mut Optimiser::new(&spec(OptimiserKind::AdamW), groups).unwrap(), 0);
        let after = problem.values();
        assert_eq!(before[..6], after[..6]);
        assert!(before[6..].iter().zip(&after[6..]).all(|(a, b)| a != b));
        assert_eq!(idle.to_vec1::<f32>().unwrap(), [1.0]);
    }

    /// Gradients below the limit are left as they are, to the bit.
    #[test]
    fn a_limit_that_is_not_reached_changes_nothing() {
        for kind in [OptimiserKind::AdamW, OptimiserKind::Sgd] {
            let (free, limited) = (Problem::new(), Problem::new());
            let mut optimisers = (free.optimiser(kind), Optimiser { clip_norm: 1e3, ..limited.optimiser(kind) });
            for step in 0..5 {
                free.step(&mut optimisers.0, step);
                limited.step(&mut optimisers.1, step);
            }
            assert_eq!(free.values(), limited.values());
        }
    }

    #[test]
    fn stages_further_from_the_head_learn_at_lower_rates() {
        let names = ["Mixed_6d.a.conv.weight", "Mixed_6e.a.conv.weight", "Mixed_6e.a.bn.bias", "Mixed_7a.a.bn.bias"];
        let var = || Var::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap();
        let parameters = || names.iter().map(|&name| (name.to_owned(), var())).collect();
        let rates = |layer_decay| {
            let training = TrainingSpec { layer_decay, backbone_rate: 0.4, ..TrainingSpec::default() };
            let groups = Group::by_stage(parameters(), &training, 0);
            groups.iter().map(|g| (g.parameters.len(), g.multiplier)).collect::<Vec<_>>()
        };
        assert_eq!(rates(0.5), [(1, 0.1), (2, 0.2), (1, 0.4)]);
        assert_eq!(rates(1.0), [(1, 0.4), (2, 0.4), (1, 0.4)]);
    }

    #[test]
    fn norms_and_biases_are_not_decayed() {
        for name in ["Mixed_7c.branch1x1.conv.weight", "head.out.weight", "head.hidden.weight"] {
            assert!(decays(name), "{name}");
        }
        for name in ["Mixed_7c.branch1x1.bn.weight", "head.norm.weight", "head.out.bias", "Mixed_7c.branch1x1.bn.bias"]
        {
            assert!(!decays(name), "{name}");
        }
    }
}
