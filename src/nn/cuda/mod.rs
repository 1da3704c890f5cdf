//! Convolutional networks on NVIDIA GPUs, through cuDNN.
//!
//! *Layout.* Feature maps are channels last on a GPU as on the CPU, so that pixels, cached features and heads are the
//! same tensors everywhere, in the layout that tensor cores prefer. Convolution weights are `[O, KH, KW, I]` on a GPU
//! and packed panels on the CPU; in files (weights and checkpoints) they are torch's `[O, I, KH, KW]`, so a checkpoint
//! can move between both.
//!
//! *One code path.* [`crate::nn::Backbone`] and [`crate::nn::Suffix`] hide the device. [`ops`] are operations of
//! candle's graph with gradients; each is composed of a few primitives, which have two implementations: `cudnn` on a
//! GPU, and naive ones in host memory, with which the tests check gradients, shapes and the traversal of the network
//! without a GPU.
//!
//! *Arithmetic.* [`Precision`] says how convolutions multiply and, with `bf16` and `amp`, which feature maps are bf16. Only algorithms that give the same bits
//! each time are used.
//!
//! *Order.* A process uses one stream of its GPU. Nothing within a training step waits for the GPU: losses are read
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
    /// The kernels that `update.rs` launches, with their numbers of parameters.
    const KERNELS: [(&str, usize); 5] =
        [("moment", 5), ("moment_of_squares", 5), ("adamw", 8), ("momentum", 6), ("descend", 4)];

    #[test]
    fn every_launched_kernel_exists_and_old_drivers_accept_it() {
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
