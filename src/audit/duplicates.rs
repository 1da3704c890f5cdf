//! Pictures that appear twice: the same file saved again, made smaller, brighter, cropped a little, turned a little, mirrored.
//!
//! Two pictures are compared by the peak of their cross-correlation after whitening: every frequency counts by what it has beyond
//! the mean power of all images there, so that what all have in common (ribs, a frame, a grid) counts little (the matched
//! filter in coloured noise). Candidates are the nearest neighbours of every image by whitened coarse detail, also mirrored and
//! enlarged, and by the network's features. A candidate is turned and stretched until the peak is largest.
//!
//! Pictures of things that look alike have high peaks with many others. So a pair is the same picture if it stands out: if it
//! lacks at most half of what either of the two lacks to its likeness with others.

use super::logistic::Table;
use crate::rng::{Purpose, StreamRng};
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use std::collections::BTreeSet;
use std::f32::consts::PI;
use std::sync::Arc;

/// Side at which pictures are compared, at which they are first laid on each other, and that of coarse detail.
const SIDE: usize = 128;
const ROUGH: usize = 64;
const COARSE: usize = 32;
/// Frequencies, in cycles a pixel, at which the weight has fallen to 1/e: finer detail does not survive saving again.
const CUT: f32 = 0.25;
const COARSE_CUT: f32 = 0.15;
/// What saving again adds to every pixel, as a standard deviation in grey levels: detail weaker than that says nothing.
const SAVED: f32 = 1.0;
/// Neighbours of each kind that are candidates.
const NEIGHBOURS: usize = 3;
/// Enlargement of one of two pictures by which candidates are found that were cropped.
const ENLARGED: f32 = 0.96;
/// Neighbours whose features are less alike than this are no candidates.
const FEATURES_LEAST: f32 = 0.25;
/// Candidates whose peak is lower before they are laid on each other are not pursued.
const PURSUED: f32 = 0.12;
/// The same after the coarse search.
const PROMISING: f32 = 0.25;
/// Neighbours with which an image is compared to see how like others it is: the peak of this place among so many.
const OTHERS: (usize, usize) = (8, 12);
/// Below the one no pair is taken for the same picture; from the other on each is.
const LEAST: f32 = 0.7;
const SURE: f32 = 0.95;
/// Images from which the mean power is taken.
const POWER: usize = 2000;
/// Rows multiplied at once.
const BLOCK: usize = 512;
/// Pairs that cannot be the same picture, on which the method is tried.
const CONTROL: usize = 1000;

/// A pair of images, the first with the smaller index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub first: usize,
    pub second: usize,
    /// The peak of their whitened cross-correlation.
    pub similarity: f64,
    /// Whether the second was mirrored.
    pub mirrored: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Pairs of the same picture, most alike first.
    pub pairs: Vec<Pair>,
    /// Of pairs that cannot be the same picture, how many were taken for it, and how many were tried.
    pub control: (usize, usize),
}

/// Finds pictures that appear twice among `count` images. `grey(i)`: image `i`, `side * side` grey levels. `features`: a row
/// for each.
///
/// # Errors
/// If an operation fails.
pub fn duplicates(
    count: usize,
    side: usize,
    grey: impl Fn(usize) -> Vec<u8> + Sync,
    features: &Table,
    seed: u64,
) -> Result<Found> {
    let small: &[Vec<u8>] = &(0..count)
        .into_par_iter()
        .map(|i| reduced(&grey(i), side, SIDE).iter().map(|v| v.round() as u8).collect())
        .collect::<Vec<_>>();
    let pictures = Pictures::new(small);
    let coarse: Vec<Vec<f32>> = small.par_iter().map(|map| reduced(map, SIDE, COARSE)).collect();
    let whitener = Whitener::new(COARSE, COARSE_CUT, coarse.iter().map(Vec::as_slice));
    let flat = |change: &(dyn Fn(&[f32]) -> Vec<f32> + Sync)| {
        let rows: Vec<f32> = coarse.par_iter().flat_map_iter(|map| whitener.map(&change(map))).collect();
        Tensor::from_vec(rows, (count, COARSE * COARSE), &Device::Cpu)
    };
    let enlarge = |map: &[f32]| warped(map, COARSE, [ENLARGED.ln(), ENLARGED.ln(), 0.0]);
    let plain = flat(&|map| map.to_vec())?;
    let others = nearest(&plain, &plain, OTHERS.1, -1.0)?;
    let mut candidates: BTreeSet<(usize, usize, bool)> = BTreeSet::new();
    let mut add = |pairs: Vec<Vec<usize>>, flips: &[bool]| {
        for (i, near) in pairs.into_iter().enumerate() {
            for j in near {
                candidates.extend(flips.iter().map(|&flip| (i.min(j), i.max(j), flip)));
            }
        }
    };
    add(others.iter().map(|near| near[..near.len().min(NEIGHBOURS)].to_vec()).collect(), &[false]);
    add(nearest(&plain, &flat(&enlarge)?, NEIGHBOURS, 0.0)?, &[false]);
    add(nearest(&plain, &flat(&|map| mirrored(map, COARSE))?, NEIGHBOURS, 0.0)?, &[true]);
    add(nearest(&plain, &flat(&|map| mirrored(&enlarge(map), COARSE))?, NEIGHBOURS, 0.0)?, &[true]);
    let seen = unit(&features.values, features.width)?;
    add(nearest(&seen, &seen, NEIGHBOURS, FEATURES_LEAST)?, &[false, true]);

    // How like others each image is.
    let usual: Vec<f32> = others
        .par_iter()
        .enumerate()
        .map(|(i, near)| {
            let own = pictures.of(i);
            let mut peaks: Vec<f32> = near.iter().map(|&j| pictures.whitener.peak(&own, &pictures.of(j))).collect();
            peaks.sort_by(|a, b| b.total_cmp(a));
            peaks.get(OTHERS.0).copied().unwrap_or(0.0)
        })
        .collect();
    let same = |(i, j): (usize, usize), peak: f32| {
        let usual = usual[i].max(usual[j]);
        peak >= SURE || (peak >= LEAST && 1.0 - peak <= 0.5 * (1.0 - usual))
    };
    let candidates: Vec<_> = candidates.into_iter().collect();
    let of_one: Vec<&[(usize, usize, bool)]> = candidates.chunk_by(|a, b| a.0 == b.0).collect();
    let compared = of_one.par_iter().flat_map_iter(|candidates| {
        let known = pictures.known(candidates[0].0);
        let (pictures, same) = (&pictures, &same);
        candidates.iter().filter_map(move |&(first, second, mirror)| {
            let moved = as_numbers(&small[second]);
            let moved = if mirror { mirrored(&moved, SIDE) } else { moved };
            let peak = pictures.best(&known, &moved, |peak| same((first, second), peak));
            let pair = Pair { first, second, similarity: peak.into(), mirrored: mirror };
            same((first, second), peak).then_some(pair)
        })
    });
    let mut pairs: Vec<Pair> = compared.collect();
    // Turned upside down, the second of a candidate pair is certainly not the same picture.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    StreamRng::named(seed, Purpose::Bootstrap, "audit", &[]).shuffle(&mut order);
    order.truncate(CONTROL);
    let taken = order.par_iter().filter(|&&k| {
        let (first, second, _) = candidates[k];
        let turned: Vec<f32> = as_numbers(&small[second]).chunks_exact(SIDE).rev().flatten().copied().collect();
        let peak = pictures.best(&pictures.known(first), &turned, |peak| same((first, second), peak));
        same((first, second), peak)
    });
    let control = (taken.count(), order.len());
    pairs.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then((a.first, a.second).cmp(&(b.first, b.second))));
    let mut known = BTreeSet::new();
    pairs.retain(|pair| known.insert((pair.first, pair.second)));
    Ok(Found { pairs, control })
}

/// The pictures at the sides at which they are compared.
struct Pictures<'a> {
    small: &'a [Vec<u8>],
    whitener: Whitener,
    rough: Whitener,
}

/// A picture whose whitened spectra are known.
struct Known {
    spectrum: Vec<Complex<f32>>,
    rough: Vec<Complex<f32>>,
}

impl<'a> Pictures<'a> {
    fn new(small: &'a [Vec<u8>]) -> Self {
        let step = small.len().div_ceil(POWER).max(1);
        let some: Vec<Vec<f32>> = small.iter().step_by(step).map(|map| as_numbers(map)).collect();
        let halves: Vec<Vec<f32>> = some.iter().map(|map| halved(map)).collect();
        Self {
            small,
            whitener: Whitener::new(SIDE, CUT, some.iter().map(Vec::as_slice)),
            rough: Whitener::new(ROUGH, CUT, halves.iter().map(Vec::as_slice)),
        }
    }

    fn of(&self, i: usize) -> Vec<Complex<f32>> {
        self.whitener.spectrum(&as_numbers(&self.small[i]))
    }

    fn known(&self, i: usize) -> Known {
        let map = as_numbers(&self.small[i]);
        Known { spectrum: self.whitener.spectrum(&map), rough: self.rough.spectrum(&halved(&map)) }
    }

    /// The largest peak over stretchings along each axis and turns of `moved`, by a grid at half the size and a compass
    /// search; the first that is `enough`.
    fn best(&self, fixed: &Known, moved: &[f32], enough: impl Fn(f32) -> bool) -> f32 {
        let first = self.whitener.peak(&fixed.spectrum, &self.whitener.spectrum(moved));
        if first < PURSUED || enough(first) {
            return first;
        }
        let half = halved(moved);
        let rough = |m: &Move| self.rough.peak(&fixed.rough, &self.rough.spectrum(&warped(&half, ROUGH, *m)));
        let grid = [-0.04, 0.0, 0.04].into_iter().flat_map(|s| [-0.035, 0.0, 0.035].map(|angle| [s, s, angle]));
        let found = grid.map(|m| (rough(&m), m)).max_by(|a, b| a.0.total_cmp(&b.0));
        let mut at = found.map_or([0.0; 3], |(_, m)| m);
        let peak = |m: &Move| self.whitener.peak(&fixed.spectrum, &self.whitener.spectrum(&warped(moved, SIDE, *m)));
        let mut best = peak(&at);
        if first > best {
            (at, best) = ([0.0; 3], first);
        }
        if best < PROMISING || enough(best) {
            return best;
        }
        let mut steps: Move = [0.02, 0.02, 0.02];
        for _ in 0..4 {
            for _ in 0..3 {
                let before = best;
                for k in 0..3 {
                    for sign in [-1.0, 1.0] {
                        let mut next = at;
                        next[k] += sign * steps[k];
                        // Beyond a tenth it is another picture for a network, too.
                        if next.iter().any(|v| v.abs() > 0.1) {
                            continue;
                        }
                        let found = peak(&next);
                        if found > best {
                            (at, best) = (next, found);
                        }
                    }
                }
                if best <= before {
                    break;
                }
            }
            if enough(best) {
                break;
            }
            steps = steps.map(|s| s / 2.0);
        }
        best
    }
}

/// A map of [`SIDE`] at half of it.
fn halved(map: &[f32]) -> Vec<f32> {
    let at = |y: usize, x: usize| map[y * SIDE + x];
    let mean = |y: usize, x: usize| (at(y, x) + at(y, x + 1) + at(y + 1, x) + at(y + 1, x + 1)) / 4.0;
    (0..ROUGH * ROUGH).map(|p| mean(p / ROUGH * 2, p % ROUGH * 2)).collect()
}

/// How a picture is changed about its centre: logarithms of the factors along x and y, angle in radians.
type Move = [f32; 3];

/// Weighs the frequencies of maps of one size by what they have in common.
struct Whitener {
    side: usize,
    /// Fades the map out towards its rim: the square root of Hann's window.
    window: Vec<f32>,
    /// The weight of every frequency, transposed like spectra.
    weights: Vec<f32>,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl Whitener {
    /// For maps like these.
    fn new<'a>(side: usize, cut: f32, maps: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut planner = FftPlanner::new();
        let hann: Vec<f32> = (1..=side).map(|i| (PI * i as f32 / (side + 1) as f32).sin()).collect();
        let mut whitener = Self {
            side,
            window: (0..side * side).map(|p| hann[p / side] * hann[p % side]).collect(),
            weights: vec![1.0; side * side],
            forward: planner.plan_fft_forward(side),
            inverse: planner.plan_fft_inverse(side),
        };
        let (mut power, mut n) = (vec![0f64; side * side], 0.0);
        for map in maps {
            n += 1.0;
            power.iter_mut().zip(whitener.transformed(map)).for_each(|(sum, v)| *sum += f64::from(v.norm_sqr()));
        }
        let frequency = |k: usize| k.min(side - k) as f32 / side as f32;
        let noise = SAVED * SAVED * whitener.window.iter().map(|w| w * w).sum::<f32>();
        let weight = |(p, power): (usize, &f64)| {
            let f = frequency(p / side).hypot(frequency(p % side));
            if p == 0 { 0.0 } else { (-(f / cut).powi(2)).exp() / ((power / f64::max(n, 1.0)) as f32 + noise).sqrt() }
        };
        whitener.weights = power.iter().enumerate().map(weight).collect();
        whitener
    }

    /// The spectrum, transposed.
    fn transformed(&self, map: &[f32]) -> Vec<Complex<f32>> {
        let mean = map.iter().sum::<f32>() / map.len() as f32;
        let values = map.iter().zip(&self.window).map(|(v, w)| Complex::new((v - mean) * w, 0.0));
        let mut values: Vec<Complex<f32>> = values.collect();
        self.forward.process(&mut values);
        let mut values = transposed(&values, self.side);
        self.forward.process(&mut values);
        values
    }

    /// The whitened spectrum, of length 1.
    fn spectrum(&self, map: &[f32]) -> Vec<Complex<f32>> {
        let mut values = self.transformed(map);
        values.iter_mut().zip(&self.weights).for_each(|(v, w)| *v *= w);
        let length = values.iter().map(Complex::norm_sqr).sum::<f32>().sqrt();
        if length > 0.0 {
            values.iter_mut().for_each(|v| *v /= length);
        }
        values
    }

    /// The whitened map, of length 1.
    fn map(&self, map: &[f32]) -> Vec<f32> {
        let values = self.back(self.spectrum(map));
        values.iter().map(|v| v.re / self.side as f32).collect()
    }

    /// The largest correlation over all shifts, between -1 and 1.
    fn peak(&self, a: &[Complex<f32>], b: &[Complex<f32>]) -> f32 {
        let product = a.iter().zip(b).map(|(a, b)| a * b.conj()).collect();
        self.back(product).iter().map(|v| v.re).fold(f32::NEG_INFINITY, f32::max)
    }

    fn back(&self, mut spectrum: Vec<Complex<f32>>) -> Vec<Complex<f32>> {
        self.inverse.process(&mut spectrum);
        let mut values = transposed(&spectrum, self.side);
        self.inverse.process(&mut values);
        values
    }
}

fn transposed(values: &[Complex<f32>], side: usize) -> Vec<Complex<f32>> {
    let mut out = vec![Complex::default(); side * side];
    // In tiles that fit into the fastest cache.
    for from in (0..side).step_by(16) {
        for y in 0..side {
            let row = &values[y * side..][..side];
            for x in from..side.min(from + 16) {
                out[x * side + y] = row[x];
            }
        }
    }
    out
}

fn as_numbers(map: &[u8]) -> Vec<f32> {
    map.iter().map(|&v| v.into()).collect()
}

fn mirrored(map: &[f32], side: usize) -> Vec<f32> {
    map.chunks_exact(side).flat_map(|row| row.iter().rev()).copied().collect()
}

/// A map stretched and turned about its centre, bilinear; beyond the rim the outermost values go on.
fn warped(map: &[f32], side: usize, [x_log, y_log, angle]: Move) -> Vec<f32> {
    let centre = (side as f32 - 1.0) / 2.0;
    let (sin, cos) = angle.sin_cos();
    let (x_scale, y_scale) = (x_log.exp(), y_log.exp());
    let last = (side - 1) as f32;
    let mut out = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let (u, v) = (x as f32 - centre, y as f32 - centre);
            let sx = (x_scale * (cos * u - sin * v) + centre).clamp(0.0, last);
            let sy = (y_scale * (sin * u + cos * v) + centre).clamp(0.0, last);
            let (ix, iy) = ((sx as usize).min(side - 2), (sy as usize).min(side - 2));
            let (fx, fy) = (sx - ix as f32, sy - iy as f32);
            let at = &map[iy * side + ix..];
            let upper = at[0] * (1.0 - fx) + at[1] * fx;
            let lower = at[side] * (1.0 - fx) + at[side + 1] * fx;
            out.push(upper * (1.0 - fy) + lower * fy);
        }
    }
    out
}

/// A square made smaller, or larger: the mean over the area of each new pixel.
pub fn reduced(grey: &[u8], side: usize, to: usize) -> Vec<f32> {
    let scale = side as f64 / to as f64;
    let spans: Vec<Vec<(usize, f64)>> = (0..to)
        .map(|i| {
            let (from, until) = (i as f64 * scale, (i + 1) as f64 * scale);
            let last = (until.ceil() as usize).min(side);
            (from as usize..last)
                .map(|p| (p, (until.min((p + 1) as f64) - from.max(p as f64)).max(0.0) / scale))
                .collect()
        })
        .collect();
    let rows: Vec<f64> = (0..side)
        .flat_map(|y| {
            let row = &grey[y * side..][..side];
            spans.iter().map(move |span| span.iter().map(|&(x, w)| w * f64::from(row[x])).sum::<f64>())
        })
        .collect();
    let value = |y: &Vec<(usize, f64)>, x: usize| y.iter().map(|&(row, w)| w * rows[row * to + x]).sum::<f64>() as f32;
    spans.iter().flat_map(|y| (0..to).map(move |x| value(y, x))).collect()
}

/// A matrix of features, each standardised over all images, whose rows have length 1.
fn unit(values: &[f32], width: usize) -> Result<Tensor> {
    let n = values.len().checked_div(width).unwrap_or(0);
    let (mut sums, mut squares) = (vec![0f64; width], vec![0f64; width]);
    for (p, &v) in values.iter().enumerate() {
        sums[p % width] += f64::from(v);
        squares[p % width] += f64::from(v) * f64::from(v);
    }
    let count = n.max(1) as f64;
    let scale = |(s, q): (&f64, &f64)| {
        let (mean, square) = (s / count, q / count);
        let deviation = (square - mean * mean).max(0.0).sqrt();
        (mean as f32, if deviation > 1e-5 { (1.0 / deviation) as f32 } else { 0.0 })
    };
    let scales: Vec<(f32, f32)> = sums.iter().zip(&squares).map(scale).collect();
    let standard = |row: &[f32]| {
        let row: Vec<f32> = row.iter().zip(&scales).map(|(v, (m, s))| ((v - m) * s).clamp(-5.0, 5.0)).collect();
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        row.into_iter().map(move |v| v / length)
    };
    Tensor::from_vec(
        values.chunks_exact(width.max(1)).flat_map(standard).collect::<Vec<f32>>(),
        (n, width),
        &Device::Cpu,
    )
}

/// For each row of `a` the other rows of `b` with the largest products, at most `most` and none below `least`, nearest first.
fn nearest(a: &Tensor, b: &Tensor, most: usize, least: f32) -> Result<Vec<Vec<usize>>> {
    let n = a.dim(0)?;
    let transposed = b.t()?.contiguous()?;
    let mut all = Vec::with_capacity(n);
    for from in (0..n).step_by(BLOCK) {
        let rows = BLOCK.min(n - from);
        let products: Vec<Vec<f32>> = a.narrow(0, from, rows)?.contiguous()?.matmul(&transposed)?.to_vec2()?;
        all.par_extend(products.par_iter().enumerate().map(|(k, row)| {
            let mut best: Vec<(f32, usize)> = Vec::with_capacity(most + 1);
            for (j, &product) in row.iter().enumerate() {
                if j == from + k || product < least || (best.len() == most && product <= best[most - 1].0) {
                    continue;
                }
                let place = best.partition_point(|(p, _)| *p >= product);
                best.insert(place, (product, j));
                best.truncate(most);
            }
            best.into_iter().map(|(_, j)| j).collect::<Vec<_>>()
        }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE_OF_FILES: usize = 96;

    /// A cloud of its own, blurred at two scales, before a grid that all images share.
    fn cloud(rng: &mut StreamRng) -> Vec<u8> {
        let n = SIDE_OF_FILES;
        let mut octave = |cells: usize| -> Vec<f32> {
            let knots: Vec<f32> = (0..(cells + 1) * (cells + 1)).map(|_| rng.normal()).collect();
            let at = |y: f32, x: f32| {
                let (iy, ix) = (y as usize, x as usize);
                let k = iy * (cells + 1) + ix;
                let (fy, fx) = (y.fract(), x.fract());
                let upper = knots[k] * (1.0 - fx) + knots[k + 1] * fx;
                let lower = knots[k + cells + 1] * (1.0 - fx) + knots[k + cells + 2] * fx;
                upper * (1.0 - fy) + lower * fy
            };
            let scale = cells as f32 / n as f32;
            (0..n * n).map(|p| at((p / n) as f32 * scale, (p % n) as f32 * scale)).collect()
        };
        let (large, small) = (octave(6), octave(24));
        let pixel = |p: usize| {
            let grid = if p / n % 32 < 2 || p % n % 32 < 2 { -60.0 } else { 0.0 };
            (128.0 + grid + 22.0 * large[p] + 12.0 * small[p]).clamp(0.0, 255.0) as u8
        };
        (0..n * n).map(pixel).collect()
    }

    /// An image as somebody saves it again: mirrored, cropped, turned, brighter, and with other noise.
    struct Again {
        mirrored: bool,
        scale: f32,
        angle: f32,
        shift: f32,
        gain: f32,
        noise: f32,
    }

    fn saved(image: &[u8], again: &Again, rng: &mut StreamRng) -> Vec<u8> {
        let n = SIDE_OF_FILES;
        let centre = (n as f32 - 1.0) / 2.0;
        let (sin, cos) = again.angle.to_radians().sin_cos();
        let mut out = Vec::new();
        for y in 0..n {
            for x in 0..n {
                let x = if again.mirrored { n - 1 - x } else { x };
                let (u, v) = (x as f32 - centre, y as f32 - centre);
                let at = |a: f32| (again.scale * a + centre + again.shift).clamp(0.0, n as f32 - 1.001);
                let (sx, sy) = (at(cos * u - sin * v), at(sin * u + cos * v));
                let (ix, iy) = (sx as usize, sy as usize);
                let (fx, fy) = (sx.fract(), sy.fract());
                let p = |dx: usize, dy: usize| f32::from(image[(iy + dy) * n + ix + dx]);
                let value =
                    (p(0, 0) * (1.0 - fx) + p(1, 0) * fx) * (1.0 - fy) + (p(0, 1) * (1.0 - fx) + p(1, 1) * fx) * fy;
                out.push((value * again.gain + 5.0 + again.noise * rng.normal()).clamp(0.0, 255.0) as u8);
            }
        }
        out
    }

    #[test]
    fn every_planted_duplicate_is_found_and_nothing_else() {
        let mut rng = StreamRng::keyed(3, Purpose::Test, &[]);
        let mut images: Vec<Vec<u8>> = (0..45).map(|_| cloud(&mut rng)).collect();
        let mut planted = BTreeSet::new();
        for k in 0..9 {
            let mut spread = |most: f32| most * (2.0 * rng.unit() as f32 - 1.0);
            let again = Again {
                mirrored: k % 3 == 0,
                scale: 1.0 + if k % 2 == 0 { spread(0.06) } else { 0.0 },
                angle: if k % 4 == 1 { spread(4.0) } else { 0.0 },
                shift: if k % 2 == 1 { spread(4.0) } else { 0.0 },
                gain: 1.0 + spread(0.15),
                noise: 1.0,
            };
            let copy = saved(&images[k * 5], &again, &mut rng);
            planted.insert((k * 5, images.len()));
            images.push(copy);
        }
        // Features that say nothing: the pictures themselves must do.
        let features: Vec<Vec<f32>> = images.iter().map(|_| (0..8).map(|_| rng.normal()).collect()).collect();
        let found = duplicates(images.len(), SIDE_OF_FILES, |i| images[i].clone(), &Table::new(&features), 0).unwrap();
        let pairs: BTreeSet<(usize, usize)> = found.pairs.iter().map(|p| (p.first, p.second)).collect();
        assert_eq!(pairs, planted);
        assert!(found.pairs.iter().all(|p| p.mirrored == (p.first / 5 % 3 == 0)));
        assert_eq!(found.control.0, 0, "of {}", found.control.1);
    }

    /// The peak is the correlation of the whitened maps at the shift where it is largest.
    #[test]
    fn a_peak_is_the_largest_correlation_over_shifts() {
        let mut rng = StreamRng::keyed(5, Purpose::Test, &[]);
        let maps: Vec<Vec<f32>> = (0..20).map(|_| (0..64).map(|_| 50.0 * rng.normal()).collect()).collect();
        let whitener = Whitener::new(8, 0.3, maps.iter().map(Vec::as_slice));
        let (a, b) = (whitener.map(&maps[0]), whitener.map(&maps[1]));
        let shifted =
            |dy: usize, dx: usize| -> f32 { (0..64).map(|p| a[p] * b[(p / 8 + dy) % 8 * 8 + (p % 8 + dx) % 8]).sum() };
        let largest = (0..64).map(|s| shifted(s / 8, s % 8)).fold(f32::NEG_INFINITY, f32::max);
        let found = whitener.peak(&whitener.spectrum(&maps[0]), &whitener.spectrum(&maps[1]));
        assert!((found - largest).abs() < 1e-4, "{found} and {largest}");
        let own = whitener.spectrum(&maps[0]);
        assert!((whitener.peak(&own, &own) - 1.0).abs() < 1e-4);
        assert!((a.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-3);
    }

    #[test]
    fn reducing_keeps_the_mean_of_areas() {
        let ramp: Vec<u8> = (0..9u8).flat_map(|y| (0..9u8).map(move |x| 10 * x + y)).collect();
        assert_eq!(reduced(&ramp, 9, 3)[..3], [11.0, 41.0, 71.0]);
        let same = reduced(&ramp, 9, 9);
        assert!(same.iter().zip(&ramp).all(|(a, b)| (a - f32::from(*b)).abs() < 1e-4));
        let larger = reduced(&[0, 100, 0, 100], 2, 4);
        assert_eq!(larger[..4], [0.0, 0.0, 100.0, 100.0]);
    }
}
