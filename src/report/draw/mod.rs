//! Charts: drawn once as a list of marks, which plotters renders as SVG and as PNG.

mod axis;
mod canvas;
mod contact;
mod fit;
mod heat;
mod hyperparameters;
mod progress;
mod render;
mod spread;

pub(super) use axis::Span;
pub(super) use canvas::{Chart, Colour};
pub use contact::contact_sheet;
pub(super) use fit::{Panel, ReliabilityBand, confusion, curves, reliability, sweep};
pub use heat::heat_map;
pub(super) use hyperparameters::{Axis, parallel, slice_grid};
pub(super) use progress::{Ladder, Lane, history, ladder, learning, races, timeline};
pub use render::DrawError;
pub(super) use spread::{bars, luck, whiskers};
