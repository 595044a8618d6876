//! The typed instruction set: what the decoder makes and the interpreter runs.
//!
//! Every operand is a slot: a row of 32 lanes in the warp's register file (two rows for 64 bits), or a row of
//! constants if the top bit is set. Predicates are bit masks with their own numbers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::counters::Class;

use super::types::{Bool, Cmp, Rnd, Space, Ty, W};

/// A row of the register file, or of the constants if [`CONST`] is set.
pub(crate) type Slot = u32;
/// Marks a slot of constants.
pub(crate) const CONST: u32 = 1 << 31;
/// Marks a negated predicate operand.
pub(crate) const NEG: u32 = 1 << 31;
/// The predicate that is always true.
pub(crate) const TRUE: u32 = 0;
/// The predicate that takes results nobody wants.
pub(crate) const NOWHERE: u32 = 1;

/// Two-operand integer instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum I2 {
    Add,
    AddSat,
    Sub,
    SubSat,
    Mul,
    MulHiS,
    MulHiU,
    Mul24LoS,
    Mul24LoU,
    Mul24HiS,
    Mul24HiU,
    DivS,
    DivU,
    RemS,
    RemU,
    MinS,
    MinU,
    MaxS,
    MaxU,
    And,
    Or,
    Xor,
    Shl,
    ShrS,
    ShrU,
    BmskClamp,
    BmskWrap,
    SzextClampS,
    SzextClampU,
    SzextWrapS,
    SzextWrapU,
}

/// One-operand integer instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum I1 {
    Neg,
    Abs,
    Not,
    Cnot,
    Brev,
    Popc,
    Clz,
    BfindS,
    BfindU,
    BfindShiftS,
    BfindShiftU,
}

/// Three-operand integer instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum I3 {
    Mad,
    MadHiS,
    MadHiU,
    MadHiSat,
    Mad24LoS,
    Mad24LoU,
    Mad24HiS,
    Mad24HiU,
    SadS,
    SadU,
    BfeS,
    BfeU,
    ShfLClamp,
    ShfLWrap,
    ShfRClamp,
    ShfRWrap,
    Dp4a { a: bool, b: bool },
    Dp2aLo { a: bool, b: bool },
    Dp2aHi { a: bool, b: bool },
}

/// Modes of `prmt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prmt {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

/// Rounding and range of a floating-point instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fm {
    pub rnd: Rnd,
    /// Subnormal inputs and results become zero.
    pub ftz: bool,
    /// Clamp to [0, 1], NaN to 0.
    pub sat: bool,
}

impl Fm {
    pub(crate) const PLAIN: Fm = Fm { rnd: Rnd::Rn, ftz: false, sat: false };
}

/// Two-operand floating-point instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum F2 {
    Add,
    Sub,
    Mul,
    Div,
    DivApprox,
    DivFull,
    Min,
    Max,
    MinNan,
    MaxNan,
    MinXorsign,
    MaxXorsign,
    MinNanXorsign,
    MaxNanXorsign,
    CopySign,
}

/// One-operand floating-point instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum F1 {
    Neg,
    Abs,
    Sqrt,
    Rcp,
    SqrtApprox,
    RcpApprox,
    RsqrtApprox,
    Sin,
    Cos,
    Lg2,
    Ex2,
    Tanh,
}

/// Questions of `testp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Testp {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// The two 16-bit floating-point formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfKind {
    F16,
    Bf16,
}

/// Format and packing of a 16-bit floating-point instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Half {
    pub kind: HalfKind,
    pub packed: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

/// A conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cvt {
    pub to: Ty,
    pub from: Ty,
    pub rnd: Rnd,
    /// Round to an integer value (`rni` and its kin).
    pub integral: bool,
    pub ftz: bool,
    pub sat: bool,
    pub relu: bool,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compare {
    pub ty: Ty,
    pub cmp: Cmp,
    pub ftz: bool,
}

/// A load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mem {
    pub space: Space,
    /// Type of one element in memory.
    pub ty: Ty,
    /// Elements per lane.
    pub vec: u8,
    /// `volatile`, `relaxed`, `acquire`, `release`: takes part in synchronisation.
    pub strong: bool,
    /// The address register has 64 bits.
    pub wide: bool,
}

/// What an atomic does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomOp {
    And,
    Or,
    Xor,
    Cas,
    Exch,
    Add,
    Inc,
    Dec,
    Min,
    Max,
}

/// An atomic or reduction in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Atom {
    pub space: Space,
    pub ty: Ty,
    pub op: AtomOp,
    pub wide: bool,
    /// False for `red`: no result.
    pub result: bool,
}

/// Modes of `shfl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shfl {
    Up,
    Down,
    Bfly,
    Idx,
}

/// Modes of `vote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// Operations of `redux`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redux {
    Add,
    MinS,
    MinU,
    MaxS,
    MaxU,
    And,
    Or,
    Xor,
}

/// Instructions that the named lanes of a warp execute together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WarpOp {
    /// d, a = value, b = lane, c = clamp and segment; second result: predicate.
    Shfl(Shfl),
    Vote(Vote),
    MatchAny(W),
    MatchAll(W),
    Redux(Redux),
    /// `bar.warp.sync`.
    Barrier,
}

/// What a block barrier does with predicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarRed {
    Popc,
    And,
    Or,
}

/// A block barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bar {
    /// Arrive without waiting.
    pub arrive: bool,
    /// All lanes of a warp come together.
    pub aligned: bool,
    /// A thread count is given.
    pub counted: bool,
    pub red: Option<BarRed>,
}

/// Shapes of matrix instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaShape {
    M16N8K4,
    M16N8K8,
    M16N8K16,
}

/// Shapes of warp matrix instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WmmaShape {
    M16N16K16,
    M32N8K16,
    M8N32K16,
    M16N16K8,
}

impl WmmaShape {
    /// (m, n, k).
    pub(crate) fn mnk(self) -> (usize, usize, usize) {
        match self {
            WmmaShape::M16N16K16 => (16, 16, 16),
            WmmaShape::M32N8K16 => (32, 8, 16),
            WmmaShape::M8N32K16 => (8, 32, 16),
            WmmaShape::M16N16K8 => (16, 16, 8),
        }
    }
}

/// Which matrix of D = A B + C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    A,
    B,
    C,
}

/// What to do. Operands are in [`Inst`]; "more" means that `d` is an index into [`Code::more`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Int2(I2, W),
    Int1(I1, W),
    Int3(I3, W),
    /// Double-width product of `W` operands.
    MulWide(bool, W),
    MadWide(bool, W),
    /// d = a with bits (more: a, b, position, length).
    Bfi(W),
    /// a, b, c; the mode.
    Prmt(Prmt),
    /// a, b, c; the table.
    Lop3(u8),
    /// Sum or difference with carry in and out.
    Carry {
        sub: bool,
        cin: bool,
        cout: bool,
        w: W,
    },
    /// a * b + c, low or high half, with carry in and out.
    MadCarry {
        hi: bool,
        signed: bool,
        cin: bool,
        cout: bool,
    },
    F32(F2, Fm),
    F32Fma(Fm),
    F32One(F1, Fm),
    F64(F2, Rnd),
    F64Fma(Rnd),
    F64One(F1, Rnd),
    Half2(F2, Half),
    HalfFma(Half),
    HalfOne(F1, Half),
    /// d = predicate.
    Testp(Testp, W),
    /// d = two predicates (low, high half), c = predicate to combine with.
    Setp(Compare, Option<Bool>),
    /// Packed comparison: d = predicates of the low and the high half.
    SetpPacked(Compare, Option<Bool>),
    /// As `Setp`, result 1.0 or all ones of a type; a packed type has two results.
    Set {
        cmp: Compare,
        comb: Option<Bool>,
        to: Ty,
    },
    /// c = predicate.
    Selp(W),
    /// c decides by its sign: an integer or a float (with ftz).
    Slct {
        w: W,
        float: bool,
        ftz: bool,
    },
    PredAnd,
    PredOr,
    PredXor,
    PredMov,
    PredNot,
    Mov(W),
    /// d from parts (more: d, parts).
    Pack {
        parts: u8,
        part: W,
    },
    /// Parts from a (more: parts); a is in `a`.
    Unpack {
        parts: u8,
        part: W,
    },
    Cvt(Cvt),
    /// d = (a in the upper half, b in the lower half).
    CvtPack {
        kind: HalfKind,
        rnd: Rnd,
        relu: bool,
    },
    /// Instructions executed by the warp so far, as a stand-in for a clock.
    Clock(W),
    /// Adds or takes away the base of a window (in the constant b).
    ToGeneric(Space),
    FromGeneric(Space),
    /// d = predicate, a = generic address.
    IsSpace(Space),
    /// more if vec > 1; a = address, b = offset.
    Ld(Mem),
    /// more if vec > 1; a = address, b = offset; values in d.
    St(Mem),
    /// more: d, b, c; a = address, b = offset.
    Atom(Atom),
    /// a = address in shared memory, b = address in global memory, c = bytes to read; more: offsets.
    CpAsync {
        bytes: u8,
        sized: bool,
    },
    CpCommit,
    /// a = groups that may stay open.
    CpWait(u32),
    Fence {
        device: bool,
    },
    /// Nothing to do.
    Nop,
    /// a = lane mask; see [`WarpOp`]; d may be a predicate. more: second result.
    Warp(WarpOp),
    ActiveMask,
    /// a = barrier, b = threads, c = predicate.
    Bar(Bar),
    /// more: results; a = row addresses.
    LdMatrix {
        count: u8,
        trans: bool,
        wide: bool,
    },
    MovMatrix,
    /// more: D, A, B, C registers.
    Mma {
        shape: MmaShape,
        ab: Ty,
        d: Ty,
        c: Ty,
    },
    /// more: registers; a = address, b = offset, c = stride.
    WmmaLoad {
        which: Operand,
        shape: WmmaShape,
        ty: Ty,
        col: bool,
        wide: bool,
        space: Space,
    },
    WmmaStore {
        shape: WmmaShape,
        ty: Ty,
        col: bool,
        wide: bool,
        space: Space,
    },
    /// more: D, A, B, C registers.
    WmmaMma {
        shape: WmmaShape,
        ab: Ty,
        d: Ty,
        c: Ty,
        acol: bool,
        bcol: bool,
    },
    /// To instruction `a` where the guard holds; `c` = where both ways meet.
    Bra,
    /// a = index, more: targets; `c` = where all ways meet.
    BraTable(u32),
    Exit,
    /// a = what went wrong: 0 `trap`, 1 `brkpt`, 2 a failed assertion.
    Trap(u8),
    /// Formats (a = generic address of the text, b = generic address of the values) into the launch's output.
    Print,
}

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inst {
    pub op: Op,
    pub class: Class,
    /// Predicate operand that says which lanes execute.
    pub guard: u32,
    pub d: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
}

/// Where an instruction came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    /// Line of the PTX.
    pub line: u32,
    /// File number and line of `.loc`.
    pub loc: (u32, u32),
}

/// Values of constant rows, filled in at launch or at the start of a block or warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Const {
    Bits(u64),
    /// Address of a module variable plus an offset.
    Address(u32, i64),
    /// Address of dynamic shared memory plus an offset.
    DynamicShared(i64),
    /// Bytes of the parameters: offset, type.
    Param(u32, Ty),
    Special(Special),
}

/// Special registers that are rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NumWarps,
    SmId,
    NumSms,
    GridId,
    MaskEq,
    MaskLt,
    MaskLe,
    MaskGt,
    MaskGe,
    DynamicSharedBytes,
    TotalSharedBytes,
}

/// No convergence point: the ways meet at the end of the thread only.
pub(crate) const NEVER: u32 = u32::MAX;

/// A module variable with its address once placed.
#[derive(Debug, Clone)]
pub(crate) struct Global {
    pub name: String,
    pub align: u32,
    pub bytes: u64,
    pub init: Vec<u8>,
    pub constant: bool,
}

/// Variables of a module and their addresses.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    pub list: Vec<Global>,
    pub addresses: OnceLock<Vec<u64>>,
}

/// A kernel's instructions, functions inlined.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub insts: Vec<Inst>,
    pub places: Vec<Place>,
    pub more: Vec<u32>,
    /// Rows of the register file.
    pub rows: u32,
    /// Predicates, the two fixed ones included.
    pub preds: u32,
    /// Constant rows: first row, width, value. Those that differ between warps are copied per warp.
    pub consts: Vec<(u32, W, Const)>,
    pub const_rows: u32,
    /// Where the text's lines are, for reports.
    pub text: Arc<str>,
    pub files: Arc<HashMap<u32, String>>,
    pub globals: Arc<Globals>,
    /// Blocks may communicate: atomics, strong accesses or fences in global memory.
    pub communicates: bool,
    /// Static shared memory, and alignment of the dynamic part.
    pub shared_bytes: u32,
    pub shared_align: u32,
    pub local_bytes: u32,
    pub uses_dynamic_shared: bool,
    /// First instructions of the basic blocks, ascending.
    pub starts: Vec<u32>,
    /// Whether some warp came to an instruction, for each.
    pub reached: Vec<AtomicBool>,
}

impl Code {
    /// Notes that a warp came to an instruction.
    #[inline(always)]
    pub(crate) fn reach(&self, at: u32) {
        let seen = &self.reached[at as usize];
        // Workers share these bytes: a store each time would pass them to and fro.
        if !seen.load(Relaxed) {
            seen.store(true, Relaxed);
        }
    }

    /// The PTX line of an instruction as written.
    pub(crate) fn text_of(&self, at: usize) -> &str {
        let line = self.places.get(at).map_or(0, |p| p.line) as usize;
        self.text.lines().nth(line.wrapping_sub(1)).unwrap_or("").trim()
    }
}

/// The class that an operation counts in.
pub(crate) fn class(op: Op) -> Class {
    match op {
        Op::Int2(..)
        | Op::Int1(..)
        | Op::Int3(..)
        | Op::MulWide(..)
        | Op::MadWide(..)
        | Op::Bfi(_)
        | Op::Prmt(_)
        | Op::Lop3(_)
        | Op::Carry { .. }
        | Op::MadCarry { .. }
        | Op::ToGeneric(_)
        | Op::FromGeneric(_) => Class::Integer,
        Op::F32(F2::DivApprox | F2::DivFull, _) => Class::Special,
        Op::F32One(F1::Neg | F1::Abs | F1::Sqrt | F1::Rcp, _) => Class::Float,
        Op::F32One(..) => Class::Special,
        Op::F32(..) | Op::F32Fma(_) => Class::Float,
        Op::F64(..) | Op::F64Fma(_) | Op::F64One(..) => Class::Double,
        Op::HalfOne(F1::Neg | F1::Abs, _) => Class::Half,
        Op::HalfOne(..) => Class::Special,
        Op::Half2(..) | Op::HalfFma(_) => Class::Half,
        Op::Testp(..)
        | Op::Setp(..)
        | Op::SetpPacked(..)
        | Op::Set { .. }
        | Op::PredAnd
        | Op::PredOr
        | Op::PredXor
        | Op::PredMov
        | Op::PredNot
        | Op::IsSpace(_) => Class::Predicate,
        Op::Selp(_)
        | Op::Slct { .. }
        | Op::Mov(_)
        | Op::Pack { .. }
        | Op::Unpack { .. }
        | Op::Clock(_)
        | Op::ActiveMask => Class::Move,
        Op::Cvt(_) | Op::CvtPack { .. } => Class::Convert,
        Op::Ld(_) => Class::Load,
        Op::St(_) => Class::Store,
        Op::Atom(_) => Class::Atomic,
        Op::CpAsync { .. } | Op::CpCommit | Op::CpWait(_) => Class::AsyncCopy,
        Op::Warp(WarpOp::Barrier) | Op::Bar(_) | Op::Fence { .. } => Class::Barrier,
        Op::Warp(_) => Class::Warp,
        Op::LdMatrix { .. }
        | Op::MovMatrix
        | Op::Mma { .. }
        | Op::WmmaLoad { .. }
        | Op::WmmaStore { .. }
        | Op::WmmaMma { .. } => Class::Tensor,
        Op::Bra | Op::BraTable(_) | Op::Exit | Op::Trap(_) => Class::Control,
        Op::Nop | Op::Print => Class::Other,
    }
}
