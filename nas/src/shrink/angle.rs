//! The angle of a child's weights (ABS, section 3.2 and algorithm 1).
//!
//! The weight vector of a child is the concatenation, over its paths from input to output, of the kernels met
//! along them, and of the kernels of the fixed layers. A chain has one path. Norms and biases are left out; an
//! identity adds nothing. Since a vector is a concatenation, the products of two are sums over its parts: the
//! parts' products are taken once, in f64, and the angle of any child costs a sum over its slots.

use std::ops::{Add, AddAssign};

use engine::{ParamKind, ParamStore};

use crate::arch::Arch;
use crate::error::Result;
use crate::space::Space;

/// The inner products of a part of the weight vector at its base, W0, and now, Wt.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Products {
    /// ⟨W0, Wt⟩.
    pub dot: f64,
    /// ⟨W0, W0⟩.
    pub base: f64,
    /// ⟨Wt, Wt⟩.
    pub now: f64,
}

impl Products {
    /// Of one kernel.
    pub fn of(base: &[f32], now: &[f32]) -> Self {
        let mut sum = Products::default();
        for (&base, &now) in base.iter().zip(now) {
            let (base, now) = (f64::from(base), f64::from(now));
            sum += Products { dot: base * now, base: base * base, now: now * now };
        }
        sum
    }

    /// The angle between the vectors in radians, 0 to π. A vector of zeros, or without entries, has not turned.
    pub fn angle(&self) -> f64 {
        let norms = (self.base * self.now).sqrt();
        if norms > 0.0 { (self.dot / norms).clamp(-1.0, 1.0).acos() } else { 0.0 }
    }
}

impl Add for Products {
    type Output = Products;
    fn add(self, other: Products) -> Products {
        Products { dot: self.dot + other.dot, base: self.base + other.base, now: self.now + other.now }
    }
}

impl AddAssign for Products {
    fn add_assign(&mut self, other: Products) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Products {
    fn sum<I: Iterator<Item = Products>>(parts: I) -> Products {
        parts.fold(Products::default(), Add::add)
    }
}

/// The angles of all children of a space between two states of the supernet's weights.
#[derive(Clone, Debug)]
pub struct Angles {
    fixed: Products,
    /// By slot and choice.
    operators: Vec<Vec<Products>>,
}

impl Angles {
    /// Between `base`, laid out as [`ParamStore::values`], and what `store` holds now.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn new(space: &Space, base: &[f32], store: &ParamStore) -> Result<Self> {
        let now = store.values()?;
        let mut operators: Vec<Vec<Products>> =
            space.slots().iter().map(|slot| vec![Products::default(); slot.choices.len()]).collect();
        let mut fixed = Products::default();
        for param in store.table() {
            if param.kind != ParamKind::Weight {
                continue;
            }
            let products = Products::of(&base[param.range()], &now[param.range()]);
            match slot_of(space, &param.name) {
                None => fixed += products,
                // A candidate that was dropped is in no child.
                Some((slot, label)) => {
                    let choices = &space.slots()[slot].choices;
                    if let Some(choice) = choices.iter().position(|c| c.label == label) {
                        operators[slot][choice] += products;
                    }
                }
            }
        }
        Ok(Self { fixed, operators })
    }

    /// The angle of a child of the space, in radians.
    pub fn of(&self, arch: &Arch) -> f64 {
        let chosen: Products =
            self.operators.iter().zip(arch.choices()).map(|(slot, &choice)| slot[usize::from(choice)]).sum();
        (self.fixed + chosen).angle()
    }
}

/// The slot and the candidate that a parameter belongs to by its name; `None` for those of fixed layers.
fn slot_of<'a>(space: &Space, name: &'a str) -> Option<(usize, &'a str)> {
    // `stage2.slot1.mb_k5_e6.expand.weight`; no label holds a dot.
    let mut parts = name.splitn(4, '.');
    let (stage, slot, label) = (parts.next()?, parts.next()?, parts.next()?);
    let at = space.slots().iter().position(|s| s.name.split_once('.') == Some((stage, slot)))?;
    Some((at, label))
}

#[cfg(test)]
mod tests {
    use engine::{Cpu, Rng};

    use super::*;
    use crate::model::{Model, NormParams};

    /// Weights at two moments: independent ones, so that every operator has turned.
    fn weights(space: &Space) -> (Vec<f32>, ParamStore) {
        let cpu = Cpu::new(1).unwrap();
        let model = Model::new(space, NormParams::Supernet).unwrap();
        let base = model.init(&cpu, &Rng::new(0, "base")).unwrap().values().unwrap().to_vec();
        (base, model.init(&cpu, &Rng::new(0, "now")).unwrap())
    }

    /// By the definition: the kernels that a child meets, one after another, in f64.
    fn slow(space: &Space, base: &[f32], store: &ParamStore, arch: &Arch) -> f64 {
        let mut v: [Vec<f64>; 2] = Default::default();
        for (id, param) in store.ids().zip(store.table()) {
            let chosen = |(slot, label): (&crate::space::Slot, &str)| {
                param.name.starts_with(&format!("{}.{label}.", slot.name))
            };
            let met =
                !param.name.starts_with("stage") || space.slots().iter().zip(space.labels(arch)).any(chosen);
            if met && param.kind == ParamKind::Weight {
                v[0].extend(base[param.range()].iter().map(|&w| f64::from(w)));
                v[1].extend(store.value(id).unwrap().iter().map(|&w| f64::from(w)));
            }
        }
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        (dot(&v[0], &v[1]) / (dot(&v[0], &v[0]) * dot(&v[1], &v[1])).sqrt()).acos()
    }

    #[test]
    fn the_angle_of_a_child_is_that_of_its_concatenated_kernels() {
        for name in ["quickstart", "nas-bench-macro", "spos-cifar"] {
            let space = Space::load(name).unwrap();
            let (base, store) = weights(&space);
            let angles = Angles::new(&space, &base, &store).unwrap();
            for i in 0..20 {
                let arch = space.sample(&mut Rng::new(1, "child").at(0, 0, i));
                let want = slow(&space, &base, &store, &arch);
                assert!((angles.of(&arch) - want).abs() < 1e-12, "{name} {}", space.text(&arch));
            }
        }
    }

    #[test]
    fn equal_weights_have_not_turned_and_scale_turns_nothing() {
        let space = Space::load("quickstart").unwrap();
        let (base, mut store) = weights(&space);
        let turned = Angles::new(&space, &base, &store).unwrap().of(&space.largest());
        assert!(turned > 1.0);
        assert_eq!(Angles::new(&space, &store.values().unwrap(), &store).unwrap().of(&space.largest()), 0.0);
        for id in store.ids() {
            store.value_mut(id).unwrap().iter_mut().for_each(|w| *w *= 3.0);
        }
        assert!((Angles::new(&space, &base, &store).unwrap().of(&space.largest()) - turned).abs() < 1e-6);
    }

    #[test]
    fn an_identity_adds_nothing_and_what_stands_still_lowers_the_angle() {
        let moving = Products { dot: 3.0, base: 4.0, now: 9.0 };
        assert_eq!((moving + Products::default()).angle(), moving.angle());
        assert_eq!(Products::default().angle(), 0.0);
        // Pooling's constant pseudo-kernel, the same in both vectors.
        let constant = Products::of(&[1.0 / 9.0; 81], &[1.0 / 9.0; 81]);
        assert_eq!(constant.angle(), 0.0);
        assert!((moving + constant).angle() < moving.angle());
        assert_eq!(Products { dot: -4.0, base: 4.0, now: 4.0 }.angle(), std::f64::consts::PI);
    }

    #[test]
    fn dropped_candidates_leave_the_angles_of_the_rest() {
        let space = Space::load("quickstart").unwrap();
        let (base, store) = weights(&space);
        let part = space.without(&[(0, 0), (3, 1), (3, 2)]).unwrap();
        let arch = part.sample(&mut Rng::new(0, "child").at(0, 0, 0));
        let whole = space.parse(&part.text(&arch)).unwrap();
        assert_eq!(
            Angles::new(&part, &base, &store).unwrap().of(&arch),
            Angles::new(&space, &base, &store).unwrap().of(&whole)
        );
    }
}
