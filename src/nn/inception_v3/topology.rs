//! The network as data: which convolutions in which order, at any width (Szegedy et al. 2016; names and details are
//! torchvision's `inception_v3`).

use crate::nn::Lattice;
use crate::nn::kernel::geometry::ConvShape;
use crate::nn::kernel::{Window, winograd};

/// Convolution, batch norm, ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Such as `Mixed_6e.branch7x7_2`.
    pub name: String,
    pub cin: usize,
    pub cout: usize,
    pub window: Window,
}

/// One step of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The unit with this index.
    Unit(usize),
    /// 3x3, stride 2.
    MaxPool,
    /// 3x3, stride 1, padding 1.
    AveragePool,
}

/// Steps one after another; if `fan` is not empty, each of its units is then applied to the result, in parallel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    pub chain: Vec<Step>,
    pub fan: Vec<usize>,
}

/// Branches on the same input, concatenated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub name: &'static str,
    pub cin: usize,
    pub cout: usize,
    pub branches: Vec<Branch>,
}

/// The whole network without its classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    pub units: Vec<Unit>,
    pub stages: Vec<Stage>,
}

pub(super) const MAX_POOL: Window = Window::new([3, 3], 2, [0, 0]);
pub(super) const AVERAGE_POOL: Window = Window::new([3, 3], 1, [1, 1]);

/// `channels * width` to the nearest multiple of 8, at least 8.
fn scaled(channels: usize, width: f64) -> usize {
    ((channels as f64 * width / 8.0).round() as usize).max(1) * 8
}

/// Collects units while walking along the branches.
struct Builder {
    width: f64,
    channels: usize,
    topology: Topology,
}

/// A unit before scaling: name, output channels, kernel, stride, padding.
type UnitShape = (&'static str, usize, [usize; 2], usize, [usize; 2]);

fn one(name: &'static str, channels: usize) -> Item {
    Item::Conv((name, channels, [1, 1], 1, [0, 0]))
}

/// A convolution that keeps the size.
fn same(name: &'static str, channels: usize, kernel: [usize; 2]) -> Item {
    Item::Conv((name, channels, kernel, 1, [kernel[0] / 2, kernel[1] / 2]))
}

fn down(name: &'static str, channels: usize) -> Item {
    Item::Conv((name, channels, [3, 3], 2, [0, 0]))
}

fn valid(name: &'static str, channels: usize, kernel: usize) -> Item {
    Item::Conv((name, channels, [kernel, kernel], 1, [0, 0]))
}

enum Item {
    Conv(UnitShape),
    MaxPool,
    AveragePool,
    /// Two parallel convolutions at the end of a branch.
    Fan(UnitShape, UnitShape),
}

fn fan(first: &'static str, second: &'static str, channels: usize) -> Item {
    Item::Fan((first, channels, [1, 3], 1, [0, 1]), (second, channels, [3, 1], 1, [1, 0]))
}

impl Builder {
    fn unit(&mut self, stage: &str, shape: UnitShape, cin: usize) -> usize {
        let (name, channels, kernel, stride, padding) = shape;
        let name = if name.is_empty() { stage.to_owned() } else { format!("{stage}.{name}") };
        let cout = scaled(channels, self.width);
        self.topology.units.push(Unit { name, cin, cout, window: Window::new(kernel, stride, padding) });
        self.topology.units.len() - 1
    }

    fn stage(&mut self, name: &'static str, branches: impl IntoIterator<Item = Vec<Item>>) {
        let cin = self.channels;
        let mut cout = 0;
        let mut built = Vec::new();
        for items in branches {
            let mut branch = Branch { chain: Vec::new(), fan: Vec::new() };
            let mut channels = cin;
            for item in items {
                match item {
                    Item::MaxPool => branch.chain.push(Step::MaxPool),
                    Item::AveragePool => branch.chain.push(Step::AveragePool),
                    Item::Conv(shape) => {
                        let unit = self.unit(name, shape, channels);
                        channels = self.topology.units[unit].cout;
                        branch.chain.push(Step::Unit(unit));
                    }
                    Item::Fan(a, b) => {
                        branch.fan = vec![self.unit(name, a, channels), self.unit(name, b, channels)];
                        channels = branch.fan.iter().map(|&u| self.topology.units[u].cout).sum();
                    }
                }
            }
            cout += channels;
            built.push(branch);
        }
        self.topology.stages.push(Stage { name, cin, cout, branches: built });
        self.channels = cout;
    }

    fn a(&mut self, name: &'static str, pool: usize) {
        self.stage(
            name,
            [
                vec![one("branch1x1", 64)],
                vec![one("branch5x5_1", 48), same("branch5x5_2", 64, [5, 5])],
                vec![one("branch3x3dbl_1", 64), same("branch3x3dbl_2", 96, [3, 3]), same("branch3x3dbl_3", 96, [3, 3])],
                vec![Item::AveragePool, one("branch_pool", pool)],
            ],
        );
    }

    fn b(&mut self, name: &'static str) {
        self.stage(
            name,
            [
                vec![down("branch3x3", 384)],
                vec![one("branch3x3dbl_1", 64), same("branch3x3dbl_2", 96, [3, 3]), down("branch3x3dbl_3", 96)],
                vec![Item::MaxPool],
            ],
        );
    }

    fn c(&mut self, name: &'static str, c7: usize) {
        self.stage(
            name,
            [
                vec![one("branch1x1", 192)],
                vec![one("branch7x7_1", c7), same("branch7x7_2", c7, [1, 7]), same("branch7x7_3", 192, [7, 1])],
                vec![
                    one("branch7x7dbl_1", c7),
                    same("branch7x7dbl_2", c7, [7, 1]),
                    same("branch7x7dbl_3", c7, [1, 7]),
                    same("branch7x7dbl_4", c7, [7, 1]),
                    same("branch7x7dbl_5", 192, [1, 7]),
                ],
                vec![Item::AveragePool, one("branch_pool", 192)],
            ],
        );
    }

    fn d(&mut self, name: &'static str) {
        self.stage(
            name,
            [
                vec![one("branch3x3_1", 192), down("branch3x3_2", 320)],
                vec![
                    one("branch7x7x3_1", 192),
                    same("branch7x7x3_2", 192, [1, 7]),
                    same("branch7x7x3_3", 192, [7, 1]),
                    down("branch7x7x3_4", 192),
                ],
                vec![Item::MaxPool],
            ],
        );
    }

    fn e(&mut self, name: &'static str) {
        self.stage(
            name,
            [
                vec![one("branch1x1", 320)],
                vec![one("branch3x3_1", 384), fan("branch3x3_2a", "branch3x3_2b", 384)],
                vec![
                    one("branch3x3dbl_1", 448),
                    same("branch3x3dbl_2", 384, [3, 3]),
                    fan("branch3x3dbl_3a", "branch3x3dbl_3b", 384),
                ],
                vec![Item::AveragePool, one("branch_pool", 192)],
            ],
        );
    }
}

impl Topology {
    /// The network with channel counts multiplied by `width`.
    pub fn new(width: f64) -> Self {
        let topology = Self { units: Vec::new(), stages: Vec::new() };
        let mut b = Builder { width, channels: 3, topology };
        b.stage("Conv2d_1a_3x3", [vec![down("", 32)]]);
        b.stage("Conv2d_2a_3x3", [vec![valid("", 32, 3)]]);
        b.stage("Conv2d_2b_3x3", [vec![same("", 64, [3, 3])]]);
        b.stage("maxpool1", [vec![Item::MaxPool]]);
        b.stage("Conv2d_3b_1x1", [vec![one("", 80)]]);
        b.stage("Conv2d_4a_3x3", [vec![valid("", 192, 3)]]);
        b.stage("maxpool2", [vec![Item::MaxPool]]);
        b.a("Mixed_5b", 32);
        b.a("Mixed_5c", 64);
        b.a("Mixed_5d", 64);
        b.b("Mixed_6a");
        b.c("Mixed_6b", 128);
        b.c("Mixed_6c", 160);
        b.c("Mixed_6d", 160);
        b.c("Mixed_6e", 192);
        b.d("Mixed_7a");
        b.e("Mixed_7b");
        b.e("Mixed_7c");
        b.topology
    }

    /// Height and width after a stage; `None` if the image is too small. All branches agree.
    pub fn size_after(&self, stage: &Stage, mut size: [usize; 2]) -> Option<[usize; 2]> {
        for step in &stage.branches.first()?.chain {
            let window = self.window(*step);
            size = [window.positions(0, size[0])?, window.positions(1, size[1])?];
        }
        Some(size)
    }

    /// See [`crate::nn::Backbone::side_at`].
    pub fn side_at(&self, side: usize, position: usize) -> Option<usize> {
        let after = |size, stage| self.size_after(stage, size);
        self.stages.get(..position)?.iter().try_fold([side; 2], after).map(|size| size[0])
    }

    /// See [`crate::nn::Backbone::lattice`]. All branches of a stage agree, but for the size of the field around its
    /// middle.
    pub fn lattice(&self, position: usize) -> Option<Lattice> {
        let mut at = Lattice { first: 0.5, step: 1.0 };
        let branches = self.stages.get(..position)?.iter().filter_map(|stage| stage.branches.first());
        for step in branches.flat_map(|branch| &branch.chain) {
            let Window { kernel, stride, padding, .. } = self.window(*step);
            at.first += at.step * ((kernel[0] - 1) as f64 / 2.0 - padding[0] as f64);
            at.step *= stride as f64;
        }
        Some(at)
    }

    /// See [`super::work`].
    pub fn work(&self, side: usize, from: usize, to: usize) -> Option<super::Work> {
        let mut work = super::Work::default();
        let mut size = [side; 2];
        for (position, stage) in self.stages.get(..to)?.iter().enumerate() {
            for branch in stage.branches.iter().filter(|_| position >= from) {
                let (mut at, mut channels) = (size, stage.cin);
                let fan = branch.fan.iter().map(|&unit| (Step::Unit(unit), true));
                for (step, in_fan) in branch.chain.iter().map(|&step| (step, false)).chain(fan) {
                    let window = self.window(step);
                    let cout = if let Step::Unit(unit) = step { self.units[unit].cout } else { channels };
                    let shape = ConvShape::new([1, at[0], at[1], channels], cout, window)?;
                    let (after, pixels) = (shape.output, shape.output_pixels() as u64);
                    if let Step::Unit(_) = step {
                        let weights = (window.taps() * channels * cout) as u64;
                        work.multiply_adds += pixels * weights;
                        work.winograd += if winograd::pays(&shape) { pixels * weights } else { 0 };
                        work.weights += weights;
                    }
                    work.activations += pixels * cout as u64;
                    if !in_fan {
                        (at, channels) = (after, cout);
                    }
                }
            }
            size = self.size_after(stage, size)?;
        }
        Some(work)
    }

    /// The window of a step.
    pub fn window(&self, step: Step) -> Window {
        match step {
            Step::Unit(unit) => self.units[unit].window,
            Step::MaxPool => MAX_POOL,
            Step::AveragePool => AVERAGE_POOL,
        }
    }
}

impl Unit {
    /// The unit's tensors with their torch shapes.
    pub fn tensors(&self) -> [(String, Vec<usize>); 5] {
        let [kh, kw] = self.window.kernel;
        let named = |suffix: &str, shape: Vec<usize>| (format!("{}.{suffix}", self.name), shape);
        [
            named("conv.weight", vec![self.cout, self.cin, kh, kw]),
            named("bn.weight", vec![self.cout]),
            named("bn.bias", vec![self.cout]),
            named("bn.running_mean", vec![self.cout]),
            named("bn.running_var", vec![self.cout]),
        ]
    }
}
