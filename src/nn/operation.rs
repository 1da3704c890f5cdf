//! Hand-written operations: their results and gradients, without the many signatures of candle's traits.
//!
//! An operation implements [`Operation`] once for each number of operands it takes; [`apply1`] to [`apply3`] put its
//! result into candle's graph, [`forward1`] to [`forward3`] compute it without gradients.

use super::tensor::elements;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Tensor};

/// An operand in host memory: contiguous, row-major.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    pub values: &'a [f32],
    pub dims: &'a [usize],
}

/// An operation on `N` contiguous f32 tensors.
pub(super) trait Operation<const N: usize> {
    /// For messages.
    fn name(&self) -> &'static str;

    /// The values and the shape of the result, on the CPU.
    ///
    /// # Errors
    /// If shapes do not fit.
    fn on_host(&self, operands: [Host<'_>; N]) -> Result<(Vec<f32>, Shape)>;

    /// The gradients of the operands, given that of the result; `None` for operands that need none.
    ///
    /// # Errors
    /// If the operation has no gradients.
    fn gradients(&self, _operands: [&Tensor; N], _result: &Tensor, _gradient: &Tensor) -> Result<[Option<Tensor>; N]> {
        Err(Error::BackwardNotSupported { op: self.name() })
    }
}

fn on_host<const N: usize>(
    op: &impl Operation<N>,
    operands: [(&CpuStorage, &Layout); N],
) -> Result<(CpuStorage, Shape)> {
    let mut lent = [Host { values: &[], dims: &[] }; N];
    for (lent, (storage, layout)) in lent.iter_mut().zip(operands) {
        *lent = Host { values: elements(op.name(), storage, layout)?, dims: layout.dims() };
    }
    let (values, shape) = op.on_host(lent)?;
    Ok((CpuStorage::F32(values), shape))
}

/// Adapts an [`Operation`] to candle's traits.
struct Op<T>(T);

impl<T: Operation<1>> CustomOp1 for Op<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        on_host(&self.0, [(s, l)])
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [x] = self.0.gradients([x], y, &gradient.contiguous()?)?;
        Ok(x)
    }
}

impl<T: Operation<2>> CustomOp2 for Op<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        on_host(&self.0, [(s1, l1), (s2, l2)])
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.0.gradients([a, b], y, &gradient.contiguous()?)?;
        Ok((a, b))
    }
}

impl<T: Operation<3>> CustomOp3 for Op<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_host(&self.0, [(s1, l1), (s2, l2), (s3, l3)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.0.gradients([a, b, c], y, &gradient.contiguous()?)?;
        Ok((a, b, c))
    }
}

/// The operation's result, with gradients.
#[cfg(test)]
pub(super) fn apply1(op: impl Operation<1> + Send + Sync + 'static, x: &Tensor) -> Result<Tensor> {
    x.apply_op1(Op(op))
}

/// The operation's result, with gradients.
#[cfg(test)]
pub(super) fn apply2(op: impl Operation<2> + Send + Sync + 'static, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.apply_op2(b, Op(op))
}

/// The operation's result, with gradients.
pub(super) fn apply3(
    op: impl Operation<3> + Send + Sync + 'static,
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
) -> Result<Tensor> {
    a.apply_op3(b, c, Op(op))
}

/// The operation's result, without gradients.
pub(super) fn forward1(op: impl Operation<1>, x: &Tensor) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Op(op))
}

/// The operation's result, without gradients.
#[cfg(test)]
pub(super) fn forward2(op: impl Operation<2>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.apply_op2_no_bwd(b, &Op(op))
}

/// The operation's result, without gradients.
#[cfg(test)]
pub(super) fn forward3(op: impl Operation<3>, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    a.apply_op3_no_bwd(b, c, &Op(op))
}
