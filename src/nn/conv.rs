//! A convolution's constants, and the conversion of its weights between torch's layout and the kernels'.

use super::kernel::{self, Isa, Window, panel};
use candle_core::{Result, Tensor, bail};

/// A convolution's constants. Weights are packed (see [`kernel::panel`]); a [`candle_core::Var`] of them is trained in
/// that layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Kernel, stride and padding.
    pub window: Window,
    /// Output channels (packed weights do not determine them).
    pub cout: usize,
    /// Which kernels compute it on the CPU.
    pub isa: Isa,
}

impl Conv {
    /// A convolution with the fastest kernels of this processor.
    pub fn new(window: Window, cout: usize) -> Self {
        Self { window, cout, isa: Isa::best() }
    }

    /// Packs torch's `[O, I, KH, KW]` for this operation, on the same device.
    ///
    /// # Errors
    /// If the shape is not this convolution's.
    pub fn pack(&self, weights: &Tensor) -> Result<Tensor> {
        let (o, i, kh, kw) = weights.dims4()?;
        if o != self.cout || [kh, kw] != self.window.kernel {
            bail!("weights {:?} do not fit {self:?}", weights.dims());
        }
        let packed = panel::pack(&super::tensor::values(weights)?, kh * kw, i, o);
        Tensor::from_vec(packed, panel::packed_shape(kh * kw, i, o).as_slice(), weights.device())
    }

    /// The inverse of [`Conv::pack`].
    ///
    /// # Errors
    /// If the shape is not this convolution's.
    pub fn unpack(&self, packed: &Tensor) -> Result<Tensor> {
        let cin = self.packed_cin(packed.dims())?;
        let [kh, kw] = self.window.kernel;
        let weights = panel::unpack(&super::tensor::values(packed)?, kh * kw, cin, self.cout);
        Tensor::from_vec(weights, (self.cout, cin, kh, kw), packed.device())
    }

    pub(super) fn packed_cin(&self, dims: &[usize]) -> Result<usize> {
        match *dims {
            [panels, rows, kernel::LANES]
                if panels == panel::panels(self.cout) && rows.is_multiple_of(self.window.taps()) =>
            {
                Ok(rows / self.window.taps())
            }
            _ => bail!("packed weights {dims:?} do not fit {self:?}"),
        }
    }
}
