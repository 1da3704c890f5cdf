//! The graphs of the known networks.

use super::frozen_backbone::{CONVNEXT_BLOCKS, CONVNEXT_CHANNELS, CONVNEXT_EPSILON, resnet_of};
use super::graph::{Builder, Node, Operation};
use super::inception_v3;
use super::kernel::Window;
use crate::spec::{BackboneKind, PoolPadding};

const fn square(side: usize, stride: usize, padding: usize) -> Window {
    Window::new([side; 2], stride, [padding; 2])
}

/// The network from the scaled image `[N, 3, H, W]` to the pooled features `[N, C, 1, 1]` after the stage `tap`; `None` if it
/// has no such stage. The last node gives the result.
pub fn graph(kind: BackboneKind, width: f64, padding: PoolPadding, tap: &str) -> Option<Vec<Node>> {
    let position = kind.position(tap)?;
    let mut builder = Builder::default();
    match kind {
        _ if position == 0 => {
            builder.add(Operation::GlobalAveragePool, &[0]);
        }
        BackboneKind::InceptionV3 => {
            let features = inception_v3::add_stages(&mut builder, width, padding, position)?;
            builder.add(Operation::GlobalAveragePool, &[features]);
        }
        BackboneKind::ResNet18 | BackboneKind::ResNet50 => resnet(&mut builder, kind)?,
        BackboneKind::ConvNextTiny => convnext(&mut builder),
    }
    Some(builder.nodes)
}

/// ResNet (He et al. 2016), with the stride of a bottleneck on its middle convolution as in torchvision.
fn resnet(b: &mut Builder, kind: BackboneKind) -> Option<()> {
    let net = resnet_of(kind)?;
    let unit = |b: &mut Builder, conv: String, norm: String, window, x| {
        let x = b.conv(conv, window, x);
        b.add(Operation::BatchNorm { name: norm, epsilon: 1e-5 }, &[x])
    };
    let x = unit(b, "conv1".to_owned(), "bn1".to_owned(), square(7, 2, 3), 0);
    let x = b.relu(x);
    let mut x = b.add(Operation::MaxPool(square(3, 2, 1)), &[x]);
    for (stage, &blocks) in net.blocks.iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let windows: &[Window] = if net.bottleneck {
                &[square(1, 1, 0), square(3, stride, 1), square(1, 1, 0)]
            } else {
                &[square(3, stride, 1), square(3, 1, 1)]
            };
            let mut y = x;
            for (i, &window) in windows.iter().enumerate() {
                y = unit(b, format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1), window, y);
                if i + 1 < windows.len() {
                    y = b.relu(y);
                }
            }
            if block == 0 && (stage > 0 || net.bottleneck) {
                let down = format!("{name}.downsample");
                x = unit(b, format!("{down}.0"), format!("{down}.1"), square(1, stride, 0), x);
            }
            let sum = b.add(Operation::Add, &[x, y]);
            x = b.relu(sum);
        }
    }
    b.add(Operation::GlobalAveragePool, &[x]);
    Some(())
}

/// ConvNeXt-tiny (Liu et al. 2022) as in timm.
fn convnext(b: &mut Builder) {
    let with_bias = |b: &mut Builder, name: String, window, groups, x| {
        b.add(Operation::Conv { name, bias: true, window, groups }, &[x])
    };
    let norm = |b: &mut Builder, name: String, x| b.add(Operation::LayerNorm { name, epsilon: CONVNEXT_EPSILON }, &[x]);
    let x = with_bias(b, "stem.0".to_owned(), square(4, 4, 0), 1, 0);
    let mut x = norm(b, "stem.1".to_owned(), x);
    for (stage, (&blocks, &channels)) in CONVNEXT_BLOCKS.iter().zip(&CONVNEXT_CHANNELS).enumerate() {
        let name = format!("stages.{stage}");
        if stage > 0 {
            x = norm(b, format!("{name}.downsample.0"), x);
            x = with_bias(b, format!("{name}.downsample.1"), square(2, 2, 0), 1, x);
        }
        for block in 0..blocks {
            let name = format!("{name}.blocks.{block}");
            let y = with_bias(b, format!("{name}.conv_dw"), square(7, 1, 3), channels, x);
            let y = norm(b, format!("{name}.norm"), y);
            let y = with_bias(b, format!("{name}.mlp.fc1"), square(1, 1, 0), 1, y);
            let y = b.add(Operation::Gelu, &[y]);
            let y = with_bias(b, format!("{name}.mlp.fc2"), square(1, 1, 0), 1, y);
            let y = b.add(Operation::Scale { name: format!("{name}.gamma") }, &[y]);
            x = b.add(Operation::Add, &[x, y]);
        }
    }
    let x = b.add(Operation::GlobalAveragePool, &[x]);
    norm(b, "head.norm".to_owned(), x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::build;
    use crate::spec::{BatchNormMode, CachePrecision, FreezeTo, NetworkSpec, PixelScaling, WeightSource};
    use candle_core::{D, Device, Result, Tensor};
    use std::collections::BTreeMap;

    /// Computes a graph with candle's own operations.
    fn compute(nodes: &[Node], tensors: &BTreeMap<String, Tensor>, image: &Tensor) -> Result<Tensor> {
        let column = |name: &str| tensors[name].reshape((1, (), 1, 1));
        let padded = |x: &Tensor, [rows, columns]: [usize; 2], value: f64| -> Result<Tensor> {
            // Ones where the image is, so that any value can be put around it.
            let inside = x.ones_like()?.pad_with_zeros(2, rows, rows)?.pad_with_zeros(3, columns, columns)?;
            let x = x.pad_with_zeros(2, rows, rows)?.pad_with_zeros(3, columns, columns)?;
            x + ((1.0 - inside)? * value)?
        };
        let mut values = vec![image.clone()];
        for node in nodes {
            let x = &values[node.inputs[0]];
            let y = match &node.operation {
                Operation::Conv { name, bias, window, groups } => {
                    let weight = &tensors[&format!("{name}.weight")];
                    let weight = if weight.rank() == 2 { weight.unsqueeze(2)?.unsqueeze(3)? } else { weight.clone() };
                    let x = padded(x, window.padding, 0.0)?;
                    let y = x.conv2d(&weight, 0, window.stride, 1, *groups)?;
                    if *bias { y.broadcast_add(&column(&format!("{name}.bias"))?)? } else { y }
                }
                Operation::BatchNorm { name, epsilon } => {
                    let part = |part: &str| column(&format!("{name}.{part}"));
                    let deviation = (part("running_var")? + *epsilon)?.sqrt()?;
                    let x = x.broadcast_sub(&part("running_mean")?)?.broadcast_div(&deviation)?;
                    x.broadcast_mul(&part("weight")?)?.broadcast_add(&part("bias")?)?
                }
                Operation::LayerNorm { name, epsilon } => {
                    let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
                    let deviation = (centred.sqr()?.mean_keepdim(1)? + *epsilon)?.sqrt()?;
                    let x = centred.broadcast_div(&deviation)?;
                    let x = x.broadcast_mul(&column(&format!("{name}.weight"))?)?;
                    x.broadcast_add(&column(&format!("{name}.bias"))?)?
                }
                Operation::Scale { name } => x.broadcast_mul(&column(name)?)?,
                Operation::Relu => x.relu()?,
                Operation::Gelu => x.gelu_erf()?,
                Operation::MaxPool(window) => {
                    let x = padded(x, window.padding, -1e30)?;
                    x.max_pool2d_with_stride((window.kernel[0], window.kernel[1]), (window.stride, window.stride))?
                }
                Operation::AveragePool { window, counted } => {
                    let size = (window.kernel[0], window.kernel[1]);
                    let pool = |x: &Tensor| {
                        padded(x, window.padding, 0.0)?.avg_pool2d_with_stride(size, (window.stride, window.stride))
                    };
                    if *counted { pool(x)? } else { pool(x)?.div(&pool(&x.ones_like()?)?)? }
                }
                Operation::Concat => {
                    let all: Vec<&Tensor> = node.inputs.iter().map(|&i| &values[i]).collect();
                    Tensor::cat(&all, 1)?
                }
                Operation::Add => (x + &values[node.inputs[1]])?,
                Operation::GlobalAveragePool => x.mean_keepdim(D::Minus1)?.mean_keepdim(D::Minus2)?,
            };
            values.push(y);
        }
        Ok(values.pop().unwrap())
    }

    #[test]
    fn graphs_compute_what_the_networks_do() {
        for (kind, width, side, padding, tap) in [
            (BackboneKind::InceptionV3, 0.125, 75, PoolPadding::Excluded, "Mixed_7c"),
            (BackboneKind::InceptionV3, 0.125, 80, PoolPadding::Counted, "Mixed_5c"),
            (BackboneKind::ResNet18, 1.0, 40, PoolPadding::Counted, "features"),
            (BackboneKind::ResNet50, 1.0, 33, PoolPadding::Counted, "features"),
            (BackboneKind::ConvNextTiny, 1.0, 32, PoolPadding::Counted, "features"),
        ] {
            let spec = NetworkSpec {
                backbone: kind,
                width,
                weights: WeightSource::Random,
                scaling: PixelScaling::Unit,
                pool_padding: padding,
                tap: tap.to_owned(),
                freeze: FreezeTo::All,
                batch_norm: BatchNormMode::Frozen,
                cache: CachePrecision::F32,
                input_size: None,
            };
            let network = build::build(&spec, 3, &Device::Cpu).unwrap().backbone;
            let tensors = build::tensors(&spec, 3, &Device::Cpu).unwrap().tensors;
            let image = Tensor::rand(0f32, 1.0, (2, 3, side, side), &Device::Cpu).unwrap();
            let last = image.permute((0, 2, 3, 1)).and_then(|x| x.contiguous()).unwrap();
            let features = network.prefix(0, spec.tap_position(), &last).unwrap();
            let ours = features.mean((1, 2)).unwrap();
            let nodes = graph(kind, width, padding, tap).unwrap();
            let theirs = compute(&nodes, &tensors, &image).unwrap().flatten_from(1).unwrap();
            assert_eq!(ours.dims(), theirs.dims());
            let scale: f32 = ours.abs().and_then(|x| x.max_all()).and_then(|x| x.to_scalar()).unwrap();
            let off: f32 =
                (ours - theirs).and_then(|d| d.abs()).and_then(|d| d.max_all()).and_then(|d| d.to_scalar()).unwrap();
            assert!(scale > 0.0 && off < 1e-4 * scale, "{kind:?} {tap}: {off} of {scale}");
        }
        assert_eq!(graph(BackboneKind::ResNet18, 1.0, PoolPadding::Counted, "Mixed_5b"), None);
    }
}
