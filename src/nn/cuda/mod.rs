//! Convolutional networks on NVIDIA GPUs, through cuDNN.
//!
//! *Layout.* Feature maps are channels last on a GPU as on the CPU, so that pixels, cached features and heads are the
//! same tensors everywhere and tensor cores get what they like. Convolution weights are `[O, KH, KW, I]` there, in
//! packed panels on the CPU; in files (weights and checkpoints) they are torch's `[O, I, KH, KW]`, so a checkpoint moves
//! between both.
//!
//! *One path.* [`crate::nn::Backbone`] and [`crate::nn::Suffix`] hide the device. [`ops`] are operations of candle's
//! graph with gradients; each is put together from a few primitives, of which there are two sets: those of `cudnn`
//! on a GPU, and naive ones in host memory with which the tests check gradients, shapes and walks through the network
//! where there is no GPU.
//!
//! *Arithmetic.* [`Precision`] says how convolutions multiply; all else is f32. Only algorithms that give the same bits
//! each time are used.
//!
//! *Order.* A process drives its GPU by one stream. Nothing within a training step waits for the GPU: losses are read
//! when an epoch is over.

#[cfg(feature = "cuda")]
mod cudnn;
pub mod device;
#[cfg(test)]
mod host;
pub mod ops;
pub mod plan;
#[cfg(feature = "cuda")]
pub(super) mod update;

pub use plan::{Precision, precision, set_precision};

#[cfg(test)]
mod tests {
    /// What `update.rs` launches, with the number of its parameters.
    const KERNELS: [(&str, usize); 5] =
        [("moment", 5), ("moment_of_squares", 5), ("adamw", 8), ("momentum", 6), ("descend", 4)];

    #[test]
    fn every_kernel_that_is_launched_is_there_and_old_drivers_take_it() {
        let ptx = include_str!("optimiser.ptx");
        for (name, parameters) in KERNELS {
            let (_, entry) = ptx.split_once(&format!(".visible .entry {name}(")).expect(name);
            assert_eq!(entry.split_once(')').unwrap().0.matches(".param").count(), parameters, "{name}");
            assert!(include_str!("optimiser.cu").contains(&format!("void {name}(")));
        }
        assert_eq!(ptx.matches(".entry").count(), KERNELS.len());
        assert!(ptx.contains(".version 7.0\n.target sm_70\n"));
    }
}
