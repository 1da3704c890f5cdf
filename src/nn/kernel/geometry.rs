//! Which source pixel meets which tap: the index arithmetic of sliding windows, independent of kernels and devices.

/// A sliding window: kernel height and width, one stride, padding above/below and left/right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: usize,
    pub padding: [usize; 2],
}

impl Window {
    /// A window of `kernel` height and width that moves by `stride` over an image padded by `padding`.
    pub const fn new(kernel: [usize; 2], stride: usize, padding: [usize; 2]) -> Self {
        Self { kernel, stride, padding }
    }

    /// Positions of the window along one axis (0 height, 1 width); `None` if it does not fit once.
    pub fn positions(&self, axis: usize, length: usize) -> Option<usize> {
        let room = (length + 2 * self.padding[axis]).checked_sub(self.kernel[axis])?;
        (length > 0 && self.kernel[axis] > 0 && self.stride > 0).then(|| room / self.stride + 1)
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// A convolution of `[N, H, W, C]` with `[KH, KW, C, O]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    pub batch: usize,
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub cin: usize,
    pub cout: usize,
    pub window: Window,
}

impl ConvShape {
    /// The shape for an input of `[batch, height, width, cin]`; `None` if the window does not fit.
    pub fn new(input: [usize; 4], cout: usize, window: Window) -> Option<Self> {
        let [batch, height, width, cin] = input;
        let output = [window.positions(0, height)?, window.positions(1, width)?];
        Some(Self { batch, input: [height, width], output, cin, cout, window })
    }

    /// Pixels of the output, over the batch.
    pub fn output_pixels(&self) -> usize {
        self.batch * self.output[0] * self.output[1]
    }

    /// Pixels of the input, over the batch.
    pub fn input_pixels(&self) -> usize {
        self.batch * self.input[0] * self.input[1]
    }

    /// How the forward pass gathers: one class, every tap.
    pub(super) fn forward(&self) -> Gather {
        let w = &self.window;
        let taps = (0..w.taps())
            .map(|index| Tap {
                index,
                dy: (index / w.kernel[1]) as isize - w.padding[0] as isize,
                dx: (index % w.kernel[1]) as isize - w.padding[1] as isize,
            })
            .collect();
        let class = Class { taps, count: self.output, source_step: w.stride, first: [0, 0], step: 1 };
        Gather { batch: self.batch, source: self.input, destination: self.output, classes: vec![class] }
    }

    /// How the input gradient gathers from the output gradient.
    ///
    /// Input pixel `i` meets output pixel `o` at tap `k` where `o * stride + k = i + padding`. So pixels with equal
    /// `i mod stride` share their taps: `stride * stride` classes, none of which multiplies by an inserted zero.
    pub(super) fn input_gradient(&self) -> Gather {
        let w = &self.window;
        let s = w.stride as isize;
        let along = |axis: usize, residue: usize| -> Vec<(usize, isize)> {
            (0..w.kernel[axis])
                .filter_map(|k| {
                    let shift = residue as isize + w.padding[axis] as isize - k as isize;
                    (shift.rem_euclid(s) == 0).then(|| (k, shift.div_euclid(s)))
                })
                .collect()
        };
        let mut classes = Vec::new();
        for ry in 0..w.stride.min(self.input[0]) {
            for rx in 0..w.stride.min(self.input[1]) {
                let columns = along(1, rx);
                let taps = along(0, ry)
                    .into_iter()
                    .flat_map(|(ky, dy)| {
                        columns.iter().map(move |&(kx, dx)| Tap { index: ky * w.kernel[1] + kx, dy, dx })
                    })
                    .collect();
                let count = [(self.input[0] - ry).div_ceil(w.stride), (self.input[1] - rx).div_ceil(w.stride)];
                classes.push(Class { taps, count, source_step: 1, first: [ry, rx], step: w.stride });
            }
        }
        Gather { batch: self.batch, source: self.output, destination: self.input, classes }
    }
}

/// A tap: its index in the weights, and the offset of its source pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub index: usize,
    pub dy: isize,
    pub dx: isize,
}

/// Destination pixels that share their taps: a grid of `count` pixels from `first` on in steps of `step`, whose
/// sources lie `source_step` apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub taps: Vec<Tap>,
    pub count: [usize; 2],
    pub source_step: usize,
    pub first: [usize; 2],
    pub step: usize,
}

/// A product of gathered source rows with weights, for every destination pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    pub batch: usize,
    pub source: [usize; 2],
    pub destination: [usize; 2],
    pub classes: Vec<Class>,
}

/// A pixel of a class: its image and its place in the class's grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub image: usize,
    pub y: usize,
    pub x: usize,
}

impl Class {
    /// Pixels of the class in one image.
    pub fn pixels(&self) -> usize {
        self.count[0] * self.count[1]
    }

    /// The `index`-th pixel of the class, counted over the batch.
    pub fn place(&self, index: usize) -> Place {
        let (image, rest) = (index / self.pixels(), index % self.pixels());
        Place { image, y: rest / self.count[1], x: rest % self.count[1] }
    }

    /// The pixel after this one.
    pub fn next(&self, mut p: Place) -> Place {
        p.x += 1;
        if p.x == self.count[1] {
            p.x = 0;
            p.y += 1;
            if p.y == self.count[0] {
                p.y = 0;
                p.image += 1;
            }
        }
        p
    }

    /// Splits pixels, counted over the batch, at the ends of the grid's lines: calls `f` with the first pixel of each
    /// piece and its length.
    pub fn each_run(&self, pixels: std::ops::Range<usize>, mut f: impl FnMut(Place, usize)) {
        let mut at = pixels.start;
        while at < pixels.end {
            let place = self.place(at);
            let length = (self.count[1] - place.x).min(pixels.end - at);
            f(place, length);
            at += length;
        }
    }

    /// How many adjacent taps of each line of the window have contiguous sources: the length of the line where indices
    /// and sources of its taps both rise by one to the right, else 1.
    pub fn span(&self) -> usize {
        let Some(first) = self.taps.first() else { return 1 };
        let line = self.taps.iter().take_while(|t| t.dy == first.dy).count();
        let beside = |i: usize, t: &Tap| (t.index, t.dx) == (first.index + i, first.dx + i as isize);
        if self.taps[..line].iter().enumerate().all(|(i, t)| beside(i, t)) { line } else { 1 }
    }
}

impl Gather {
    /// The source pixel of a class's pixel at a tap, counted over the batch; `None` in the padding. The definition that
    /// tests compare with.
    #[cfg(test)]
    pub fn source_pixel(&self, class: &Class, p: Place, tap: Tap) -> Option<usize> {
        let y = (p.y * class.source_step).checked_add_signed(tap.dy).filter(|&y| y < self.source[0])?;
        let x = (p.x * class.source_step).checked_add_signed(tap.dx).filter(|&x| x < self.source[1])?;
        Some((p.image * self.source[0] + y) * self.source[1] + x)
    }

    /// For `length` pixels of one line from `p` on: the first source pixel at this tap that lies inside the image, and
    /// the range of pixels whose sources do. Their sources lie `source_step` apart. `None` if all lie in the padding.
    pub fn source_run(
        &self,
        class: &Class,
        p: Place,
        length: usize,
        tap: Tap,
    ) -> Option<(usize, std::ops::Range<usize>)> {
        let step = class.source_step as isize;
        let y = (p.y * class.source_step).checked_add_signed(tap.dy).filter(|&y| y < self.source[0])?;
        let first = p.x as isize * step + tap.dx;
        let from = (-first).max(0).div_euclid(step) + isize::from((-first).max(0) % step != 0);
        let last = self.source[1] as isize - 1 - first;
        let to = (last.div_euclid(step) + 1).clamp(0, length as isize);
        (from < to).then(|| {
            let x = (first + from * step) as usize;
            ((p.image * self.source[0] + y) * self.source[1] + x, from as usize..to as usize)
        })
    }

    /// The destination pixel of a class's pixel, counted over the batch.
    pub fn destination_pixel(&self, class: &Class, p: Place) -> usize {
        let y = class.first[0] + p.y * class.step;
        let x = class.first[1] + p.x * class.step;
        (p.image * self.destination[0] + y) * self.destination[1] + x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_gradient_meets_every_pair_of_the_forward_pass_once() {
        for (kernel, stride, padding) in
            [([3, 3], 2, [0, 0]), ([3, 3], 2, [1, 1]), ([1, 7], 1, [0, 3]), ([5, 5], 1, [2, 2]), ([2, 3], 3, [1, 0])]
        {
            let shape = ConvShape::new([2, 9, 8, 1], 1, Window::new(kernel, stride, padding)).unwrap();
            let pairs = |g: Gather, swap: bool| {
                let mut pairs = Vec::new();
                for class in &g.classes {
                    for index in 0..g.batch * class.pixels() {
                        let p = class.place(index);
                        let d = g.destination_pixel(class, p);
                        let sources: Vec<_> =
                            class.taps.iter().map(|&t| (t.index, g.source_pixel(class, p, t))).collect();
                        for (tap, s) in sources {
                            pairs.extend(s.map(|s| if swap { (tap, d, s) } else { (tap, s, d) }));
                        }
                    }
                }
                pairs.sort_unstable();
                pairs
            };
            assert_eq!(pairs(shape.forward(), false), pairs(shape.input_gradient(), true));
        }
    }

    #[test]
    fn adjacent_taps_are_a_span_where_their_sources_are_contiguous() {
        let span = |kernel, stride, padding| {
            let shape = ConvShape::new([1, 9, 9, 1], 1, Window::new(kernel, stride, padding)).unwrap();
            let spans = |g: Gather| g.classes.iter().map(Class::span).collect::<Vec<_>>();
            (spans(shape.forward()), spans(shape.input_gradient()))
        };
        assert_eq!(span([3, 3], 1, [1, 1]), (vec![3], vec![1]));
        assert_eq!(span([3, 3], 2, [0, 0]), (vec![3], vec![1; 4]));
        assert_eq!(span([1, 7], 1, [0, 3]), (vec![7], vec![1]));
        assert_eq!(span([7, 1], 1, [3, 0]), (vec![1], vec![1]));
        assert_eq!(span([1, 1], 2, [0, 0]), (vec![1], vec![1; 4]));
    }

    #[test]
    fn runs_agree_with_single_pixels() {
        for (kernel, stride, padding) in
            [([3, 3], 2, [0, 0]), ([3, 3], 2, [1, 1]), ([1, 7], 1, [0, 3]), ([2, 5], 3, [1, 4])]
        {
            let shape = ConvShape::new([2, 9, 8, 1], 1, Window::new(kernel, stride, padding)).unwrap();
            let gather = shape.forward();
            let class = &gather.classes[0];
            for &tap in &class.taps {
                let range = 3..gather.batch * class.pixels() - 2;
                let mut by_run = Vec::new();
                class.each_run(range.clone(), |place, length| {
                    let mut line = vec![None; length];
                    if let Some((mut pixel, inside)) = gather.source_run(class, place, length, tap) {
                        for slot in &mut line[inside] {
                            *slot = Some(pixel);
                            pixel += class.source_step;
                        }
                    }
                    by_run.extend(line);
                });
                let singly: Vec<_> = range.map(|i| gather.source_pixel(class, class.place(i), tap)).collect();
                assert_eq!(by_run, singly, "{kernel:?} {stride} {padding:?} {tap:?}");
            }
        }
    }

    #[test]
    fn a_window_that_does_not_fit_has_no_positions() {
        assert_eq!(Window::new([3, 3], 2, [0, 0]).positions(0, 2), None);
        assert_eq!(Window::new([3, 3], 2, [0, 0]).positions(0, 149), Some(74));
        assert_eq!(Window::new([1, 7], 1, [0, 3]).positions(1, 17), Some(17));
    }
}
