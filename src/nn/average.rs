//! An exponential moving average of a model's weights, which is judged instead of them: it holds what the last steps agree on
//! (Polyak and Juditsky 1992; Tarvainen and Valpola 2017 for networks).

use super::optimiser::blend;
use candle_core::{Result, Tensor, Var};

/// A variable and its average.
#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    /// Steps before its first.
    since: u64,
    average: Tensor,
}

/// The averages of a model's variables.
#[derive(Debug)]
pub struct WeightAverage {
    keep: f64,
    slots: Vec<Slot>,
}

impl WeightAverage {
    /// Averages that begin with what the variables hold. `horizon`: the steps after which a value counts for 1/e. Each
    /// variable with its name and the steps that pass before it is trained.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(horizon: f64, variables: impl IntoIterator<Item = (String, Var, u64)>) -> Result<Self> {
        let slot = |(name, var, since): (String, Var, u64)| {
            let average = var.as_detached_tensor().copy()?;
            Ok(Slot { name, var, since, average })
        };
        Ok(Self { keep: (-1.0 / horizon).exp(), slots: variables.into_iter().map(slot).collect::<Result<_>>()? })
    }

    /// Takes the variables into the averages after the optimiser's step `steps`, the first being 1. Early on averages are
    /// shorter, so that the initial weights are soon forgotten: after n steps of a variable at most (1 + n) / (10 + n) is
    /// kept, as in TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn update(&self, steps: u64) -> Result<()> {
        for slot in self.slots.iter().filter(|slot| slot.since < steps) {
            let n = (steps - slot.since) as f64;
            blend(&slot.average, slot.var.as_tensor(), self.keep.min((1.0 + n) / (10.0 + n)))?;
        }
        Ok(())
    }

    /// Exchanges variables and averages; a second call exchanges them back.
    ///
    /// # Errors
    /// If memory is short.
    pub fn swap(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            let value = slot.var.as_detached_tensor().copy()?;
            slot.var.set(&slot.average)?;
            slot.average = value;
        }
        Ok(())
    }

    /// The averages by name.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), &slot.average))
    }

    /// Restores averages: `state(name)` returns one of the shape that [`WeightAverage::state`] gave; without it, the own one
    /// stays.
    pub fn restore(&mut self, mut state: impl FnMut(&str) -> Option<Tensor>) {
        for slot in &mut self.slots {
            if let Some(average) = state(&slot.name) {
                slot.average = average;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn values(t: &Tensor) -> Vec<f32> {
        t.to_vec1().unwrap()
    }

    #[test]
    fn averages_follow_their_definition_and_start_with_a_variables_first_step() {
        let var = |x: f32| Var::from_vec(vec![x, 2.0 * x], 2, &Device::Cpu).unwrap();
        let (early, late) = (var(1.0), var(5.0));
        let variables = [("early".to_owned(), early.clone(), 0), ("late".to_owned(), late.clone(), 3)];
        let mut average = WeightAverage::new(8.0, variables).unwrap();
        let (mut wanted, mut wanted_late) = (1.0f64, 5.0f64);
        for step in 1..=40u64 {
            let x = (step as f32 * 0.7).sin();
            early.set(&Tensor::new(&[x, 2.0 * x], &Device::Cpu).unwrap()).unwrap();
            average.update(step).unwrap();
            let keep = |n: u64| (-1.0f64 / 8.0).exp().min((1.0 + n as f64) / (10.0 + n as f64));
            wanted = keep(step) * wanted + (1.0 - keep(step)) * f64::from(x);
            if step > 3 {
                wanted_late = keep(step - 3) * wanted_late + (1.0 - keep(step - 3)) * 5.0;
            }
        }
        let state: Vec<(&str, Vec<f32>)> = average.state().map(|(name, t)| (name, values(t))).collect();
        assert!((f64::from(state[0].1[0]) - wanted).abs() < 1e-6 && state[0].0 == "early");
        assert!((f64::from(state[1].1[1]) - 2.0 * wanted_late).abs() < 1e-5 && state[1].0 == "late");

        let (raw, averaged) = (values(early.as_tensor()), state[0].1.clone());
        average.swap().unwrap();
        assert_eq!(values(early.as_tensor()), averaged);
        average.swap().unwrap();
        assert_eq!(values(early.as_tensor()), raw);
        average.restore(|name| (name == "late").then(|| Tensor::new(&[7f32, 8.0], &Device::Cpu).unwrap()));
        let restored: Vec<Vec<f32>> = average.state().map(|(_, t)| values(t)).collect();
        assert_eq!(restored, [averaged, vec![7.0, 8.0]]);
    }
}
