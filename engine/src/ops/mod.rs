//! All ops, one file each: struct, contract, CPU forward and backward, and test cases.

mod activation;
mod dense;
mod linear;
mod pointwise_conv2d;
mod softmax_cross_entropy;

pub use activation::{Act, Activation};
pub use linear::Linear;
pub use pointwise_conv2d::PointwiseConv2d;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;

use crate::check::Case;

/// The cases of every op.
pub fn cases() -> Vec<Case> {
    [activation::cases(), linear::cases(), pointwise_conv2d::cases(), softmax_cross_entropy::cases()]
        .into_iter()
        .flatten()
        .collect()
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
