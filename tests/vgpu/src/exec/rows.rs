//! The register file of a warp: rows of 32 lanes, constants beside them, predicates as bit masks.

use crate::ptx::inst::{CONST, NEG, Slot};

/// One row: 32 lanes of 32 bits, or half of a row of 64-bit lanes.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
pub(crate) struct Row(pub [u32; 32]);

/// All lanes active.
pub(crate) const FULL: u32 = u32::MAX;

/// What instructions read and write.
pub(crate) struct Rows<'r> {
    pub own: &'r mut [Row],
    pub consts: &'r [Row],
    pub preds: &'r mut [u32],
    /// Carry flags by lane.
    pub carry: &'r mut u32,
}

impl Rows<'_> {
    /// A row of 32-bit lanes.
    #[inline(always)]
    pub(crate) fn r32(&self, s: Slot) -> &[u32; 32] {
        if s & CONST != 0 { &self.consts[(s ^ CONST) as usize].0 } else { &self.own[s as usize].0 }
    }

    /// A row of 64-bit lanes.
    #[inline(always)]
    pub(crate) fn r64(&self, s: Slot) -> &[u64; 32] {
        let rows = if s & CONST != 0 {
            let s = (s ^ CONST) as usize;
            &self.consts[s..s + 2]
        } else {
            &self.own[s as usize..s as usize + 2]
        };
        // SAFETY: two adjacent rows are 256 bytes aligned to 128, as 32 u64 need; every bit pattern is valid.
        unsafe { &*(rows.as_ptr() as *const [u64; 32]) }
    }

    /// Lanes of the given width, zero-extended.
    #[inline(always)]
    pub(crate) fn lane(&self, s: Slot, wide: bool, lane: usize) -> u64 {
        if wide { self.r64(s)[lane] } else { u64::from(self.r32(s)[lane]) }
    }

    #[inline(always)]
    pub(crate) fn w32(&mut self, s: Slot) -> &mut [u32; 32] {
        &mut self.own[s as usize].0
    }

    #[inline(always)]
    pub(crate) fn w64(&mut self, s: Slot) -> &mut [u64; 32] {
        let rows = &mut self.own[s as usize..s as usize + 2];
        // SAFETY: as in `r64`; the borrow of the rows is exclusive.
        unsafe { &mut *(rows.as_mut_ptr() as *mut [u64; 32]) }
    }

    /// Writes the active lanes.
    #[inline(always)]
    pub(crate) fn put32(&mut self, s: Slot, m: u32, v: &[u32; 32]) {
        let d = self.w32(s);
        if m == FULL {
            *d = *v;
        } else {
            for i in 0..32 {
                d[i] = if m >> i & 1 != 0 { v[i] } else { d[i] };
            }
        }
    }

    /// Writes the active lanes.
    #[inline(always)]
    pub(crate) fn put64(&mut self, s: Slot, m: u32, v: &[u64; 32]) {
        let d = self.w64(s);
        if m == FULL {
            *d = *v;
        } else {
            for i in 0..32 {
                d[i] = if m >> i & 1 != 0 { v[i] } else { d[i] };
            }
        }
    }

    /// A predicate operand, negated if it says so.
    #[inline(always)]
    pub(crate) fn pred(&self, p: u32) -> u32 {
        self.preds[(p & !NEG) as usize] ^ if p & NEG != 0 { FULL } else { 0 }
    }

    /// Writes the active lanes of a predicate.
    #[inline(always)]
    pub(crate) fn put_pred(&mut self, p: u32, m: u32, v: u32) {
        let d = &mut self.preds[p as usize];
        *d = *d & !m | v & m;
    }
}
