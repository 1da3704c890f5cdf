//! Identifiers shared by all modules.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A trial's number within its study, contiguous from 0 in the order of suggestion.
    TrialNumber(u32)
);
number!(
    /// A work order's number within its study, contiguous from 0 in the order of issue.
    OrderId(u32)
);
number!(
    /// A count of finished epochs: epoch 0 is the untrained network, epoch `n` the network after `n` passes.
    Epoch(u32)
);
