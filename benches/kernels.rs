//! CPU kernels on shapes of InceptionV3: `cargo bench --bench kernels`, in multiply-adds a second.

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hpsearch::nn::Backbone;
use hpsearch::nn::inception_v3::{self, InceptionV3};
use hpsearch::nn::kernel::{Arithmetic, ConvShape, Isa, Target, Window, conv_cpu, panel, pool_cpu, weight_gradient};
use hpsearch::spec::PoolPadding;
use std::hint::black_box;

/// Convolutions at 150 pixels, batch 8: the stem's largest, and one of each kind of block.
const SHAPES: [(&str, [usize; 4], usize, Window); 6] = [
    ("Conv2d_2b_3x3", [8, 72, 72, 32], 64, Window::new([3, 3], 1, [1, 1])),
    ("Conv2d_4a_3x3", [8, 35, 35, 80], 192, Window::new([3, 3], 1, [0, 0])),
    ("Mixed_5d.branch5x5_2", [8, 16, 16, 48], 64, Window::new([5, 5], 1, [2, 2])),
    ("Mixed_6a.branch3x3", [8, 16, 16, 288], 384, Window::new([3, 3], 2, [0, 0])),
    ("Mixed_6e.branch7x7_2", [8, 7, 7, 192], 192, Window::new([1, 7], 1, [0, 3])),
    ("Mixed_7c.branch1x1", [8, 3, 3, 2048], 320, Window::new([1, 1], 1, [0, 0])),
];

fn ramp(length: usize) -> Vec<f32> {
    (0..length).map(|i| (i * 7919 % 1021) as f32 / 510.5 - 1.0).collect()
}

fn convolutions(c: &mut Criterion) {
    for (name, input, cout, window) in SHAPES {
        let shape = ConvShape::new(input, cout, window).expect("the window fits");
        let (taps, cin) = (window.taps(), shape.cin);
        let x = ramp(shape.input_pixels() * cin);
        let grad = ramp(shape.output_pixels() * cout);
        let packed = panel::pack(&ramp(taps * cin * cout), taps, cin, cout);
        let transposed = panel::transposed(&packed, taps, cin, cout, None);
        let affine = panel::padded(&ramp(cout));
        let epilogue = conv_cpu::Epilogue { scale: &affine, bias: &affine, relu: true };
        let (mut y, mut dx, mut dw) = (grad.clone(), x.clone(), packed.clone());
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements((shape.output_pixels() * taps * cin * cout) as u64));
        let all = Isa::all_available().map(Arithmetic::from).chain([Arithmetic::bf16(Isa::best())]);
        for arithmetic in all {
            let id = |kind: &str| BenchmarkId::new(kind, arithmetic.name());
            let formed = |packed: &[f32], inputs: usize, outputs: usize| {
                let mut out = vec![0.0; arithmetic.packed_length(taps, inputs, outputs)];
                arithmetic.panels(packed, inputs, &mut out);
                out
            };
            let (weights, of_x) = (formed(&packed, cin, cout), arithmetic.mapped(&x, cin));
            group.bench_function(id("forward"), |b| {
                b.iter(|| {
                    let out = Target::columns(&mut y, cout, 0, cout);
                    conv_cpu::forward(arithmetic, &shape, black_box(&of_x), &weights, epilogue, &out);
                });
            });
            let (weights, of_grad) = (formed(&transposed, cout, cin), arithmetic.mapped(&grad, cout));
            group.bench_function(id("input gradient"), |b| {
                b.iter(|| {
                    let (out, write) = (Target::columns(&mut dx, cin, 0, cin), conv_cpu::Write::Replace);
                    conv_cpu::input_gradient(arithmetic, &shape, black_box(&of_grad), &weights, write, &out);
                });
            });
            group.bench_function(id("weight gradient"), |b| {
                b.iter(|| weight_gradient::weight_gradient(arithmetic, &shape, black_box(&x), &grad, &mut dw));
            });
        }
        group.finish();
    }
}

fn pools(c: &mut Criterion) {
    let mut group = c.benchmark_group("pools");
    let input = [8, 35, 35, 192];
    let x = ramp(input.iter().product());
    let max = ConvShape::new(input, 192, Window::new([3, 3], 2, [0, 0])).expect("the window fits");
    let average = ConvShape::new(input, 192, Window::new([3, 3], 1, [1, 1])).expect("the window fits");
    let mut y = vec![0.0; x.len()];
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("max 3x3/2", |b| {
        b.iter(|| {
            let y = &mut y[..max.output_pixels() * 192];
            pool_cpu::max(Isa::best(), &max, black_box(&x), &Target::columns(y, 192, 0, 192));
        });
    });
    group.bench_function("average 3x3/1", |b| {
        b.iter(|| {
            let out = Target::columns(&mut y, 192, 0, 192);
            pool_cpu::average(Isa::best(), &average, pool_cpu::Divisor::Window, black_box(&x), None, &out);
        });
    });
    group.finish();
}

fn network(c: &mut Criterion) {
    let device = Device::Cpu;
    let tensors = inception_v3::random(1.0, 1, &device).expect("host memory");
    let network = InceptionV3::new(&tensors, 1.0, PoolPadding::Counted, &device).expect("complete tensors");
    let mut group = c.benchmark_group("prefix, batch 8");
    group.sample_size(10).throughput(Throughput::Elements(8));
    for side in [75, 150, 299] {
        let x = Tensor::from_vec(ramp(8 * side * side * 3), (8, side, side, 3), &device).expect("host memory");
        for (stages, to) in [(8, "Mixed_5b"), (18, "Mixed_7c")] {
            group.bench_function(BenchmarkId::new(to, side), |b| {
                b.iter(|| network.prefix(0, stages, black_box(&x)).expect("large enough"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, convolutions, pools, network);
criterion_main!(benches);
