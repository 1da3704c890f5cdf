//! Augmentation: keyed draws, and one pass from stored u8 pixels to the network's input.

mod draw;
mod reduce;
mod render;

pub use draw::{View, ViewDraw};
pub use reduce::{Reduction, Renderer};
pub use render::render;
