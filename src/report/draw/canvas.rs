//! A chart as a list of marks, in logical pixels.

/// A colour with its opacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colour {
    /// Red, green, blue.
    pub rgb: (u8, u8, u8),
    /// 0..=1.
    pub alpha: f64,
}

impl Colour {
    const fn new(r: u8, g: u8, b: u8) -> Self {
        Self { rgb: (r, g, b), alpha: 1.0 }
    }

    /// Text and axes. In dark mode the page's style sheet replaces this colour and those below.
    pub const INK: Self = Self::new(0x1F, 0x23, 0x28);
    /// Secondary text.
    pub const MUTED: Self = Self::new(0x5A, 0x64, 0x70);
    /// Grid lines.
    pub const GRID: Self = Self::new(0xE3, 0xE7, 0xEC);
    /// Data drawn only for context.
    pub const FAINT: Self = Self::new(0xA9, 0xB2, 0xBC);
    /// The background.
    pub const PAPER: Self = Self::new(0xFF, 0xFF, 0xFF);

    // Okabe and Ito (2008): can be told apart with common colour-vision deficiencies.
    pub const BLUE: Self = Self::new(0x00, 0x72, 0xB2);
    pub const VERMILLION: Self = Self::new(0xD5, 0x5E, 0x00);
    pub const GREEN: Self = Self::new(0x00, 0x9E, 0x73);
    pub const ORANGE: Self = Self::new(0xE6, 0x9F, 0x00);
    pub const SKY: Self = Self::new(0x56, 0xB4, 0xE9);
    pub const PURPLE: Self = Self::new(0xCC, 0x79, 0xA7);

    /// The colour of series `i`; colours repeat after the sixth.
    pub fn series(i: usize) -> Self {
        [Self::BLUE, Self::VERMILLION, Self::GREEN, Self::ORANGE, Self::PURPLE, Self::SKY][i % 6]
    }

    /// The colour with another opacity.
    pub fn alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// A step of a ramp from faint blue (0) to deep blue (1), for ordered values.
    pub fn ramp(t: f64) -> Self {
        let t = t.clamp(0.0, 1.0);
        let mix = |a: f64, b: f64| (a + (b - a) * t).round() as u8;
        Self::new(mix(214.0, 0.0), mix(228.0, 90.0), mix(240.0, 158.0))
    }
}

/// Which part of a text is at its point, horizontally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Centre,
    Right,
}

/// A drawn element.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    Path { points: Vec<(f64, f64)>, width: f64, colour: Colour },
    Area { points: Vec<(f64, f64)>, colour: Colour },
    Rect { x: f64, y: f64, w: f64, h: f64, colour: Colour },
    Dot { x: f64, y: f64, r: f64, colour: Colour },
    Text { x: f64, y: f64, words: String, size: f64, bold: bool, align: Align, up: bool, colour: Colour },
}

/// A chart being drawn. The origin is the upper left corner; texts are centred vertically on their point.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Width in logical pixels.
    pub width: f64,
    /// Height in logical pixels.
    pub height: f64,
    /// What has been drawn, in order.
    pub marks: Vec<Mark>,
}

/// Font size of ordinary text in charts.
pub const WORDS: f64 = 12.0;

impl Chart {
    /// An empty chart.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, marks: Vec::new() }
    }

    /// A line through points. Points that are not finite are left out; fewer than two draw nothing.
    pub fn path(&mut self, points: impl IntoIterator<Item = (f64, f64)>, width: f64, colour: Colour) {
        let points: Vec<_> = points.into_iter().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
        if points.len() > 1 {
            self.marks.push(Mark::Path { points, width, colour });
        }
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        self.path([from, to], width, colour);
    }

    /// A dashed straight line.
    pub fn dashes(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let n = (length / 9.0).ceil().clamp(1.0, 400.0) as usize;
        for i in 0..n {
            let (a, b) = (i as f64 / n as f64, (i as f64 + 0.55) / n as f64);
            self.line((from.0 + dx * a, from.1 + dy * a), (from.0 + dx * b, from.1 + dy * b), width, colour);
        }
    }

    /// A filled polygon.
    pub fn area(&mut self, points: Vec<(f64, f64)>, colour: Colour) {
        if points.len() > 2 && points.iter().all(|p| p.0.is_finite() && p.1.is_finite()) {
            self.marks.push(Mark::Area { points, colour });
        }
    }

    /// A filled rectangle.
    pub fn rect(&mut self, x: f64, y: f64, w: f64, h: f64, colour: Colour) {
        if w > 0.0 && h > 0.0 && x.is_finite() && y.is_finite() && w.is_finite() && h.is_finite() {
            self.marks.push(Mark::Rect { x, y, w, h, colour });
        }
    }

    /// A filled disc.
    pub fn dot(&mut self, x: f64, y: f64, r: f64, colour: Colour) {
        if x.is_finite() && y.is_finite() {
            self.marks.push(Mark::Dot { x, y, r, colour });
        }
    }

    /// A disc with a rim in the background's colour, so that it stands out from lines.
    pub fn point(&mut self, x: f64, y: f64, r: f64, colour: Colour) {
        self.dot(x, y, r + 1.5, Colour::PAPER);
        self.dot(x, y, r, colour);
    }

    /// Text at a point.
    pub fn words(&mut self, x: f64, y: f64, align: Align, words: impl Into<String>, colour: Colour) {
        self.sized(x, y, align, words, WORDS, false, colour);
    }

    /// Bold text at a point.
    pub fn strong(&mut self, x: f64, y: f64, align: Align, words: impl Into<String>, colour: Colour) {
        self.sized(x, y, align, words, WORDS, true, colour);
    }

    /// Text of any size.
    #[allow(clippy::too_many_arguments)] // a text has that many properties
    pub fn sized(
        &mut self,
        x: f64,
        y: f64,
        align: Align,
        words: impl Into<String>,
        size: f64,
        bold: bool,
        colour: Colour,
    ) {
        let words = words.into();
        if x.is_finite() && y.is_finite() && !words.is_empty() {
            self.marks.push(Mark::Text { x, y, words, size, bold, align, up: false, colour });
        }
    }

    /// Text that runs upwards, centred on a point.
    pub fn upwards(&mut self, x: f64, y: f64, words: impl Into<String>, colour: Colour) {
        let (words, align) = (words.into(), Align::Centre);
        self.marks.push(Mark::Text { x, y, words, size: WORDS, bold: false, align, up: true, colour });
    }
}

/// Approximate width of text of the ordinary size; enough for layout.
pub fn width_of(words: &str) -> f64 {
    words
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | '|' | '\'' | ' ' | 'I' | '(' | ')' => 3.6,
            'f' | 't' | 'r' => 4.8,
            'm' | 'w' | 'M' | 'W' | '%' | '@' | '—' => 10.5,
            c if c.is_uppercase() => 8.3,
            _ => 7.0,
        })
        .sum()
}

/// The text, cut to about `width` with an ellipsis if it is longer.
pub fn fitted(words: &str, width: f64) -> String {
    if width_of(words) <= width {
        return words.to_owned();
    }
    let mut cut = String::new();
    for c in words.chars() {
        cut.push(c);
        if width_of(&cut) > width - 10.0 {
            break;
        }
    }
    cut.pop();
    cut.push('…');
    cut
}
