//! All ops, one file each: struct, contract, CPU forward and backward, and test cases.

mod activation;
mod batch_norm;
mod conv2d;
mod dense;
mod depthwise_conv2d;
mod linear;
mod pointwise_conv2d;
mod softmax_cross_entropy;

pub use activation::{Act, Activation};
pub use batch_norm::BatchNorm;
pub use conv2d::Conv2d;
pub use depthwise_conv2d::DepthwiseConv2d;
pub use linear::Linear;
pub use pointwise_conv2d::PointwiseConv2d;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;

use crate::check::Case;

/// The cases of every op.
pub fn cases() -> Vec<Case> {
    let all = [
        activation::cases,
        batch_norm::cases,
        conv2d::cases,
        depthwise_conv2d::cases,
        linear::cases,
        pointwise_conv2d::cases,
        softmax_cross_entropy::cases,
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
}
