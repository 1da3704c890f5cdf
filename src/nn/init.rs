//! Initial weights. Each tensor is drawn from its own random stream, so adding a layer does not change the others.

use crate::rng::{Purpose, StreamRng};

/// The initial values of a backbone's tensor, by its torchvision (timm) name.
///
/// Convolutions and dense layers: He's uniform distribution, bound sqrt(6 / fan in) (He et al. 2015), so that
/// activations keep their size through ReLU layers in inference mode. Norms: scale 1, shift 0, mean 0,
/// variance 1. ConvNeXt's layer scale (`gamma`): 1e-6 (Liu et al. 2022).
pub fn backbone_tensor(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let n = shape.iter().product();
    match name.rsplit('.').next().unwrap_or(name) {
        "weight" if shape.len() > 1 => {
            let fan_in: usize = shape[1..].iter().product();
            uniform(name, n, (6.0 / fan_in as f64).sqrt(), seed, &[])
        }
        "weight" | "running_var" => vec![1.0; n],
        "gamma" => vec![1e-6; n],
        _ => vec![0.0; n],
    }
}

/// `n` draws from the uniform distribution on [-bound, bound), from the stream of (`seed`, `name`, `counters`).
pub fn uniform(name: &str, n: usize, bound: f64, seed: u64, counters: &[u64]) -> Vec<f32> {
    let mut rng = StreamRng::named(seed, Purpose::Init, name, counters);
    (0..n).map(|_| ((2.0 * rng.unit() - 1.0) * bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn he_initialisation_keeps_the_second_moment() {
        let w = backbone_tensor("a.conv.weight", &[64, 32, 3, 3], 5);
        let variance = w.iter().map(|x| f64::from(x * x)).sum::<f64>() / w.len() as f64;
        // The variance of U(-b, b) is b^2/3 = 2 / fan_in.
        let wanted = 2.0 / (32.0 * 9.0);
        assert!((variance / wanted - 1.0).abs() < 0.03, "{variance} against {wanted}");
    }

    #[test]
    fn norms_begin_as_the_identity() {
        assert_eq!(backbone_tensor("a.bn.weight", &[2], 5), [1.0, 1.0]);
        assert_eq!(backbone_tensor("a.bn.running_var", &[2], 5), [1.0, 1.0]);
        assert_eq!(backbone_tensor("a.bn.running_mean", &[2], 5), [0.0, 0.0]);
        assert_eq!(backbone_tensor("a.bn.bias", &[2], 5), [0.0, 0.0]);
    }
}
