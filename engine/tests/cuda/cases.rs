//! Every op's cases on the virtual GPU. What does not run there yet is listed, so that the list shrinks.

use engine::{Cuda, Error, check};

/// Cases that no kernel serves.
const NO_KERNEL: &[&str] = &[
    "inverted_residual [k9, relu]",
    "inverted_residual [stride 2, k1]",
    // The two activations around the depthwise convolution differ.
    "inverted_residual [relu, none, relu]",
    "inverted_residual [none, relu6, none]",
];

/// The cases of the ops with these names.
fn all(cuda: &Cuda, names: &[&str]) {
    let mut met = 0;
    for case in engine::ops::cases() {
        let (name, title) = ((case.op)().name(), format!("{case:?}"));
        if !names.contains(&name) {
            continue;
        }
        met += 1;
        match check::check_on(&case, cuda) {
            Ok(()) => assert!(!NO_KERNEL.contains(&&title[..]), "{title} runs now: take it off the list"),
            Err(Error::NoKernel { .. }) => assert!(NO_KERNEL.contains(&&title[..]), "{title} has no kernel"),
            Err(error) => panic!("{title}: {error}"),
        }
    }
    assert!(met > 0, "no case is of {names:?}");
}

macro_rules! ops {
    ($($test:ident: [$($name:literal),+];)+) => {
        $(on_gpu!($test, |cuda| all(cuda, &[$($name),+]));)+

        #[test]
        fn every_op_is_here() {
            let here: Vec<&str> = [$(&[$($name),+][..]),+].concat();
            for case in engine::ops::cases() {
                let name = (case.op)().name();
                assert!(here.contains(&name), "{name} is in no test");
            }
        }
    };
}

ops! {
    activation: ["identity", "relu", "relu6", "h_swish", "swish", "sigmoid", "hard_sigmoid"];
    add: ["add"];
    batch_norm: ["batch_norm"];
    channels: ["channel_shuffle", "channel_slice", "concat"];
    conv2d: ["conv2d"];
    depthwise_conv2d: ["depthwise_conv2d"];
    dropout: ["dropout"];
    inverted_residual: ["inverted_residual"];
    linear: ["linear"];
    pointwise_conv2d: ["pointwise_conv2d"];
    pooling: ["avg_pool", "max_pool", "global_avg_pool"];
    reshape: ["reshape", "flatten"];
    softmax_cross_entropy: ["softmax_cross_entropy"];
    squeeze_excite: ["squeeze_excite"];
}
