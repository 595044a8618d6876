//! Instructions against exact arithmetic: each case runs PTX text on lanes of inputs and compares bits with a definition
//! written here independently of the interpreter.

mod support;

use support::*;

/// Runs `body` for every tuple of inputs. The body reads `%a`, `%b`, `%c` (b64) and writes `%d` (b64); narrower
/// registers are its own business. Further declarations may stand in the body.
fn eval(body: &str, inputs: &[[u64; 3]]) -> Vec<u64> {
    let ptx = format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 pi, .param .u64 po, .param .u32 n)\n\
         {{\n.reg .b64 %a, %b, %c, %d, %p<4>;\n.reg .b32 %i<6>;\n.reg .pred %q<2>;\n\
         .reg .b16 %h<9>;\n.reg .b32 %r<9>;\n.reg .f32 %f<9>;\n.reg .f64 %g<9>;\n.reg .pred %t<9>;\n\
         ld.param.u64 %p0, [pi];\nld.param.u64 %p1, [po];\nld.param.u32 %i0, [n];\n\
         mov.u32 %i1, %ctaid.x;\nmov.u32 %i2, %ntid.x;\nmov.u32 %i3, %tid.x;\nmad.lo.s32 %i4, %i1, %i2, %i3;\n\
         setp.ge.u32 %q0, %i4, %i0;\n@%q0 bra DONE;\n\
         mul.wide.u32 %p2, %i4, 24;\nadd.s64 %p2, %p0, %p2;\nmul.wide.u32 %p3, %i4, 8;\nadd.s64 %p3, %p1, %p3;\n\
         ld.global.b64 %a, [%p2];\nld.global.b64 %b, [%p2+8];\nld.global.b64 %c, [%p2+16];\nmov.b64 %d, 0;\n\
         {{\n{body}\n}}\nst.global.b64 [%p3], %d;\nDONE:\nret;\n}}\n"
    );
    let g = Gpu::new(&ptx);
    let n = inputs.len();
    let pi = g.upload(&inputs.iter().flatten().copied().collect::<Vec<u64>>());
    let po = g.empty::<u64>(n);
    let args = [Arg::Ptr(pi), Arg::Ptr(po), Arg::U32(n as u32)];
    g.run("k", [n.div_ceil(64) as u32, 1, 1], [64, 1, 1], 0, &args).unwrap_or_else(|e| panic!("{body}: {e}"));
    g.download(po, n)
}

/// Runs a body and compares every lane with a definition.
fn check(body: &str, inputs: &[[u64; 3]], want: impl Fn(u64, u64, u64) -> u64) {
    for (i, d) in inputs.iter().zip(eval(body, inputs)) {
        let w = want(i[0], i[1], i[2]);
        assert_eq!(d, w, "{body}\non {:x?}: {d:#x} for {w:#x}", i);
    }
}

const W32: &str = "cvt.u32.u64 %r0, %a; cvt.u32.u64 %r1, %b; cvt.u32.u64 %r2, %c;";
const F32: &str = "cvt.u32.u64 %r0, %a; cvt.u32.u64 %r1, %b; cvt.u32.u64 %r2, %c; mov.b32 %f0, %r0; mov.b32 %f1, %r1; mov.b32 %f2, %r2;";
const END32: &str = "cvt.u64.u32 %d, %r8;";
const ENDF: &str = "mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;";
const ENDP: &str = "selp.u32 %r8, 1, 0, %t8; cvt.u64.u32 %d, %r8;";

fn b32(op: &str) -> String {
    format!("{W32} {op}; {END32}")
}

fn b16(op: &str) -> String {
    format!("cvt.u16.u64 %h0, %a; cvt.u16.u64 %h1, %b; cvt.u16.u64 %h2, %c; {op}; cvt.u64.u16 %d, %h8;")
}

fn f32_op(op: &str) -> String {
    format!("{F32} {op}; {ENDF}")
}

/// Integers that break arithmetic, crossed, then random ones.
fn integers(w: u32) -> Vec<[u64; 3]> {
    let top = 1u64 << (w - 1);
    let mask = u64::MAX >> (64 - w);
    let edge =
        [0, 1, 2, 3, 7, top - 1, top, top + 1, mask, mask - 1, 0x5555_5555_5555_5555 & mask, 31, 32, 33];
    let mut v = Vec::new();
    for a in edge {
        for b in edge {
            v.push([a, b, edge[(a as usize ^ b as usize) % edge.len()]]);
        }
    }
    let r = bits(600, 77);
    v.extend(r.chunks(3).map(|c| [c[0] & mask, c[1] & mask, c[2] & mask]));
    v
}

fn s(v: u64, w: u32) -> i128 {
    i128::from((v << (64 - w)) as i64 >> (64 - w))
}

#[test]
fn integer_arithmetic_of_every_width() {
    for w in [16u32, 32, 64] {
        let mask = u64::MAX >> (64 - w);
        let inputs = integers(w);
        let wrap = move |v: i128| v as u64 & mask;
        type Definition = Box<dyn Fn(u64, u64, u64) -> u64>;
        let u = |v: u64| i128::from(v);
        let cases: Vec<(String, Definition)> = vec![
            (format!("add.u{w}"), Box::new(move |a, b, _| wrap(u(a) + u(b)))),
            (format!("add.s{w}"), Box::new(move |a, b, _| wrap(s(a, w) + s(b, w)))),
            (format!("sub.s{w}"), Box::new(move |a, b, _| wrap(s(a, w) - s(b, w)))),
            (format!("mul.lo.u{w}"), Box::new(move |a, b, _| (a.wrapping_mul(b)) & mask)),
            (format!("mul.lo.s{w}"), Box::new(move |a, b, _| (a.wrapping_mul(b)) & mask)),
            (
                format!("mul.hi.u{w}"),
                Box::new(move |a, b, _| ((u128::from(a) * u128::from(b)) >> w) as u64 & mask),
            ),
            (format!("mul.hi.s{w}"), Box::new(move |a, b, _| wrap((s(a, w) * s(b, w)) >> w))),
            (format!("min.u{w}"), Box::new(|a, b, _| a.min(b))),
            (format!("max.u{w}"), Box::new(|a, b, _| a.max(b))),
            (format!("min.s{w}"), Box::new(move |a, b, _| wrap(s(a, w).min(s(b, w))))),
            (format!("max.s{w}"), Box::new(move |a, b, _| wrap(s(a, w).max(s(b, w))))),
            (format!("div.u{w}"), Box::new(move |a, b, _| a.checked_div(b).unwrap_or(mask))),
            (format!("rem.u{w}"), Box::new(|a, b, _| if b == 0 { a } else { a % b })),
            (
                format!("div.s{w}"),
                Box::new(move |a, b, _| if b == 0 { mask } else { wrap(s(a, w) / s(b, w)) }),
            ),
            (format!("rem.s{w}"), Box::new(move |a, b, _| if b == 0 { a } else { wrap(s(a, w) % s(b, w)) })),
            (format!("and.b{w}"), Box::new(|a, b, _| a & b)),
            (format!("or.b{w}"), Box::new(|a, b, _| a | b)),
            (format!("xor.b{w}"), Box::new(|a, b, _| a ^ b)),
        ];
        let wrapped = |op: &str, operands: &str| match w {
            16 => b16(&format!("{op} %h8, {}", operands.replace('%', "%h"))),
            32 => b32(&format!("{op} %r8, {}", operands.replace('%', "%r"))),
            _ => {
                format!("{op} %d, {};", operands.replace("%0", "%a").replace("%1", "%b").replace("%2", "%c"))
            }
        };
        for (op, want) in &cases {
            check(&wrapped(op, "%0, %1"), &inputs, want);
        }
        let ternary: Vec<(String, Definition)> = vec![
            (format!("mad.lo.s{w}"), Box::new(move |a, b, c| a.wrapping_mul(b).wrapping_add(c) & mask)),
            (format!("mad.hi.s{w}"), Box::new(move |a, b, c| wrap(((s(a, w) * s(b, w)) >> w) + s(c, w)))),
            (
                format!("mad.hi.u{w}"),
                Box::new(move |a, b, _| ((u128::from(a) * u128::from(b)) >> w) as u64 & mask),
            ),
            (format!("sad.s{w}"), Box::new(move |a, b, c| wrap((s(a, w) - s(b, w)).abs() + s(c, w)))),
            (format!("sad.u{w}"), Box::new(move |a, b, c| a.abs_diff(b).wrapping_add(c) & mask)),
        ];
        for (op, want) in &ternary {
            let add_high = op.starts_with("mad.hi.u");
            check(&wrapped(op, "%0, %1, %2"), &inputs, |a, b, c| {
                if add_high { want(a, b, 0).wrapping_add(c) & mask } else { want(a, b, c) }
            });
        }
        let unary: Vec<(String, Definition)> = vec![
            (format!("neg.s{w}"), Box::new(move |a, _, _| wrap(-s(a, w)))),
            (format!("abs.s{w}"), Box::new(move |a, _, _| wrap(s(a, w).abs()))),
            (format!("not.b{w}"), Box::new(move |a, _, _| !a & mask)),
            (format!("cnot.b{w}"), Box::new(|a, _, _| u64::from(a == 0))),
        ];
        for (op, want) in &unary {
            check(&wrapped(op, "%0"), &inputs, want);
        }
    }
}

#[test]
fn saturating_wide_and_carrying_arithmetic() {
    let i = integers(32);
    let clamp = |v: i128| v.clamp(-(1 << 31), (1 << 31) - 1) as u64 & 0xffff_ffff;
    check(&b32("add.sat.s32 %r8, %r0, %r1"), &i, |a, b, _| clamp(s(a, 32) + s(b, 32)));
    check(&b32("sub.sat.s32 %r8, %r0, %r1"), &i, |a, b, _| clamp(s(a, 32) - s(b, 32)));
    check(&b32("mad.hi.sat.s32 %r8, %r0, %r1, %r2"), &i, |a, b, c| {
        clamp(((s(a, 32) * s(b, 32)) >> 32) + s(c, 32))
    });
    check(&format!("{W32} mul.wide.u32 %d, %r0, %r1;"), &i, |a, b, _| a * b);
    check(&format!("{W32} mul.wide.s32 %d, %r0, %r1;"), &i, |a, b, _| (s(a, 32) * s(b, 32)) as u64);
    let j = integers(64);
    check("cvt.u32.u64 %r0, %a; cvt.u32.u64 %r1, %b; mad.wide.s32 %d, %r0, %r1, %c;", &j, |a, b, c| {
        ((s(a & 0xffff_ffff, 32) * s(b & 0xffff_ffff, 32)) as u64).wrapping_add(c)
    });
    // A 128-bit sum and difference from 64-bit halves, in 32-bit steps and in 64-bit ones.
    check("add.cc.u64 %d, %a, %b; addc.u64 %d, %c, 0;", &j, |a, b, c| {
        ((u128::from(c) << 64 | u128::from(a)).wrapping_add(u128::from(b)) >> 64) as u64
    });
    check("sub.cc.u64 %d, %a, %b; subc.u64 %d, %c, 0;", &j, |a, b, c| {
        ((u128::from(c) << 64 | u128::from(a)).wrapping_sub(u128::from(b)) >> 64) as u64
    });
    check(
        &format!("{W32} mad.lo.cc.u32 %r3, %r0, %r1, %r2; madc.hi.u32 %r8, %r0, %r1, 0; {END32}"),
        &i,
        |a, b, c| (a * b).wrapping_add(c) >> 32,
    );
    check(&b32("mul24.lo.s32 %r8, %r0, %r1"), &i, |a, b, _| {
        (s(a & 0xff_ffff, 24) * s(b & 0xff_ffff, 24)) as u64 & 0xffff_ffff
    });
    check(&b32("mul24.hi.u32 %r8, %r0, %r1"), &i, |a, b, _| {
        ((a & 0xff_ffff) * (b & 0xff_ffff)) >> 16 & 0xffff_ffff
    });
}

#[test]
fn shift_counts_past_the_width_shift_everything_out() {
    for w in [16u32, 32, 64] {
        let mask = u64::MAX >> (64 - w);
        let mut inputs = Vec::new();
        for a in [0, 1, mask, 1 << (w - 1), 0x1234_5678_9abc_def0 & mask] {
            for n in [0u64, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 1 << 20, 0xffff_ffff] {
                inputs.push([a, n, 0]);
            }
        }
        let op = |name: &str| match w {
            16 => format!(
                "cvt.u16.u64 %h0, %a; cvt.u32.u64 %r1, %b; {name}16 %h8, %h0, %r1; cvt.u64.u16 %d, %h8;"
            ),
            32 => b32(&format!("{name}32 %r8, %r0, %r1")),
            _ => format!("cvt.u32.u64 %r1, %b; {name}64 %d, %a, %r1;"),
        };
        check(&op("shl.b"), &inputs, |a, n, _| if n >= w.into() { 0 } else { a << n & mask });
        check(&op("shr.u"), &inputs, |a, n, _| if n >= w.into() { 0 } else { a >> n });
        check(&op("shr.b"), &inputs, |a, n, _| if n >= w.into() { 0 } else { a >> n });
        check(&op("shr.s"), &inputs, |a, n, _| (s(a, w) >> n.min(127)) as u64 & mask);
    }
    let i = integers(32);
    let pair = |a: u64, b: u64| b << 32 | a;
    check(&b32("shf.l.wrap.b32 %r8, %r0, %r1, %r2"), &i, |a, b, c| pair(a, b) << (c & 31) >> 32);
    check(&b32("shf.r.wrap.b32 %r8, %r0, %r1, %r2"), &i, |a, b, c| pair(a, b) >> (c & 31) & 0xffff_ffff);
    check(&b32("shf.l.clamp.b32 %r8, %r0, %r1, %r2"), &i, |a, b, c| pair(a, b) << c.min(32) >> 32);
    check(&b32("shf.r.clamp.b32 %r8, %r0, %r1, %r2"), &i, |a, b, c| pair(a, b) >> c.min(32) & 0xffff_ffff);
}

#[test]
fn bit_fields_follow_the_isas_pseudocode() {
    for w in [32u32, 64] {
        let mask = u64::MAX >> (64 - w);
        let mut inputs = Vec::new();
        for a in [0, mask, 0xdead_beef_cafe_f00d & mask, 1 << (w - 1)] {
            for pos in [0u64, 1, 8, 31, 32, 40, 63, 64, 200, 256] {
                for len in [0u64, 1, 5, 16, 32, 33, 64, 255, 257] {
                    inputs.push([a, pos, len]);
                }
            }
        }
        let bit = |v: u64, i: u64| v >> i & 1;
        let bfe = move |a: u64, b: u64, c: u64, signed: bool| {
            let (msb, pos, len) = (u64::from(w) - 1, b & 0xff, c & 0xff);
            let sbit = if !signed || len == 0 { 0 } else { bit(a, msb.min(pos + len - 1)) };
            (0..=msb)
                .fold(0, |d, i| d | (if i < len && pos + i <= msb { bit(a, pos + i) } else { sbit }) << i)
        };
        let narrow = |op: &str| match w {
            32 => b32(&format!("{op}32 %r8, %r0, %r1, %r2")),
            _ => format!("cvt.u32.u64 %r1, %b; cvt.u32.u64 %r2, %c; {op}64 %d, %a, %r1, %r2;"),
        };
        check(&narrow("bfe.u"), &inputs, |a, b, c| bfe(a, b, c, false));
        check(&narrow("bfe.s"), &inputs, |a, b, c| bfe(a, b, c, true));
        let onto = 0x0f0f_3c3c_5a5a_9669 & mask;
        let body = match w {
            32 => b32(&format!("mov.b32 %r3, {onto}; bfi.b32 %r8, %r0, %r3, %r1, %r2")),
            _ => format!(
                "cvt.u32.u64 %r1, %b; cvt.u32.u64 %r2, %c; mov.b64 %d, {onto}; bfi.b64 %d, %a, %d, %r1, %r2;"
            ),
        };
        check(&body, &inputs, |a, b, c| {
            let (msb, pos, len) = (u64::from(w) - 1, b & 0xff, c & 0xff);
            let mut d = onto;
            for i in 0..len {
                if pos + i <= msb {
                    d = d & !(1 << (pos + i)) | bit(a, i) << (pos + i);
                }
            }
            d
        });
        let counted = |op: &str| match w {
            32 => b32(&format!("{op}32 %r8, %r0")),
            _ => format!("{op}64 %r8, %a; cvt.u64.u32 %d, %r8;"),
        };
        let i = integers(w);
        check(&counted("popc.b"), &i, |a, _, _| (0..64).map(|k| bit(a, k)).sum());
        check(&counted("clz.b"), &i, |a, _, _| {
            (0..u64::from(w)).rev().position(|k| bit(a, k) == 1).unwrap_or(w as usize) as u64
        });
        let find = move |a: u64| (0..u64::from(w)).rev().find(|k| bit(a, *k) == 1);
        check(&counted("bfind.u"), &i, |a, _, _| find(a).unwrap_or(0xffff_ffff));
        check(&counted("bfind.shiftamt.u"), &i, |a, _, _| {
            find(a).map_or(0xffff_ffff, |k| u64::from(w) - 1 - k)
        });
        check(&counted("bfind.s"), &i, |a, _, _| {
            find(if bit(a, u64::from(w) - 1) == 1 { !a & mask } else { a }).unwrap_or(0xffff_ffff)
        });
        let reversed = match w {
            32 => b32("brev.b32 %r8, %r0"),
            _ => "brev.b64 %d, %a;".into(),
        };
        check(&reversed, &i, |a, _, _| {
            (0..u64::from(w)).fold(0, |d, k| d | bit(a, k) << (u64::from(w) - 1 - k))
        });
    }
}

#[test]
fn bytes_are_permuted_in_every_mode() {
    let mut inputs = Vec::new();
    for c in (0..0x10000u64).step_by(97).chain([0x3210, 0x7654, 0xffff, 0x8888]) {
        inputs.push([0x8899_aabb, 0x0c1d_2e3f, c]);
    }
    let byte = |a: u64, b: u64, i: u64| (b << 32 | a) >> (8 * i) & 0xff;
    check(&b32("prmt.b32 %r8, %r0, %r1, %r2"), &inputs, |a, b, c| {
        (0..4).fold(0, |d, i| {
            let sel = c >> (4 * i) & 15;
            let v = byte(a, b, sel & 7);
            d | (if sel & 8 != 0 { if v & 0x80 != 0 { 0xff } else { 0 } } else { v }) << (8 * i)
        })
    });
    // The tables of the ISA: bytes for selector 0 to 3, most significant first.
    let tables: [(&str, [[u64; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    for (mode, table) in tables {
        check(&b32(&format!("prmt.b32.{mode} %r8, %r0, %r1, %r2")), &inputs, |a, b, c| {
            table[(c & 3) as usize].iter().fold(0, |d, i| d << 8 | byte(a, b, *i))
        });
    }
}

#[test]
fn logic_tables_products_of_bytes_and_masks() {
    let i = integers(32);
    for table in [0u64, 0x80, 0xe8, 0x96, 0xca, 0xff, 0x1b] {
        check(&b32(&format!("lop3.b32 %r8, %r0, %r1, %r2, {table}")), &i, |a, b, c| {
            (0..32).fold(0, |d, k| {
                let index = (a >> k & 1) << 2 | (b >> k & 1) << 1 | (c >> k & 1);
                d | (table >> index & 1) << k
            })
        });
    }
    let signed = |v: u64, k: u64| i64::from((v >> (8 * k)) as u8 as i8);
    let unsigned = |v: u64, k: u64| i64::from((v >> (8 * k)) as u8);
    check(&b32("dp4a.s32.s32 %r8, %r0, %r1, %r2"), &i, |a, b, c| {
        (0..4).fold(c as i64, |t, k| t + signed(a, k) * signed(b, k)) as u64 & 0xffff_ffff
    });
    check(&b32("dp4a.u32.s32 %r8, %r0, %r1, %r2"), &i, |a, b, c| {
        (0..4).fold(c as i64, |t, k| t + unsigned(a, k) * signed(b, k)) as u64 & 0xffff_ffff
    });
    check(&b32("dp2a.hi.s32.u32 %r8, %r0, %r1, %r2"), &i, |a, b, c| {
        (0..2).fold(c as i64, |t, k| t + i64::from((a >> (16 * k)) as i16) * unsigned(b, k + 2)) as u64
            & 0xffff_ffff
    });
    check(&b32("bmsk.clamp.b32 %r8, %r0, %r1"), &i, |a, b, _| {
        (0..32).filter(|k| *k >= a && *k - a < b).fold(0, |d, k| d | 1 << k)
    });
    check(&b32("szext.wrap.s32 %r8, %r0, %r1"), &i, |a, b, _| match b & 31 {
        0 => 0,
        n => s(a & ((1 << n) - 1), n as u32) as u64 & 0xffff_ffff,
    });
}

#[test]
fn comparisons_selections_and_predicates() {
    let i = integers(32);
    let floats: Vec<[u64; 3]> =
        specials32().iter().flat_map(|a| specials32().map(|b| [u64::from(*a), u64::from(b), 0])).collect();
    for (op, f) in [
        ("eq", (|a, b| a == b) as fn(i128, i128) -> bool),
        ("ne", |a, b| a != b),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
    ] {
        check(&format!("{W32} setp.{op}.s32 %t8, %r0, %r1; {ENDP}"), &i, |a, b, _| {
            f(s(a, 32), s(b, 32)).into()
        });
        check(&format!("{W32} setp.{op}.u32 %t8, %r0, %r1; {ENDP}"), &i, |a, b, _| {
            f(a.into(), b.into()).into()
        });
        check(&format!("setp.{op}.s64 %t8, %a, %b; {ENDP}"), &integers(64), |a, b, _| {
            f(s(a, 64), s(b, 64)).into()
        });
        check(
            &format!("cvt.u16.u64 %h0, %a; cvt.u16.u64 %h1, %b; setp.{op}.s16 %t8, %h0, %h1; {ENDP}"),
            &integers(16),
            |a, b, _| f(s(a, 16), s(b, 16)).into(),
        );
        let ordered = |a: f32, b: f32| {
            !a.is_nan()
                && !b.is_nan()
                && f(
                    if a < b {
                        -1
                    } else if a > b {
                        1
                    } else {
                        0
                    },
                    0,
                )
        };
        let val = |v: u64| f32::from_bits(v as u32);
        check(&format!("{F32} setp.{op}.f32 %t8, %f0, %f1; {ENDP}"), &floats, |a, b, _| {
            ordered(val(a), val(b)).into()
        });
        check(&format!("{F32} setp.{op}u.f32 %t8, %f0, %f1; {ENDP}"), &floats, |a, b, _| {
            (val(a).is_nan() || val(b).is_nan() || ordered(val(a), val(b))).into()
        });
        let flush = |v: u64| if val(v).is_subnormal() { 0.0 } else { val(v) };
        check(&format!("{F32} setp.{op}.ftz.f32 %t8, %f0, %f1; {ENDP}"), &floats, |a, b, _| {
            ordered(flush(a), flush(b)).into()
        });
    }
    check(&format!("{F32} setp.num.f32 %t8, %f0, %f1; {ENDP}"), &floats, |a, b, _| {
        (!f32::from_bits(a as u32).is_nan() && !f32::from_bits(b as u32).is_nan()).into()
    });
    // p|q with a third predicate: q is the negation combined the same way.
    check(
        &format!(
            "{W32} setp.ne.u32 %t0, %r2, 0; setp.lt.and.s32 %t1|%t2, %r0, %r1, %t0; \
            selp.u32 %r3, 1, 0, %t1; selp.u32 %r4, 2, 0, %t2; or.b32 %r8, %r3, %r4; {END32}"
        ),
        &i,
        |a, b, c| {
            let (lt, c) = (s(a, 32) < s(b, 32), c != 0);
            u64::from(lt && c) | u64::from(!lt && c) << 1
        },
    );
    check(
        &format!("{W32} setp.ne.u32 %t0, %r2, 0; setp.lt.xor.s32 %t8, %r0, %r1, !%t0; {ENDP}"),
        &i,
        |a, b, c| ((s(a, 32) < s(b, 32)) != (c == 0)).into(),
    );
    check(
        &format!(
            "{W32} setp.ne.u32 %t0, %r0, 0; setp.gt.u32 %t1, %r1, 5; xor.pred %t2, %t0, %t1; and.pred %t3, %t2, %t0; \
            or.pred %t4, %t3, %t1; not.pred %t8, %t4; {ENDP}"
        ),
        &i,
        |a, b, _| {
            let (p, q) = (a != 0, b > 5);
            (!(((p != q) && p) || q)).into()
        },
    );
    check(
        &b32("set.lt.u32.s32 %r8, %r0, %r1"),
        &i,
        |a, b, _| if s(a, 32) < s(b, 32) { 0xffff_ffff } else { 0 },
    );
    check(&f32_op("set.ge.f32.f32 %f8, %f0, %f1"), &floats, |a, b, _| {
        if f32::from_bits(a as u32) >= f32::from_bits(b as u32) { 0x3f80_0000 } else { 0 }
    });
    check(&b16("set.eq.f16.f16 %h8, %h0, %h1"), &integers(16), |a, b, _| {
        let nan = |v: u64| v & 0x7fff > 0x7c00;
        let same = a == b || (a | b) & 0x7fff == 0;
        if same && !nan(a) && !nan(b) { 0x3c00 } else { 0 }
    });
    check(&b32("set.lt.f16x2.f16x2 %r8, %r0, %r1"), &[[0x3c00_4000, 0x3c01_3c00, 0]], |_, _, _| 0x3c00_0000);
    check(&b32("slct.u32.s32 %r8, %r0, %r1, %r2"), &i, |a, b, c| if s(c, 32) >= 0 { a } else { b });
}

fn specials32() -> [u32; 22] {
    [
        0,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x3f80_0000,
        0x3f80_0001,
        0x3f7f_ffff,
        0x4000_0000,
        0x4b00_0001,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0000,
        0x7f80_0001,
        0x8000_0000,
        0x8000_0001,
        0x8080_0000,
        0xbf80_0000,
        0xbf80_0003,
        0xcb00_0001,
        0xff7f_ffff,
        0xff80_0000,
        0xffff_ffff,
    ]
}

/// Special values crossed, then random ones whose exponents are close enough to interact.
fn floats() -> Vec<[u64; 3]> {
    let sp = specials32();
    let mut v = Vec::new();
    for (i, a) in sp.iter().enumerate() {
        for (j, b) in sp.iter().enumerate() {
            v.push([u64::from(*a), u64::from(*b), u64::from(sp[(i * 7 + j) % sp.len()])]);
        }
    }
    let near = |b: u64| b & 0x80ff_ffff | (0x3d00_0000 + ((b >> 40 & 3) << 24));
    v.extend(bits(1500, 99).chunks(3).map(|c| [near(c[0]), near(c[1]), near(c[2])]));
    v.extend(bits(600, 98).chunks(3).map(|c| [c[0] & 0xffff_ffff, c[1] & 0xffff_ffff, c[2] & 0xffff_ffff]));
    v
}

const NAN: u64 = 0x7fff_ffff;

fn canon(v: f32) -> u64 {
    if v.is_nan() { NAN } else { v.to_bits().into() }
}

fn flushed(v: u64) -> f32 {
    let x = f32::from_bits(v as u32);
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

#[test]
fn single_precision_rounds_to_nearest_flushes_and_saturates() {
    let val = |v: u64| f32::from_bits(v as u32);
    let flush = |v: f32| if v.is_subnormal() { 0f32.copysign(v) } else { v };
    let sat = |v: f32| if v.is_nan() || v <= 0.0 { 0.0 } else { v.min(1.0) };
    let i = floats();
    type Binary = (&'static str, fn(f32, f32) -> f32);
    let ops: [Binary; 3] = [("add", |a, b| a + b), ("sub", |a, b| a - b), ("mul", |a, b| a * b)];
    for (op, f) in ops {
        check(&f32_op(&format!("{op}.f32 %f8, %f0, %f1")), &i, |a, b, _| canon(f(val(a), val(b))));
        check(&f32_op(&format!("{op}.rn.f32 %f8, %f0, %f1")), &i, |a, b, _| canon(f(val(a), val(b))));
        check(&f32_op(&format!("{op}.ftz.f32 %f8, %f0, %f1")), &i, |a, b, _| {
            canon(flush(f(flushed(a), flushed(b))))
        });
        check(&f32_op(&format!("{op}.sat.f32 %f8, %f0, %f1")), &i, |a, b, _| canon(sat(f(val(a), val(b)))));
        check(&f32_op(&format!("{op}.rn.ftz.sat.f32 %f8, %f0, %f1")), &i, |a, b, _| {
            canon(sat(flush(f(flushed(a), flushed(b)))))
        });
    }
    check(&f32_op("fma.rn.f32 %f8, %f0, %f1, %f2"), &i, |a, b, c| canon(val(a).mul_add(val(b), val(c))));
    check(&f32_op("fma.rn.ftz.f32 %f8, %f0, %f1, %f2"), &i, |a, b, c| {
        canon(flush(flushed(a).mul_add(flushed(b), flushed(c))))
    });
    check(&f32_op("div.rn.f32 %f8, %f0, %f1"), &i, |a, b, _| canon(val(a) / val(b)));
    check(&f32_op("rcp.rn.f32 %f8, %f0"), &i, |a, _, _| canon(1.0 / val(a)));
    check(&f32_op("sqrt.rn.f32 %f8, %f0"), &i, |a, _, _| canon(val(a).sqrt()));
    check(&f32_op("neg.f32 %f8, %f0"), &i, |a, _, _| a ^ 0x8000_0000);
    check(&f32_op("abs.f32 %f8, %f0"), &i, |a, _, _| a & 0x7fff_ffff);
    check(&f32_op("copysign.f32 %f8, %f0, %f1"), &i, |a, b, _| b & 0x7fff_ffff | a & 0x8000_0000);
    let less = |a: f32, b: f32| a < b || (a == b && a.is_sign_negative());
    check(&f32_op("min.f32 %f8, %f0, %f1"), &i, |a, b, _| match (val(a), val(b)) {
        (x, y) if x.is_nan() && y.is_nan() => NAN,
        (x, _) if x.is_nan() => b,
        (_, y) if y.is_nan() => a,
        (x, y) => {
            if less(x, y) {
                a
            } else {
                b
            }
        }
    });
    check(&f32_op("max.NaN.f32 %f8, %f0, %f1"), &i, |a, b, _| match (val(a), val(b)) {
        (x, y) if x.is_nan() || y.is_nan() => NAN,
        (x, y) => {
            if less(x, y) {
                b
            } else {
                a
            }
        }
    });
    for (test, f) in [
        ("finite", f32::is_finite as fn(f32) -> bool),
        ("infinite", f32::is_infinite),
        ("notanumber", f32::is_nan),
        ("number", |v| !v.is_nan()),
        ("normal", f32::is_normal),
        ("subnormal", f32::is_subnormal),
    ] {
        check(&format!("{F32} testp.{test}.f32 %t8, %f0; {ENDP}"), &i, |a, _, _| f(val(a)).into());
    }
}

/// Compares directed roundings with the exact value, which f64 holds for these operations and inputs.
#[test]
fn directed_roundings_are_the_neighbours_of_the_exact_value() {
    let val = |v: u64| f64::from(f32::from_bits(v as u32));
    // Products of two f32 are exact in f64; so are sums whose exponents differ by less than 28.
    let i: Vec<[u64; 3]> = floats().into_iter().skip(484).take(400).collect();
    type Binary = (&'static str, fn(f64, f64) -> f64);
    let ops: [Binary; 3] = [("add", |a, b| a + b), ("sub", |a, b| a - b), ("mul", |a, b| a * b)];
    for (op, f) in ops {
        for (mode, pick) in [
            ("rm", (|lo, _, _| lo) as fn(f32, f32, f64) -> f32),
            ("rp", |_, hi, _| hi),
            ("rz", |lo, hi, x| if x < 0.0 { hi } else { lo }),
        ] {
            check(&f32_op(&format!("{op}.{mode}.f32 %f8, %f0, %f1")), &i, |a, b, _| {
                let exact = f(val(a), val(b));
                let near = exact as f32;
                let (lo, hi) = match f64::from(near).partial_cmp(&exact) {
                    Some(std::cmp::Ordering::Less) => (near, near.next_up()),
                    Some(std::cmp::Ordering::Greater) => (near.next_down(), near),
                    _ => (near, near),
                };
                pick(lo, hi, exact).to_bits().into()
            });
        }
    }
    // Division and square root: q is the largest with q * b <= a, compared exactly in f64 (24 + 24 bits).
    check(&f32_op("div.rz.f32 %f8, %f0, %f1"), &i, |a, b, _| {
        let (x, y) = (val(a), val(b));
        let mut q = (x / y) as f32;
        if (f64::from(q) * y).abs() > x.abs() {
            q = f32::from_bits(q.to_bits() - 1);
        }
        q.to_bits().into()
    });
    let positive: Vec<[u64; 3]> = i.iter().map(|v| [v[0] & 0x7fff_ffff, 0, 0]).collect();
    check(&f32_op("sqrt.rp.f32 %f8, %f0"), &positive, |a, _, _| {
        let mut q = val(a).sqrt() as f32;
        while f64::from(q) * f64::from(q) < val(a) {
            q = q.next_up();
        }
        while f64::from(q.next_down()) * f64::from(q.next_down()) >= val(a) {
            q = q.next_down();
        }
        q.to_bits().into()
    });
}

#[test]
fn double_precision_is_the_hosts() {
    let r = bits(900, 55);
    let near = |b: u64| b & 0x800f_ffff_ffff_ffff | (0x3fe0_0000_0000_0000 + ((b >> 40 & 3) << 52));
    let mut i: Vec<[u64; 3]> = r.chunks(3).map(|c| [near(c[0]), near(c[1]), near(c[2])]).collect();
    for a in [0.0, -0.0, f64::INFINITY, f64::MIN_POSITIVE / 4.0, f64::MAX, 1.0, -3.5] {
        for b in [0.0, 2.0, f64::MAX, -1e-310] {
            i.push([f64::to_bits(a), f64::to_bits(b), 1f64.to_bits()]);
        }
    }
    let val = f64::from_bits;
    let canon = |v: f64| if v.is_nan() { 0xfff8_0000_0000_0000 } else { v.to_bits() };
    check("add.f64 %d, %a, %b;", &i, |a, b, _| canon(val(a) + val(b)));
    check("mul.rn.f64 %d, %a, %b;", &i, |a, b, _| canon(val(a) * val(b)));
    check("div.rn.f64 %d, %a, %b;", &i, |a, b, _| canon(val(a) / val(b)));
    check("fma.rn.f64 %d, %a, %b, %c;", &i, |a, b, c| canon(val(a).mul_add(val(b), val(c))));
    check("sqrt.rn.f64 %d, %a;", &i, |a, _, _| canon(val(a).sqrt()));
    check("neg.f64 %d, %a;", &i, |a, _, _| a ^ 1 << 63);
    // Towards zero: the magnitude never exceeds that of the nearest, and differs by at most one unit.
    for (i, d) in i.iter().zip(eval("mul.rz.f64 %d, %a, %b;", &i)) {
        let near = val(i[0]) * val(i[1]);
        let error = val(i[0]).mul_add(val(i[1]), -near);
        if near.is_finite() && near.abs() > 1e-290 {
            let toward = if error != 0.0 && (error > 0.0) != (near > 0.0) {
                near.to_bits() - 1
            } else {
                near.to_bits()
            };
            assert_eq!(d, toward, "{i:x?}");
        }
    }
}

#[test]
fn halves_and_brain_floats_round_once() {
    let halves: Vec<u16> = vec![
        0, 1, 0x3ff, 0x400, 0x3c00, 0x3c01, 0x7bff, 0x7c00, 0x7e00, 0x8000, 0x8001, 0xbc00, 0xfbff, 0xfc00,
        0x5140, 0x2e66,
    ];
    let mut i: Vec<[u64; 3]> = Vec::new();
    for a in &halves {
        for b in &halves {
            i.push([u64::from(*a), u64::from(*b), u64::from(halves[usize::from(a ^ b) % halves.len()])]);
        }
    }
    i.extend(bits(900, 44).chunks(3).map(|c| [c[0] & 0xffff, c[1] & 0xffff, c[2] & 0xffff]));
    let h = |v: u64| f64::from(from_f16(v as u16));
    let nan = |v: u64| v & 0x7fff > 0x7c00;
    let round = |v: f64| -> u64 {
        if v.is_nan() {
            return 0x7fff;
        }
        // f16 of an f64: the value is exact in f32 for sums and products of halves.
        if v.is_infinite() {
            return if v > 0.0 { 0x7c00 } else { 0xfc00 };
        }
        u64::from(f16_wide(v))
    };
    type Binary = (&'static str, fn(f64, f64) -> f64);
    let ops: [Binary; 3] = [("add", |a, b| a + b), ("sub", |a, b| a - b), ("mul", |a, b| a * b)];
    for (op, f) in ops {
        let value = |a: u64, b: u64| {
            let x = if nan(a) { f64::NAN } else { h_or_inf(a) };
            let y = if nan(b) { f64::NAN } else { h_or_inf(b) };
            f(x, y)
        };
        check(&b16(&format!("{op}.f16 %h8, %h0, %h1")), &i, |a, b, _| round(value(a, b)));
        check(&b16(&format!("{op}.sat.f16 %h8, %h0, %h1")), &i, |a, b, _| {
            let v = value(a, b);
            round(if v.is_nan() || v <= 0.0 { 0.0 } else { v.min(1.0) })
        });
        // Packed: two independent results.
        check(
            &b32(&format!(
                "prmt.b32 %r3, %r0, %r1, 0x5410; prmt.b32 %r4, %r1, %r0, 0x5410; {op}.f16x2 %r8, %r3, %r4"
            )),
            &i,
            |a, b, _| round(value(a, b)) | round(value(b, a)) << 16,
        );
    }
    // A product of halves plus a half needs at most 11 + 11 + 40 bits: f64 holds it when the exponents are close.
    let close: Vec<[u64; 3]> = bits(900, 43)
        .chunks(3)
        .map(|c| [c[0] & 0x83ff | 0x3800, c[1] & 0x83ff | 0x3c00, c[2] & 0x83ff | 0x3800])
        .collect();
    check(&b16("fma.rn.f16 %h8, %h0, %h1, %h2"), &close, |a, b, c| round(h(a) * h(b) + h(c)));
    check(&b16("fma.rn.relu.f16 %h8, %h0, %h1, %h2"), &close, |a, b, c| round((h(a) * h(b) + h(c)).max(0.0)));
    let bclose: Vec<[u64; 3]> = bits(900, 42)
        .chunks(3)
        .map(|c| [c[0] & 0x807f | 0x3f00, c[1] & 0x807f | 0x3f80, c[2] & 0x807f | 0x3f00])
        .collect();
    let b = |v: u64| f64::from(from_bf16(v as u16));
    check(&b16("fma.rn.bf16 %h8, %h0, %h1, %h2"), &bclose, |x, y, z| {
        u64::from(bf16((b(x) * b(y) + b(z)) as f32))
    });
    check(&b32("fma.rn.bf16x2 %r8, %r0, %r1, %r2"), &bclose, |x, y, z| {
        u64::from(bf16((b(x) * b(y) + b(z)) as f32))
    });
    check(&b16("max.bf16 %h8, %h0, %h1"), &bclose, |x, y, _| if b(x) > b(y) { x } else { y });
    check(&b16("min.NaN.f16 %h8, %h0, %h1"), &i, |x, y, _| {
        if nan(x) || nan(y) {
            return 0x7fff;
        }
        let key = |v: u64| if v & 0x8000 != 0 { -((v & 0x7fff) as i64) - 1 } else { v as i64 };
        if key(x) < key(y) { x } else { y }
    });
}

fn h_or_inf(v: u64) -> f64 {
    match v & 0x7fff {
        0x7c00 if v & 0x8000 != 0 => f64::NEG_INFINITY,
        0x7c00 => f64::INFINITY,
        _ => f64::from(from_f16(v as u16)),
    }
}

/// Nearest half of a finite f64, ties to even, overflow to infinity, by search.
fn f16_wide(v: f64) -> u16 {
    let sign = if v.is_sign_negative() { 0x8000 } else { 0 };
    let m = v.abs();
    if m >= 65520.0 {
        return sign | 0x7c00;
    }
    let value = |h: u16| if h == 0x7c00 { 65536.0 } else { f64::from(from_f16(h)) };
    let (mut lo, mut hi) = (0u16, 0x7c00u16);
    while hi - lo > 1 {
        let mid = lo + (hi - lo) / 2;
        if value(mid) <= m { lo = mid } else { hi = mid }
    }
    let (a, b) = (m - value(lo), value(hi) - m);
    sign | if a < b || (a == b && lo & 1 == 0) { lo } else { hi }
}

#[test]
fn conversions_round_clamp_and_extend() {
    let i = integers(64);
    for (to, w, signed) in [
        ("u8", 8, false),
        ("s8", 8, true),
        ("u16", 16, false),
        ("s16", 16, true),
        ("u32", 32, false),
        ("s32", 32, true),
    ] {
        let fit =
            move |v: i128| if signed { s(v as u64, w) as u64 } else { v as u64 & (u64::MAX >> (64 - w)) };
        // Into a 64-bit register: the result is extended by its sign.
        check(&format!("cvt.{to}.s64 %d, %a;"), &i, |a, _, _| fit(s(a, 64)));
        let (lo, hi) =
            if signed { (-(1i128 << (w - 1)), (1i128 << (w - 1)) - 1) } else { (0, (1i128 << w) - 1) };
        check(&format!("cvt.sat.{to}.s64 %d, %a;"), &i, |a, _, _| s(a, 64).clamp(lo, hi) as u64);
        check(&format!("cvt.sat.{to}.u64 %d, %a;"), &i, |a, _, _| i128::from(a).clamp(lo, hi) as u64);
        let f = floats();
        let val = |v: u64| f32::from_bits(v as u32);
        for (mode, r) in [
            ("rzi", f32::trunc as fn(f32) -> f32),
            ("rni", f32::round_ties_even),
            ("rmi", f32::floor),
            ("rpi", f32::ceil),
        ] {
            check(&format!("{F32} cvt.{mode}.{to}.f32 %d, %f0;"), &f, |a, _, _| {
                let v = r(val(a));
                if v.is_nan() { 0 } else { (f64::from(v).clamp(lo as f64, hi as f64) as i128) as u64 }
            });
        }
    }
    // A source register wider than its type, in every lane.
    check("cvt.s64.s32 %d, %a;", &i, |a, _, _| i64::from(a as i32) as u64);
    check("cvt.u64.u32 %d, %a;", &i, |a, _, _| a & 0xffff_ffff);
    check("cvt.s32.s8 %r8, %a; cvt.u64.u32 %d, %r8;", &i, |a, _, _| u64::from(i32::from(a as i8) as u32));
    check("cvt.rn.f32.s32 %f8, %a; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;", &i, |a, _, _| {
        (a as i32 as f32).to_bits().into()
    });
    check(
        "cvt.u32.u64 %r0, %a; cvt.f32.f16 %f8, %r0; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;",
        &i,
        |a, _, _| {
            if a & 0x7fff > 0x7c00 { NAN } else { (h_or_inf(a & 0xffff) as f32).to_bits().into() }
        },
    );
    let f = floats();
    let val = |v: u64| f32::from_bits(v as u32);
    check(&format!("{F32} cvt.rzi.s64.f32 %d, %f0;"), &f, |a, _, _| {
        if val(a).is_nan() { 1 << 63 } else { val(a) as i64 as u64 }
    });
    check(&format!("{F32} cvt.rzi.u64.f32 %d, %f0;"), &f, |a, _, _| {
        if val(a).is_nan() { 1 << 63 } else { val(a) as u64 }
    });
    check(&format!("{F32} cvt.f64.f32 %d, %f0;"), &f, |a, _, _| {
        if val(a).is_nan() { 0xfff8_0000_0000_0000 } else { f64::from(val(a)).to_bits() }
    });
    check(&f32_op("cvt.rni.f32.f32 %f8, %f0"), &f, |a, _, _| canon(val(a).round_ties_even()));
    check(&f32_op("cvt.rmi.ftz.f32.f32 %f8, %f0"), &f, |a, _, _| canon(flushed(a).floor()));
    check(&f32_op("cvt.sat.f32.f32 %f8, %f0"), &f, |a, _, _| {
        let v = val(a);
        canon(if v.is_nan() || v <= 0.0 { 0.0 } else { v.min(1.0) })
    });
    check("cvt.rn.f32.s64 %f8, %a; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;", &i, |a, _, _| {
        (a as i64 as f32).to_bits().into()
    });
    check("cvt.rn.f32.u64 %f8, %a; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;", &i, |a, _, _| {
        (a as f32).to_bits().into()
    });
    check("cvt.rz.f32.u64 %f8, %a; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;", &i, |a, _, _| {
        let near = a as f32;
        let down = if near as u128 > u128::from(a) { near.next_down() } else { near };
        down.to_bits().into()
    });
    check("cvt.rn.f64.s64 %d, %a;", &i, |a, _, _| (a as i64 as f64).to_bits());
    check("cvt.rn.f32.f64 %f8, %a; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;", &i, |a, _, _| {
        canon(f64::from_bits(a) as f32)
    });
    let half = |v: f32| -> u64 {
        if v.is_nan() {
            0x7fff
        } else if v.is_infinite() {
            if v > 0.0 { 0x7c00 } else { 0xfc00 }
        } else {
            f16_wide(v.into()).into()
        }
    };
    check(&format!("{F32} cvt.rn.f16.f32 %h8, %f0; cvt.u64.u16 %d, %h8;"), &f, |a, _, _| half(val(a)));
    let brain = |v: f32| if v.is_nan() { 0x7fff } else { u64::from(bf16(v)) };
    check(&format!("{F32} cvt.rn.bf16.f32 %h8, %f0; cvt.u64.u16 %d, %h8;"), &f, |a, _, _| brain(val(a)));
    check(&b32("mov.b32 %f0, %r0; mov.b32 %f1, %r1; cvt.rn.bf16x2.f32 %r8, %f0, %f1"), &f, |a, b, _| {
        brain(val(a)) << 16 | brain(val(b))
    });
    check(&b32("mov.b32 %f0, %r0; mov.b32 %f1, %r1; cvt.rn.relu.f16x2.f32 %r8, %f0, %f1"), &f, |a, b, _| {
        let relu = |v: f32| {
            if v.is_nan() {
                0x7fff
            } else if v.is_sign_negative() {
                0
            } else {
                half(v)
            }
        };
        relu(val(a)) << 16 | relu(val(b))
    });
    // tf32: ten bits, ties away from zero.
    check(&f32_op("cvt.rna.tf32.f32 %r8, %f0; mov.b32 %f8, %r8"), &f[484..], |a, _, _| {
        let v = val(a);
        if v.is_nan() || v.is_infinite() || a & 0x7fff_ffff >= 0x7f7f_f000 {
            return if v.is_nan() { NAN & !0x1fff } else { a & 0x8000_0000 | 0x7f80_0000 };
        }
        (a + 0x1000) & 0xffff_e000
    });
    let all: Vec<[u64; 3]> = (0..65536u64).step_by(7).map(|h| [h, 0, 0]).collect();
    check(
        "cvt.u16.u64 %h0, %a; cvt.f32.f16 %f8, %h0; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;",
        &all,
        |a, _, _| {
            if a & 0x7fff > 0x7c00 { NAN } else { (h_or_inf(a) as f32).to_bits().into() }
        },
    );
    check(
        "cvt.u16.u64 %h0, %a; cvt.f32.bf16 %f8, %h0; mov.b32 %r8, %f8; cvt.u64.u32 %d, %r8;",
        &all,
        |a, _, _| canon(from_bf16(a as u16)),
    );
    check("cvt.u16.u64 %h0, %a; cvt.rni.s32.f16 %r8, %h0; cvt.u64.u32 %d, %r8;", &all, |a, _, _| {
        if a & 0x7fff > 0x7c00 { 0 } else { (h_or_inf(a).round_ties_even() as i32) as u32 as u64 }
    });
}

#[test]
fn parts_are_packed_and_unpacked() {
    let i = integers(64);
    check("mov.b64 {%r0, %r1}, %a; mov.b64 %d, {%r1, %r0};", &i, |a, _, _| a.rotate_left(32));
    check("mov.b64 {%h0, %h1, %h2, %h3}, %a; mov.b64 %d, {%h3, %h2, %h1, %h0};", &i, |a, _, _| {
        (0..4).fold(0, |d, k| d | (a >> (16 * k) & 0xffff) << (48 - 16 * k))
    });
    check(&b32("mov.b32 {%h0, _}, %r0; mov.b32 {_, %h1}, %r1; mov.b32 %r8, {%h1, %h0}"), &i, |a, b, _| {
        (b >> 16 & 0xffff) | (a & 0xffff) << 16
    });
    check(&b32("mov.b32 %f0, %r0; mov.f32 %f1, 0f3F800000; mov.b32 %r8, %f1"), &i, |_, _, _| 0x3f80_0000);
}
