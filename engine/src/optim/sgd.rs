//! Stochastic gradient descent with momentum, as in PyTorch.
//!
//! `g += decay * p; m = momentum * m + g; p -= lr * (nesterov ? g + momentum * m : m)`, for touched
//! elements alone: momenta of everything else stand still.

use std::borrow::Cow;
use std::ops::Range;

use crate::cuda::Cuda;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::params::{ParamId, ParamKind, ParamStore, row};
use crate::tensor::Tensor;

/// Elements per task.
const CHUNK: usize = 1 << 14;

/// Which parameters decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightDecay {
    /// Convolution and linear weights alone (SPOS section 5).
    Weights,
    /// Everything, as `torch.optim.SGD` over all parameters does.
    All,
}

impl WeightDecay {
    fn applies(self, kind: ParamKind) -> bool {
        self == WeightDecay::All || kind == ParamKind::Weight
    }
}

/// Settings of [`Sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdConfig {
    /// Momentum, 0 to below 1.
    pub momentum: f32,
    /// Nesterov's variant.
    pub nesterov: bool,
    /// Weight decay (L2), 0 or more.
    pub decay: f32,
    /// What decays.
    pub decays: WeightDecay,
}

/// The optimiser with its momenta.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    momenta: Tensor,
    /// Updates each parameter has had.
    steps: Vec<u64>,
}

impl Sgd {
    /// An optimiser for `store` with all momenta zero.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting outside its range; [`Error::OutOfMemory`].
    pub fn new(store: &ParamStore, config: SgdConfig) -> Result<Self> {
        if !(0.0..1.0).contains(&config.momentum) {
            let value = config.momentum.to_string();
            return Err(Error::Setting { name: "momentum", value, range: "0 to below 1" });
        }
        if config.decay.is_nan() || config.decay < 0.0 {
            let value = config.decay.to_string();
            return Err(Error::Setting { name: "weight-decay", value, range: "0 or more" });
        }
        let momenta = Tensor::zeros(store.device(), [store.elements()])?;
        Ok(Self { config, momenta, steps: vec![0; store.table().len()] })
    }

    /// The settings.
    pub fn config(&self) -> &SgdConfig {
        &self.config
    }

    /// Momentum buffer of one parameter, copied.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn momentum(&self, store: &ParamStore, id: ParamId) -> Result<Vec<f32>> {
        let param = store.param(id);
        self.momenta.view(param.offset, param.shape)?.to_host()
    }

    /// Updates one parameter has had.
    pub fn steps(&self, id: ParamId) -> u64 {
        self.steps[id.index()]
    }

    /// All momenta, laid out as the store's values: borrowed from the host's memory, copied from a GPU's.
    ///
    /// # Errors
    /// [`Error::Driver`].
    pub fn momenta(&self) -> Result<Cow<'_, [f32]>> {
        self.momenta.on_host()
    }

    /// Step counts of all parameters, in table order.
    pub fn all_steps(&self) -> &[u64] {
        &self.steps
    }

    /// Puts back the state that [`Sgd::momenta`] and [`Sgd::all_steps`] gave.
    ///
    /// # Errors
    /// [`Error::Elements`] if either has another length.
    pub fn restore(&mut self, momenta: &[f32], steps: &[u64]) -> Result<()> {
        let shape = self.momenta.shape();
        if momenta.len() != shape.len() {
            return Err(Error::Elements { shape, expected: shape.len(), found: momenta.len() });
        }
        if steps.len() != self.steps.len() {
            let shape = [self.steps.len().max(1)].into();
            return Err(Error::Elements { shape, expected: self.steps.len(), found: steps.len() });
        }
        self.momenta.write(momenta)?;
        self.steps.copy_from_slice(steps);
        Ok(())
    }

    /// Updates the touched parameters with learning rate `lr`, zeroes their gradients and empties
    /// the touched set. Values and momenta stay as they are where the step was spoilt ([`ParamStore::check_finite`]);
    /// counts advance all the same, since a GPU has not said so yet.
    ///
    /// # Errors
    /// [`Error::InUse`] while a [`crate::tape::Var`] still holds parameters; what a GPU's driver says.
    pub fn step(&mut self, store: &mut ParamStore, lr: f32) -> Result<()> {
        // Parameters lie in the order of their ids, so the ranges are in order, too.
        let touched = store.touched();
        let decay =
            |id| if self.config.decays.applies(store.param(id).kind) { self.config.decay } else { 0.0 };
        let ranges: Vec<(Range<usize>, f32)> = touched
            .iter()
            .flat_map(|(id, ranges)| ranges.iter().map(|range| (range.clone(), decay(*id))))
            .collect();
        touched.iter().for_each(|(id, _)| self.steps[id.index()] += 1);
        match store.device().clone() {
            Device::Cpu(_) if store.spoilt().slice::<i32>()? != [0] => store.clear_touched()?,
            Device::Cpu(cpu) => {
                let (mut pieces, mut decays): (Vec<Range<usize>>, Vec<f32>) = Default::default();
                for (range, decay) in ranges {
                    let cuts = range.clone().step_by(CHUNK);
                    pieces.extend(cuts.map(|from| from..range.end.min(from + CHUNK)));
                    decays.resize(pieces.len(), decay);
                }
                let (values, grads) = store.values_and_grads_mut()?;
                let SgdConfig { momentum, nesterov, .. } = self.config;
                let momenta = self.momenta.f32_mut()?;
                cpu.pool().parallel_ranges([values, grads, momenta], &pieces, |i, [p, g, m]| {
                    for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
                        let grad = *g + decays[i] * *p;
                        *m = momentum * *m + grad;
                        *p -= lr * if nesterov { grad + momentum * *m } else { *m };
                        *g = 0.0;
                    }
                });
            }
            Device::Cuda(cuda) => self.launch(&cuda, store, &ranges, lr)?,
        }
        // Their gradients are zero already.
        store.forget_touched();
        Ok(())
    }

    /// One launch over all ranges; the table of them and the learning rate go over in one copy.
    fn launch(
        &mut self,
        cuda: &Cuda,
        store: &mut ParamStore,
        ranges: &[(Range<usize>, f32)],
        lr: f32,
    ) -> Result<()> {
        let rows: Vec<_> = ranges.iter().map(|(range, decay)| row(range, *decay)).collect();
        let SgdConfig { momentum, nesterov, .. } = self.config;
        cuda.sgd(&rows, [momentum, lr], nesterov, store.flat(&mut self.momenta)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::params::Layout;

    fn setup(config: SgdConfig) -> (ParamStore, Sgd, ParamId, ParamId) {
        let cpu = Cpu::new(2).unwrap();
        let mut layout = Layout::new();
        let w = layout.add("w", [2, 2], ParamKind::Weight).unwrap();
        let b = layout.add("b", [2], ParamKind::Bias).unwrap();
        let mut store = layout.build(&cpu).unwrap();
        store.value_mut(w).unwrap().copy_from_slice(&[1., 2., 3., 4.]);
        store.value_mut(b).unwrap().copy_from_slice(&[5., 6.]);
        let sgd = Sgd::new(&store, config).unwrap();
        (store, sgd, w, b)
    }

    const PLAIN: SgdConfig =
        SgdConfig { momentum: 0.9, nesterov: false, decay: 0.1, decays: WeightDecay::Weights };

    fn give(store: &mut ParamStore, id: ParamId, grad: &[f32]) {
        store.touch(id, None);
        let grad = Tensor::from_slice(store.device(), [grad.len()], grad).unwrap();
        store.scatter_add(id, None, &grad).unwrap();
    }

    #[test]
    fn two_steps_follow_the_formula() {
        for nesterov in [false, true] {
            let (mut store, mut sgd, w, _) = setup(SgdConfig { nesterov, ..PLAIN });
            for _ in 0..2 {
                give(&mut store, w, &[1.0; 4]);
                sgd.step(&mut store, 0.1).unwrap();
            }
            let hand = |p: f32| {
                let (mut p, mut m) = (p, 0.0);
                for _ in 0..2 {
                    let g = 1.0 + 0.1 * p;
                    m = 0.9 * m + g;
                    p -= 0.1 * if nesterov { g + 0.9 * m } else { m };
                }
                p
            };
            assert!((store.value(w).unwrap()[0] - hand(1.0)).abs() < 1e-6);
            assert!((store.value(w).unwrap()[1] - hand(2.0)).abs() < 1e-6);
        }
    }

    #[test]
    fn untouched_parameters_keep_weight_momentum_and_count() {
        let (mut store, mut sgd, w, b) = setup(SgdConfig { decays: WeightDecay::All, ..PLAIN });
        give(&mut store, w, &[1.0; 4]);
        give(&mut store, b, &[1.0; 2]);
        sgd.step(&mut store, 0.1).unwrap();
        let (value, momentum) = (store.value(b).unwrap().to_vec(), sgd.momentum(&store, b).unwrap());
        give(&mut store, w, &[1.0; 4]);
        sgd.step(&mut store, 0.1).unwrap();
        assert_eq!(*store.value(b).unwrap(), value);
        assert_eq!(sgd.momentum(&store, b).unwrap(), momentum);
        assert_eq!((sgd.steps(w), sgd.steps(b)), (2, 1));
    }

    #[test]
    fn decay_spares_biases_unless_asked() {
        let (mut store, mut sgd, _, b) = setup(PLAIN);
        give(&mut store, b, &[0.0; 2]);
        sgd.step(&mut store, 0.1).unwrap();
        assert_eq!(*store.value(b).unwrap(), [5., 6.]);
        let (mut store, mut sgd, _, b) = setup(SgdConfig { decays: WeightDecay::All, ..PLAIN });
        give(&mut store, b, &[0.0; 2]);
        sgd.step(&mut store, 0.1).unwrap();
        assert!(store.value(b).unwrap()[0] < 5.0);
    }

    #[test]
    fn a_spoilt_step_changes_nothing_until_it_is_forgiven() {
        let (mut store, mut sgd, w, _) = setup(PLAIN);
        give(&mut store, w, &[1.0; 4]);
        sgd.step(&mut store, 0.1).unwrap();
        let before = (store.values().unwrap().to_vec(), sgd.momenta().unwrap().to_vec());
        let (bad, fine) = ([f32::NAN, f32::INFINITY], 1.0);
        for (grad, other) in bad.map(|bad| [(bad, fine), (fine, bad)]).concat() {
            give(&mut store, w, &[1.0, grad, 1.0, 1.0]);
            store.clip_grad_norm(f32::INFINITY).unwrap();
            let other = Tensor::full(store.device(), [1], other).unwrap();
            store.check_finite(&other).unwrap();
            sgd.step(&mut store, 0.1).unwrap();
            // A step behind it, which was sent before anybody knew.
            give(&mut store, w, &[1.0; 4]);
            sgd.step(&mut store, 0.1).unwrap();
            assert_eq!(store.spoilt().to_host::<i32>().unwrap(), [1]);
            assert_eq!((store.values().unwrap().to_vec(), sgd.momenta().unwrap().to_vec()), before);
            assert_eq!(*store.grad(w).unwrap(), [0.0; 4]);
            store.forgive().unwrap();
        }
        give(&mut store, w, &[1.0; 4]);
        sgd.step(&mut store, 0.1).unwrap();
        assert_ne!(*store.values().unwrap(), *before.0);
    }

    #[test]
    fn a_step_zeroes_the_touched_gradients() {
        let (mut store, mut sgd, w, _) = setup(PLAIN);
        give(&mut store, w, &[1.0; 4]);
        sgd.step(&mut store, 0.1).unwrap();
        assert_eq!(*store.grad(w).unwrap(), [0.0; 4]);
        assert!(store.touched().is_empty());
    }
}
