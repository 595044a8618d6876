//! The angle of a child's weights (ABS, section 3.2 and algorithm 1).
//!
//! The weight vector of a child is the concatenation, over its paths from input to output, of the kernels met
//! along them, and of the kernels of the fixed layers. A chain has one path. Norms and biases are left out; an
//! identity adds nothing. Since a vector is a concatenation, the products of two are sums over its parts: the
//! parts' products are taken once, in f64, and the angle of any child costs a sum over its slots.

use std::ops::{Add, AddAssign};

use engine::{ParamKind, ParamStore};

use crate::arch::Arch;
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
    pub fn new(space: &Space, base: &[f32], store: &ParamStore) -> Self {
        let mut operators: Vec<Vec<Products>> =
            space.slots().iter().map(|slot| vec![Products::default(); slot.choices.len()]).collect();
        let mut fixed = Products::default();
        for (id, param) in store.ids().zip(store.table()) {
            if param.kind != ParamKind::Weight {
                continue;
            }
            let products = Products::of(&base[param.range()], store.value(id));
            match owner(space, &param.name) {
                Some((slot, choice)) => operators[slot][choice] += products,
                None => fixed += products,
            }
        }
        Self { fixed, operators }
    }

    /// The angle of a child of the space, in radians.
    pub fn of(&self, arch: &Arch) -> f64 {
        let chosen: Products =
            self.operators.iter().zip(arch.choices()).map(|(slot, &choice)| slot[usize::from(choice)]).sum();
        (self.fixed + chosen).angle()
    }
}

/// The slot and choice that a parameter belongs to by its name; `None` for those of fixed layers.
fn owner(space: &Space, name: &str) -> Option<(usize, usize)> {
    // `stage2.slot1.mb_k5_e6.expand.weight`; no label holds a dot.
    let mut parts = name.split('.');
    let (stage, slot, label) = (parts.next()?, parts.next()?, parts.next()?);
    let at = space.slots().iter().position(|s| s.name.split_once('.') == Some((stage, slot)))?;
    Some((at, space.slots()[at].choices.iter().position(|c| c.label == label)?))
}
