//! The stages as a graph of plain operations.

use super::topology::{AVERAGE_POOL, MAX_POOL, Step, Topology};
use crate::nn::graph::{Builder, Operation};
use crate::spec::PoolPadding;

/// Adds the first `stages` stages, which take the graph's image; returns their output.
pub(in crate::nn) fn add_stages(b: &mut Builder, width: f64, padding: PoolPadding, stages: usize) -> Option<usize> {
    let topology = Topology::new(width);
    let add = |b: &mut Builder, step: Step, x: usize| match step {
        Step::Unit(unit) => {
            let unit = &topology.units[unit];
            let name = format!("{}.conv", unit.name);
            let x = b.add(Operation::Conv { name, bias: false, window: unit.window, groups: 1 }, &[x]);
            let norm = Operation::BatchNorm { name: format!("{}.bn", unit.name), epsilon: f64::from(super::EPS) };
            let x = b.add(norm, &[x]);
            b.add(Operation::Relu, &[x])
        }
        Step::MaxPool => b.add(Operation::MaxPool(MAX_POOL), &[x]),
        Step::AveragePool => {
            let counted = padding == PoolPadding::Counted;
            b.add(Operation::AveragePool { window: AVERAGE_POOL, counted }, &[x])
        }
    };
    let mut x = 0;
    for stage in topology.stages.get(..stages)? {
        let mut parts = Vec::new();
        for branch in &stage.branches {
            let end = branch.chain.iter().fold(x, |x, &step| add(b, step, x));
            if branch.fan.is_empty() {
                parts.push(end);
            }
            parts.extend(branch.fan.iter().map(|&unit| add(b, Step::Unit(unit), end)));
        }
        x = if let [only] = parts.as_slice() { *only } else { b.add(Operation::Concat, &parts) };
    }
    Some(x)
}
