//! The table of forms: every opcode with the modifiers it may have, in order, and what builds it.
//!
//! A pattern is an opcode and a list of modifiers: `a|b` is a choice, `?` makes it optional, `<set>` is a named
//! choice. What no pattern matches is refused. `docs/vgpu.md` is generated from this table.

mod convert;
mod float;
mod flowing;
mod int;
mod memory;
mod tensor;
mod warp;

pub(crate) use tensor::{extent, wmma_registers};

use std::collections::HashMap;
use std::sync::OnceLock;

use super::decode::{Cx, Res};
use super::error::LoadErrorKind as Kind;
use super::types::{Bool, Cmp, Rnd, Space, Ty};

/// Builds an instruction from the matched modifiers.
pub(super) type Build = fn(&mut Cx<'_, '_>, &Mods<'_>) -> Res<()>;

/// One line of the table.
pub(super) struct Form {
    pub pattern: &'static str,
    /// What is peculiar about it; empty if it is exact.
    pub note: &'static str,
    pub build: Build,
}

/// Shorthand for a table line.
pub(super) const fn form(pattern: &'static str, note: &'static str, build: Build) -> Form {
    Form { pattern, note, build }
}

/// Named choices.
const SETS: &[(&str, &str)] = &[
    ("<int>", "u16|u32|u64|s16|s32|s64"),
    ("<int32>", "u32|s32"),
    ("<bits>", "b16|b32|b64"),
    ("<rnd>", "rn|rz|rm|rp"),
    ("<half>", "f16|f16x2"),
    ("<bhalf>", "bf16|bf16x2"),
    ("<anyhalf>", "f16|f16x2|bf16|bf16x2"),
    ("<cmp>", "eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan"),
    ("<cmpty>", "b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64"),
    ("<regty>", "b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64"),
    ("<memty>", "b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64"),
    ("<scope>", "cta|cluster|gpu|sys"),
    ("<l1>", "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate"),
    ("<l2>", "L2::64B|L2::128B|L2::256B"),
];

/// The modifiers of an instruction, by position in the pattern; `""` for an absent optional one.
pub(super) struct Mods<'s>(Vec<&'s str>);

impl<'s> Mods<'s> {
    pub(super) fn str(&self, i: usize) -> &'s str {
        self.0.get(i).copied().unwrap_or("")
    }

    pub(super) fn has(&self, i: usize) -> bool {
        !self.str(i).is_empty()
    }

    pub(super) fn ty(&self, i: usize) -> Ty {
        Ty::parse(self.str(i)).expect("the pattern admits types only")
    }

    pub(super) fn rnd(&self, i: usize) -> Rnd {
        match self.str(i) {
            "rz" | "rzi" => Rnd::Rz,
            "rm" | "rmi" => Rnd::Rm,
            "rp" | "rpi" => Rnd::Rp,
            "rna" => Rnd::Rna,
            _ => Rnd::Rn,
        }
    }

    pub(super) fn space(&self, i: usize) -> Space {
        match self.str(i) {
            "global" => Space::Global,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            "const" => Space::Const,
            "param" | "param::entry" | "param::func" => Space::Param,
            _ => Space::Generic,
        }
    }

    pub(super) fn bool(&self, i: usize) -> Option<Bool> {
        match self.str(i) {
            "and" => Some(Bool::And),
            "or" => Some(Bool::Or),
            "xor" => Some(Bool::Xor),
            _ => None,
        }
    }

    /// A comparison for a type; the unsigned and the unordered operators exist only for some.
    pub(super) fn cmp(&self, i: usize, ty: Ty) -> Option<Cmp> {
        let float = !ty.is_int();
        let bits = matches!(ty, Ty::B16 | Ty::B32 | Ty::B64);
        let unsigned = matches!(ty, Ty::U16 | Ty::U32 | Ty::U64);
        let cmp = match self.str(i) {
            "eq" => Cmp::Eq,
            "ne" => Cmp::Ne,
            "lt" => Cmp::Lt,
            "le" => Cmp::Le,
            "gt" => Cmp::Gt,
            "ge" => Cmp::Ge,
            "lo" if unsigned => Cmp::Lt,
            "ls" if unsigned => Cmp::Le,
            "hi" if unsigned => Cmp::Gt,
            "hs" if unsigned => Cmp::Ge,
            "equ" if float => Cmp::Equ,
            "neu" if float => Cmp::Neu,
            "ltu" if float => Cmp::Ltu,
            "leu" if float => Cmp::Leu,
            "gtu" if float => Cmp::Gtu,
            "geu" if float => Cmp::Geu,
            "num" if float => Cmp::Num,
            "nan" if float => Cmp::Nan,
            _ => return None,
        };
        (!bits || matches!(cmp, Cmp::Eq | Cmp::Ne)).then_some(cmp)
    }
}

/// All lines, by family.
fn families() -> [(&'static str, &'static [Form]); 7] {
    [
        ("Integer and logic", int::FORMS),
        ("Floating point", float::FORMS),
        ("Moves and conversions", convert::FORMS),
        ("Memory", memory::FORMS),
        ("Control flow", flowing::FORMS),
        ("Warp and block", warp::FORMS),
        ("Matrices", tensor::FORMS),
    ]
}

fn expand(segment: &str) -> &str {
    SETS.iter().find(|(name, _)| *name == segment).map_or(segment, |(_, v)| v)
}

fn matches<'s>(pattern: &str, mods: &[&'s str]) -> Option<Mods<'s>> {
    let mut taken = Vec::new();
    let mut rest = mods;
    for segment in pattern.split(' ').skip(1) {
        let optional = segment.ends_with('?');
        let choice = expand(segment.trim_end_matches('?'));
        match rest.split_first() {
            Some((m, tail)) if choice.split('|').any(|c| c == *m) => {
                taken.push(*m);
                rest = tail;
            }
            _ if optional => taken.push(""),
            _ => return None,
        }
    }
    rest.is_empty().then_some(Mods(taken))
}

/// Decodes one statement.
pub(super) fn decode(cx: &mut Cx<'_, '_>, opcode: &str) -> Res<()> {
    static INDEX: OnceLock<HashMap<&'static str, Vec<&'static Form>>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let mut map: HashMap<_, Vec<_>> = HashMap::new();
        for form in families().into_iter().flat_map(|(_, forms)| forms) {
            let name = form.pattern.split(' ').next().expect("patterns begin with an opcode");
            map.entry(name).or_default().push(form);
        }
        map
    });
    let parts: Vec<&str> = opcode.split('.').collect();
    let forms = index.get(parts[0]).ok_or_else(|| Kind::Opcode { name: short(parts[0]) })?;
    for form in forms {
        if let Some(mods) = matches(form.pattern, &parts[1..]) {
            return (form.build)(cx, &mods);
        }
    }
    Err(unknown(opcode, forms))
}

/// The error of a form that its builder does not accept after all.
pub(super) fn refuse<T>(cx: &Cx<'_, '_>) -> Res<T> {
    Err(Kind::Form { form: short(cx.opcode()), known: "see the table of forms".into() })
}

fn unknown(opcode: &str, forms: &[&Form]) -> Kind {
    let known: Vec<String> = forms.iter().map(|f| spelled(f.pattern)).collect();
    Kind::Form { form: short(opcode), known: known.join(", ") }
}

fn short(s: &str) -> String {
    s.chars().take(80).collect()
}

/// A pattern as the documentation writes it.
fn spelled(pattern: &str) -> String {
    let mut out = String::new();
    for (i, segment) in pattern.split(' ').enumerate() {
        if i == 0 {
            out.push_str(segment);
            continue;
        }
        let optional = segment.ends_with('?');
        let choice = expand(segment.trim_end_matches('?'));
        match (optional, choice.contains('|')) {
            (true, _) => out.push_str(&format!("{{.{}}}", choice.replace('|', ",."))),
            (false, true) => out.push_str(&format!(".({})", choice.replace('|', ","))),
            (false, false) => out.push_str(&format!(".{choice}")),
        }
    }
    out
}

/// The table of forms as Markdown; `docs/vgpu.md` holds exactly this.
pub fn markdown() -> String {
    let mut out = String::new();
    for (family, forms) in families() {
        out.push_str(&format!("### {family}\n\n| form | status |\n| --- | --- |\n"));
        for f in forms {
            let status = if f.note.is_empty() { "exact" } else { f.note };
            out.push_str(&format!("| `{}` | {status} |\n", spelled(f.pattern).replace('|', "\\|")));
        }
        out.push('\n');
    }
    out
}
