//! Pictures that a report shows as they are.

use serde::{Deserialize, Serialize};

/// A picture with a title and a caption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// A heading, such as `Augmentation at rising strengths`.
    pub title: String,
    /// One sentence on what it shows.
    pub caption: String,
    /// The picture.
    pub png: Png,
}

/// A PNG file's bytes. Serialised as a list of numbers, so records with pictures are better kept small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Png(pub Vec<u8>);
