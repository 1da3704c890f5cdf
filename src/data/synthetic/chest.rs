//! Draws one chest radiograph.
//!
//! Lengths are in units of the image's side, the origin at the upper left; densities run from 0 (air) to 1 (bone).

use super::Planned;
use crate::rng::{Purpose, StreamRng};
use crate::spec::SyntheticSpec;

/// Draws one image: `size * size` grey pixels.
pub fn radiograph(spec: &SyntheticSpec, planned: &Planned, size: usize) -> Vec<u8> {
    let body = Body::of(&mut Draw::new(spec, "patient", planned.patient));
    let pose = Pose::of(&mut Draw::new(spec, "pose", planned.image));
    let opacities = if planned.opacity {
        opacities(&mut Draw::new(spec, "opacity", planned.image), &body, spec.contrast)
    } else {
        Vec::new()
    };
    let tissue = Texture::new(&mut Draw::new(spec, "tissue", planned.patient));
    let mut grain = Draw::new(spec, "grain", planned.image);
    let mut pixels = Vec::with_capacity(size * size);
    for row in 0..size {
        for column in 0..size {
            let at = |i: usize| ((i as f64 + 0.5) / size as f64) as f32;
            let (x, y) = pose.place(at(column), at(row));
            let lung = body.lung(x, y);
            let mut density = body.density(x, y, lung, &tissue);
            for opacity in &opacities {
                density += lung * opacity.at(x, y, &tissue);
            }
            // Photon noise grows where little light arrives: in dense places.
            let noise = grain.bell() * (0.012 + 0.018 * density);
            let shade = pose.exposure * (density + noise).max(0.0).powf(pose.gamma);
            pixels.push((shade * 255.0).round().clamp(0.0, 255.0) as u8);
        }
    }
    pixels
}

/// Random numbers from one stream.
struct Draw(StreamRng);

impl Draw {
    fn new(spec: &SyntheticSpec, what: &str, number: u32) -> Self {
        Self(StreamRng::named(spec.seed, Purpose::Synthetic, what, &[u64::from(number)]))
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.unit() as f32
    }

    /// Nearly normal, of unit variance: the sum of four uniforms.
    fn bell(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.0.unit() as f32).sum();
        (sum - 2.0) * 1.732
    }
}

/// Smooth step: 0 well below the edge, 1 well above, over a distance of about `width`.
fn step(distance: f32, width: f32) -> f32 {
    let t = (distance / width + 0.5).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Widths from the middle of a [`ridge`] to where it ends.
const EXTENT: f32 = 3.0;

/// A bell of height 1 that is exactly 0 beyond three widths.
fn ridge(distance: f32, width: f32) -> f32 {
    let t = distance / (EXTENT * width);
    let rest = (1.0 - t * t).max(0.0);
    rest * rest * rest * rest
}

/// How the patient stood and how the picture was taken: differs between images of one patient.
struct Pose {
    shift: (f32, f32),
    tilt: f32,
    zoom: f32,
    exposure: f32,
    gamma: f32,
}

impl Pose {
    fn of(draw: &mut Draw) -> Self {
        Self {
            shift: (draw.between(-0.02, 0.02), draw.between(-0.025, 0.025)),
            tilt: draw.between(-0.05, 0.05),
            zoom: draw.between(0.95, 1.06),
            exposure: draw.between(0.88, 1.08),
            gamma: draw.between(0.85, 1.15),
        }
    }

    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = ((x - 0.5 - self.shift.0) * self.zoom, (y - 0.5 - self.shift.1) * self.zoom);
        (0.5 + dx - self.tilt * dy, 0.5 + dy + self.tilt * dx)
    }

    /// Where an opacity of the body is in the picture: the inverse of [`Pose::place`].
    fn shown(&self, spot: &Opacity) -> DrawnOpacity {
        let [x, y, radius, squash, tilt, zoom] =
            [spot.x, spot.y, spot.radius, spot.squash, self.tilt, self.zoom].map(f64::from);
        let stretch = 1.0 + tilt * tilt;
        let (qx, qy) = (x - 0.5, y - 0.5);
        let half = f64::from(EXTENT) * radius / (zoom * stretch.sqrt());
        DrawnOpacity {
            x: 0.5 + f64::from(self.shift.0) + (qx + tilt * qy) / (stretch * zoom),
            y: 0.5 + f64::from(self.shift.1) + (qy - tilt * qx) / (stretch * zoom),
            radii: [half, half / squash.sqrt()],
            angle: f64::from(spot.turn.1).atan2(f64::from(spot.turn.0)) - tilt.atan(),
        }
    }
}

/// A patient's build.
struct Body {
    /// Half the width of the chest.
    chest: f32,
    /// Centre and half axes of each lung.
    lungs: [Lung; 2],
    heart: (f32, f32),
    /// Distance between ribs, and where the first begins.
    rib_spacing: f32,
    rib_start: f32,
    rib_slope: f32,
    rib_density: f32,
    bone: f32,
    spine: f32,
}

struct Lung {
    x: f32,
    y: f32,
    half_width: f32,
    half_height: f32,
    /// Top of the diaphragm below it.
    floor: f32,
}

impl Body {
    fn of(draw: &mut Draw) -> Self {
        let width = draw.between(0.135, 0.160);
        let height = draw.between(0.29, 0.34);
        let middle = draw.between(0.45, 0.49);
        let gap = draw.between(0.175, 0.195);
        let floor = draw.between(0.72, 0.78);
        let mut lung = |side: f32| Lung {
            x: 0.5 + side * gap,
            y: middle + draw.between(-0.008, 0.008),
            half_width: width * draw.between(0.96, 1.04),
            half_height: height,
            // The liver lifts the diaphragm on the left of the picture.
            floor: floor + side * 0.015,
        };
        let lungs = [lung(-1.0), lung(1.0)];
        Self {
            chest: draw.between(0.40, 0.45),
            lungs,
            heart: (draw.between(0.10, 0.135), draw.between(0.12, 0.15)),
            rib_spacing: draw.between(0.066, 0.076),
            rib_start: draw.between(0.13, 0.18),
            rib_slope: draw.between(0.35, 0.6),
            rib_density: draw.between(0.10, 0.16),
            bone: draw.between(0.16, 0.22),
            spine: draw.between(0.022, 0.03),
        }
    }

    /// How much of the ray at this place passes through lung, 0..1.
    fn lung(&self, x: f32, y: f32) -> f32 {
        let one = |lung: &Lung| {
            let (dx, dy) = ((x - lung.x) / lung.half_width, (y - lung.y) / lung.half_height);
            // Narrow at the top, wide below; straight towards the middle.
            let narrow = 1.0 + 0.30 * (-dy).max(0.0).powi(2);
            let radius = ((dx * narrow).abs().powf(2.4) + dy.abs().powf(2.6)).powf(0.4);
            let dome = lung.floor + 0.9 * (x - lung.x) * (x - lung.x) * 3.0;
            step(1.0 - radius, 0.16) * step(dome - y, 0.025)
        };
        let heart = self.heart(x, y);
        (one(&self.lungs[0]) + one(&self.lungs[1])).min(1.0) * (1.0 - 0.85 * heart)
    }

    fn heart(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = ((x - 0.54) / self.heart.0, (y - 0.635) / self.heart.1);
        step(1.0 - (dx * dx + dy * dy + 0.35 * dx * dy).sqrt(), 0.3)
    }

    fn density(&self, x: f32, y: f32, lung: f32, tissue: &Texture) -> f32 {
        // Shoulders slope away from the neck; below them the flanks are nearly straight.
        let shoulder = 0.10 + self.chest * step(y - 0.10, 0.30) + 0.03 * y;
        let inside = step(shoulder - (x - 0.5).abs(), 0.05);
        if inside == 0.0 {
            return 0.02;
        }
        let flesh = 0.52 + 0.10 * step(y - 0.72, 0.2) + 0.05 * tissue.at(x * 3.0, y * 3.0);
        let vessels =
            0.16 * self.hilum(x, y) + 0.05 * tissue.strands(x * 11.0, y * 8.0) * step(0.24 - (x - 0.5).abs(), 0.2);
        let air = 0.17 + vessels + 0.05 * tissue.at(x * 7.0 + 3.0, y * 7.0);
        let mut density = flesh + (air - flesh) * lung + 0.06 * self.heart(x, y) * (1.0 - lung);
        density += self.middle(x, y) * (1.0 - 0.5 * self.heart(x, y)) + self.ribs(x, y, lung) + self.clavicles(x, y);
        density * inside
    }

    /// Spine with its vertebrae, and the windpipe above.
    fn middle(&self, x: f32, y: f32) -> f32 {
        let off = (x - 0.5).abs();
        let disc = 0.5 + 0.5 * (y * 78.0).sin();
        let spine = self.bone * ridge(off, self.spine) * (0.75 + 0.25 * disc);
        let shadow = 0.14 * ridge(off, 0.035 + 0.015 * y) * step(y - 0.22, 0.2);
        let windpipe = 0.16 * ridge(off, 0.010) * step(0.34 - y, 0.08);
        spine + shadow - windpipe
    }

    /// The hilum: vessels are dense where they enter the lung.
    fn hilum(&self, x: f32, y: f32) -> f32 {
        let off = (x - 0.5).abs() - 0.09;
        ridge((off * off + (y - 0.47) * (y - 0.47)).sqrt(), 0.045)
    }

    /// Arcs from the spine outwards: rear ribs descend; front ribs, fainter, rise again.
    fn ribs(&self, x: f32, y: f32, lung: f32) -> f32 {
        let off = (x - 0.5).abs();
        if !(0.03..0.40).contains(&off) {
            return 0.0;
        }
        let out = off - 0.03;
        let fade = step(0.36 - off, 0.14) * step(y - 0.17, 0.16) * step(0.80 - y, 0.2) * (0.3 + 0.7 * lung);
        let arc = |bend: f32, start: f32, width: f32| {
            let place = (y - start - bend) / self.rib_spacing;
            let near = (place - place.round()) * self.rib_spacing;
            // Bright at both rims, as a tube is.
            ridge(near, width) + 0.35 * ridge(near.abs() - 1.4 * width, 0.4 * width)
        };
        let rear = arc(self.rib_slope * out * (out * 2.2 - 0.12), self.rib_start, 0.0095);
        let front = arc(0.16 - 0.9 * (0.30 - out).max(0.0) * 0.8, self.rib_start + 0.03, 0.0085);
        let front_fade = step(off - 0.16, 0.1);
        self.rib_density * fade * (rear + 0.5 * front * front_fade)
    }

    fn clavicles(&self, x: f32, y: f32) -> f32 {
        let off = (x - 0.5).abs();
        let line = 0.205 - 0.22 * (off - 0.04) + 0.35 * (off - 0.04) * (off - 0.04);
        0.7 * self.bone * ridge(y - line, 0.0095) * step(off - 0.045, 0.03) * step(0.36 - off, 0.06)
    }
}

/// One soft opacity.
struct Opacity {
    x: f32,
    y: f32,
    radius: f32,
    squash: f32,
    turn: (f32, f32),
    height: f32,
}

impl Opacity {
    /// Its density, ragged like a consolidation.
    fn at(&self, x: f32, y: f32, tissue: &Texture) -> f32 {
        let (dx, dy) = (x - self.x, y - self.y);
        let (u, v) = (dx * self.turn.0 + dy * self.turn.1, dy * self.turn.0 - dx * self.turn.1);
        let bell = ridge((u * u + v * v * self.squash).sqrt(), self.radius);
        if bell == 0.0 {
            return 0.0;
        }
        self.height * bell * (1.0 + 0.45 * tissue.at(x * 16.0 + 7.0, y * 16.0))
    }
}

/// Where an opacity was drawn: an ellipse. Lengths are in units of the image's side, the origin at the upper left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrawnOpacity {
    /// The centre.
    pub x: f64,
    /// The centre.
    pub y: f64,
    /// Half axes of the ellipse beyond which nothing was added.
    pub radii: [f64; 2],
    /// Angle from the x axis, which points right, towards the y axis, which points down, to the first half axis; in
    /// radians.
    pub angle: f64,
}

impl DrawnOpacity {
    /// How far out a place is: 0 at the centre, 1 at the ellipse. Before its texture and where there is lung, the added
    /// density is `(1 - r^2)^4` of that at the centre.
    pub fn distance(&self, x: f64, y: f64) -> f64 {
        let (dx, dy) = (x - self.x, y - self.y);
        let (sin, cos) = self.angle.sin_cos();
        ((dx * cos + dy * sin) / self.radii[0]).hypot((dy * cos - dx * sin) / self.radii[1])
    }
}

/// Where the opacities of an image were drawn, at any size; none for an image of the negative class.
pub fn drawn(spec: &SyntheticSpec, planned: &Planned) -> Vec<DrawnOpacity> {
    if !planned.opacity {
        return Vec::new();
    }
    let body = Body::of(&mut Draw::new(spec, "patient", planned.patient));
    let pose = Pose::of(&mut Draw::new(spec, "pose", planned.image));
    let spots = opacities(&mut Draw::new(spec, "opacity", planned.image), &body, spec.contrast);
    spots.iter().map(|spot| pose.shown(spot)).collect()
}

fn opacities(draw: &mut Draw, body: &Body, contrast: f64) -> Vec<Opacity> {
    let spots = 1 + draw.0.below(3);
    let side = draw.0.below(2) as usize;
    (0..spots)
        .map(|i| {
            // Mostly one lung.
            let lung = &body.lungs[if i == 2 { 1 - side } else { side }];
            let turn = draw.between(0.0, std::f32::consts::PI);
            Opacity {
                x: lung.x + lung.half_width * draw.between(-0.45, 0.45),
                y: lung.y + lung.half_height * draw.between(-0.45, 0.55),
                radius: draw.between(0.022, 0.05),
                squash: draw.between(1.0, 2.2),
                turn: (turn.cos(), turn.sin()),
                height: contrast as f32 * draw.between(0.22, 0.36),
            }
        })
        .collect()
}

/// Smooth noise of two octaves over a lattice of random values, in about -1..1.
struct Texture(Vec<f32>);

const LATTICE: usize = 64;

impl Texture {
    fn new(draw: &mut Draw) -> Self {
        Self((0..LATTICE * LATTICE).map(|_| draw.between(-1.0, 1.0)).collect())
    }

    fn octave(&self, x: f32, y: f32) -> f32 {
        let (x0, y0) = (x.floor(), y.floor());
        let (fx, fy) = (step(x - x0 - 0.5, 1.0), step(y - y0 - 0.5, 1.0));
        let value = |i: i32, j: i32| {
            let (i, j) = ((x0 as i32 + i).rem_euclid(LATTICE as i32), (y0 as i32 + j).rem_euclid(LATTICE as i32));
            self.0[j as usize * LATTICE + i as usize]
        };
        let top = value(0, 0) + (value(1, 0) - value(0, 0)) * fx;
        let bottom = value(0, 1) + (value(1, 1) - value(0, 1)) * fx;
        top + (bottom - top) * fy
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        0.65 * self.octave(x, y) + 0.35 * self.octave(2.1 * x + 11.0, 2.1 * y + 5.0)
    }

    /// Thin bright lines, as of vessels: where the noise crosses zero.
    fn strands(&self, x: f32, y: f32) -> f32 {
        ridge(self.at(x, y), 0.10)
    }
}
