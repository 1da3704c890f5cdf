//! Augmentation: keyed draws, and one pass from stored u8 pixels to the network's input.

mod draw;
mod render;

pub use draw::{View, ViewDraw};
pub use render::render;
