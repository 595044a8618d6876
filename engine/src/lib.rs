//! Tensors, gradients and kernels for training one path of a supernet at a time.
//!
//! A step is: read the parameters of a path onto a [`Tape`], apply [`ops`], walk back, and let an
//! optimiser update what was read.
//!
//! ```
//! use engine::{Cpu, Layout, ParamKind, Tape, Tensor, ops, optim};
//!
//! let cpu = Cpu::new(1)?;
//! let mut layout = Layout::new();
//! let w = layout.add("w", [2, 3], ParamKind::Weight)?;
//! let mut store = layout.build(&cpu)?;
//! store.value_mut(w)?.copy_from_slice(&[0.1, -0.2, 0.3, 0.4, 0.5, -0.6]);
//! let config = optim::SgdConfig { momentum: 0.9, nesterov: false, decay: 0.0, decays: optim::WeightDecay::Weights };
//! let mut sgd = optim::Sgd::new(&store, config)?;
//!
//! let mut tape = Tape::new(&cpu);
//! let x = tape.constant(Tensor::from_slice(&cpu, [1, 3], &[1.0f32, 2.0, 3.0])?);
//! let labels = tape.constant(Tensor::from_slice(&cpu, [1], &[1i32])?);
//! let weight = store.read(&mut tape, w, None)?;
//! let logits = tape.apply(ops::Linear { bias: false }, &[&x, &weight])?;
//! let loss = tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.0 }, &[&logits, &labels])?;
//! drop((weight, logits));
//! tape.backward(&loss, 1.0, &mut store)?;
//! sgd.step(&mut store, 0.1)?;
//! # Ok::<(), engine::Error>(())
//! ```
//!
//! | room | what lies there |
//! | --- | --- |
//! | [`tensor`] | tensors and shapes |
//! | [`tape`], [`op`] | recording and walking back; the contract of an op |
//! | [`ops`] | one file per op: forward, backward, cost, cases |
//! | [`params`], [`optim`], [`init`] | weights and what changes them |
//! | [`rng`] | counter-based randomness |
//! | [`device`], [`feed`] | where tensors live, and how a batch gets there |
//! | [`cpu`] | threads, memory, SIMD kernels |
//! | [`cuda`] | a GPU: its stream, its memory, its launches |
//! | [`check`] | the harness that every op's cases go through |

pub mod check;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod error;
pub mod feed;
pub mod init;
pub mod op;
pub mod ops;
pub mod optim;
pub mod params;
mod pieces;
pub mod rng;
pub mod tape;
pub mod tensor;

pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::{Device, Place};
pub use error::{Error, Result};
pub use feed::{Array, Feed};
pub use op::{Moments, Op};
pub use params::{Layout, ParamId, ParamKind, ParamStore, Window};
pub use pieces::ArenaStats;
pub use rng::Rng;
pub use tape::{Group, Tape, Var};
pub use tensor::{DType, Late, Shape, Tensor};
