//! Where a number that is not finite comes from: the first layer of a path that gives one.

use engine::{ParamStore, Tape, Tensor};

use crate::arch::Arch;
use crate::error::Result;
use crate::model::{Context, Model, Norms};

/// What of a forward pass over `images` `[n, h, w, c]` is the first that is not finite: a parameter, the
/// output of a layer or candidate, or the images themselves; `None` if everything is finite. Each is named as
/// parameters are: `stage2.slot1.mb_k5_e6`.
///
/// # Errors
/// What the engine returns.
pub fn first_not_finite(
    model: &Model,
    store: &ParamStore,
    arch: &Arch,
    images: &Tensor,
) -> Result<Option<String>> {
    let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
    if !finite(&images.on_host()?) {
        return Ok(Some("an image".to_owned()));
    }
    let mut tape = Tape::inference(store.device());
    let mut x = tape.constant(images.clone());
    for at in 0..model.depth() {
        let name = model.segment_name(at, arch);
        let prefix = format!("{name}.");
        for id in store.ids().filter(|&id| store.param(id).name.starts_with(&prefix)) {
            if !finite(&store.value(id)?) {
                return Ok(Some(store.param(id).name.clone()));
            }
        }
        let mut moments = Vec::new();
        let norms = Norms::Batch(&mut moments);
        x = model.segment(&mut Context { tape: &mut tape, store, norms, dropout: None }, arch, at, &x)?;
        if !finite(&x.tensor().on_host()?) {
            return Ok(Some(format!("the output of {name}")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use engine::{Cpu, Rng};

    use super::*;
    use crate::model::NormParams;
    use crate::space::Space;

    #[test]
    fn the_first_culprit_of_a_path_is_named_and_others_are_not() {
        let cpu = Cpu::new(1).unwrap();
        let space = Space::load("quickstart").unwrap();
        let model = Model::new(&space, NormParams::Affine).unwrap();
        let rng = Rng::new(0, "blame");
        let store = model.init(&cpu, &rng).unwrap();
        let pixels = |value: f32| Tensor::from_slice(&cpu, [2, 28, 28, 1], &vec![value; 2 * 784]).unwrap();
        let arch = space.first();
        let ask =
            |store: &ParamStore, value: f32| first_not_finite(&model, store, &arch, &pixels(value)).unwrap();
        assert_eq!(ask(&store, 0.5), None);
        assert_eq!(ask(&store, f32::NAN).as_deref(), Some("an image"));
        // Every parameter in turn: one of the path is named, another one is not the path's business.
        let label =
            |slot: usize| format!("{}.{}.", space.slots()[slot].name, space.slots()[slot].choices[0].label);
        let mut named = 0;
        for id in store.ids() {
            let mut store = model.init(&cpu, &rng).unwrap();
            store.value_mut(id).unwrap()[0] = f32::NAN;
            let name = store.param(id).name.clone();
            let of_path = !name.starts_with("stage")
                || (0..space.slots().len()).any(|slot| name.starts_with(&label(slot)));
            assert_eq!(ask(&store, 0.5), of_path.then_some(name));
            named += u32::from(of_path);
        }
        assert!(named > 10);
        // Finite weights, infinite sums: the layer is named.
        let mut store = store;
        let weights = |id: &engine::ParamId| store.param(*id).name.ends_with(".weight");
        let last = store.ids().filter(weights).last().unwrap();
        store.value_mut(last).unwrap().fill(f32::MAX);
        assert_eq!(ask(&store, 0.5).as_deref(), Some("the output of head.2"));
    }
}
