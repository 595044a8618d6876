//! Scores of networks that are not trained at all (Abdelfattah et al., "Zero-cost proxies for lightweight NAS",
//! ICLR 2021, and their released code). All take the initial weights of the supernet, so a candidate has the
//! same weights in every network.

use engine::{ParamKind, ParamStore, Tape, Tensor, ops};

use crate::arch::Arch;
use crate::error::Result;
use crate::model::{Context, Model, Norms};

/// Synflow's sum is linear in the image, so its scale is free; with this one the sums of deep and wide networks
/// stay within f32 and below the bend of ReLU6.
const IMAGE: f32 = 1.0 / (1u64 << 60) as f32;

/// `ln sum |w dR/dw|` over convolution and linear weights, where R is the sum of the logits of an image of ones
/// through the network with absolute weights and without batch norms (Tanaka et al., "SynFlow", 2020).
#[derive(Debug)]
pub struct Synflow<'a> {
    model: &'a Model,
    store: ParamStore,
}

impl<'a> Synflow<'a> {
    /// From the initial weights of `model`, which are changed.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn new(model: &'a Model, mut store: ParamStore) -> Result<Self> {
        for id in store.ids() {
            let param = store.param(id);
            // Scales of norms are 1 and shifts 0 in the linear network; the two differ by name alone.
            let scale = param.kind == ParamKind::Norm && param.name.ends_with(".weight");
            let weight = param.kind == ParamKind::Weight;
            let linear = |&value: &f32| if weight { value.abs() } else { f32::from(u8::from(scale)) };
            let values: Vec<f32> = store.value(id)?.iter().map(linear).collect();
            store.set(id, &values)?;
        }
        Ok(Self { model, store })
    }

    /// The score of one network.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn score(&mut self, arch: &Arch) -> Result<f64> {
        let input = self.model.space().input();
        let device = self.store.device().clone();
        let shape = [1, input.size, input.size, input.channels];
        let ones = vec![IMAGE; shape.iter().product()];
        let statistics = self.model.fresh_statistics(&device)?;
        let mut tape = Tape::new(&device);
        let x = tape.constant(Tensor::from_slice(&device, shape, &ones)?);
        let norms = Norms::Frozen(&statistics);
        let logits = self.model.forward(
            &mut Context { tape: &mut tape, store: &self.store, norms, dropout: None },
            arch,
            &x,
        )?;
        let seed = Tensor::from_slice(&device, logits.shape(), &vec![1f32; logits.shape().len()])?;
        tape.backward_from(&logits, seed, &mut self.store)?;
        drop(logits);
        let mut sum = 0.0;
        for (id, _) in self.store.touched() {
            if self.store.param(id).kind == ParamKind::Weight {
                let (values, grads) = (self.store.value(id)?, self.store.grad(id)?);
                let products = values.iter().zip(grads.iter());
                sum += products.map(|(w, g)| (f64::from(*w) * f64::from(*g)).abs()).sum::<f64>();
            }
        }
        self.store.clear_touched()?;
        Ok(sum.ln() - f64::from(IMAGE).ln())
    }
}

/// The sum over convolution and linear weights of the norm of the loss's gradient, for one batch of training
/// images under batch statistics.
///
/// # Errors
/// What the engine returns.
pub fn gradient_norm(
    model: &Model,
    store: &mut ParamStore,
    arch: &Arch,
    images: &Tensor,
    labels: &[i32],
) -> Result<f64> {
    let device = store.device().clone();
    let mut tape = Tape::new(&device);
    let x = tape.constant(images.clone());
    let y = tape.constant(Tensor::from_slice(&device, [labels.len()], labels)?);
    let mut moments = Vec::new();
    let norms = Norms::Batch(&mut moments);
    let logits = model.forward(&mut Context { tape: &mut tape, store, norms, dropout: None }, arch, &x)?;
    let loss = tape.apply(ops::SoftmaxCrossEntropy { smoothing: 0.0 }, &[&logits, &y])?;
    drop(logits);
    tape.backward(&loss, 1.0, store)?;
    drop(loss);
    let norm = |gradient: &[f32]| gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let mut sum = 0.0;
    for (id, _) in store.touched() {
        if store.param(id).kind == ParamKind::Weight {
            sum += norm(&store.grad(id)?);
        }
    }
    store.clear_touched()?;
    Ok(sum)
}
