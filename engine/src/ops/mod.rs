//! All ops, one file each: struct, contract, forward and backward on both devices, and test cases.

mod activation;
mod add;
mod avg_pool;
mod batch_norm;
mod channel_shuffle;
mod channel_slice;
mod channels;
mod concat;
mod conv2d;
mod dense;
mod depthwise_conv2d;
mod dropout;
mod folded;
mod global_avg_pool;
mod inverted_residual;
mod linear;
mod max_pool;
mod pointwise_conv2d;
mod pool;
mod reshape;
mod softmax_cross_entropy;
mod squeeze_excite;

pub use activation::{Act, Activation};
pub use add::Add;
pub use avg_pool::AvgPool;
pub use batch_norm::BatchNorm;
pub use channel_shuffle::ChannelShuffle;
pub use channel_slice::ChannelSlice;
pub use concat::Concat;
pub use conv2d::Conv2d;
pub use depthwise_conv2d::DepthwiseConv2d;
pub use dropout::Dropout;
pub use folded::{ConvNorm, FoldedConv, FoldedResidual};
pub use global_avg_pool::GlobalAvgPool;
pub use inverted_residual::{InvertedResidual, Statistics};
pub use linear::Linear;
pub use max_pool::MaxPool;
pub use pointwise_conv2d::PointwiseConv2d;
pub use pool::PoolWindow;
pub use reshape::{Flatten, Reshape};
pub use softmax_cross_entropy::SoftmaxCrossEntropy;
pub use squeeze_excite::SqueezeExcite;

use crate::check::Case;

/// The cases of every op.
pub fn cases() -> Vec<Case> {
    let all = [
        activation::cases,
        add::cases,
        avg_pool::cases,
        batch_norm::cases,
        channel_shuffle::cases,
        channel_slice::cases,
        concat::cases,
        conv2d::cases,
        depthwise_conv2d::cases,
        dropout::cases,
        global_avg_pool::cases,
        inverted_residual::cases,
        linear::cases,
        max_pool::cases,
        pointwise_conv2d::cases,
        reshape::cases,
        softmax_cross_entropy::cases,
        squeeze_excite::cases,
    ];
    all.into_iter().flat_map(|cases: fn() -> Vec<Case>| cases()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_passes_every_check() {
        for case in super::cases() {
            crate::check::check(&case);
        }
    }
    /// The instruction set is chosen once in a process, so the portable one needs another.
    #[test]
    fn every_case_passes_on_the_portable_instruction_set() {
        let test = std::env::current_exe().expect("a test has a path");
        let run = std::process::Command::new(test)
            .args(["ops::tests::every_case_passes_every_check", "--exact"])
            .env("MONOPATH_ISA", "portable")
            .output()
            .expect("a test can run itself");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
    }
}
