//! `printf` of kernels, and the texts of assertions.

use crate::fault::FaultKind;
use crate::ptx::inst::*;
use crate::ptx::types::Space;

use super::alu::lanes;
use super::warp::Warp;
use super::{Cx, Trouble, window};

/// Longest text that is read.
const LONGEST: u64 = 4096;

/// The text at an address of device memory, up to its NUL.
pub(super) fn text(cx: &Cx<'_>, address: u64) -> Option<String> {
    let mut bytes = Vec::new();
    for i in 0..LONGEST {
        match cx.memory.read(address.wrapping_add(i), 1).ok()?[0] {
            0 => break,
            b => bytes.push(b),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The arguments of a call: bytes with natural alignment in local memory.
struct Arguments<'w> {
    local: &'w [u8],
    at: usize,
}

impl Arguments<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.at = self.at.next_multiple_of(N);
        let bytes = self.local.get(self.at..self.at + N)?.try_into().ok();
        self.at += N;
        bytes
    }
}

/// Formats and prints, lane by lane.
pub(super) fn run(warp: &mut Warp, cx: &mut Cx<'_>, inst: &Inst, pc: u32, m: u32) -> Result<(), Trouble> {
    let r = warp.view(cx.consts);
    let (formats, values) = (*r.r64(inst.a), *r.r64(inst.b));
    for l in lanes(m) {
        let wrong = |what: &str| Trouble::new(FaultKind::OutOfBounds, pc, l, format!("printf: {what}"));
        let format = text(cx, formats[l]).ok_or_else(|| wrong("the format is not readable"))?;
        let frame = cx.code.local_bytes as usize;
        let at = values[l].wrapping_sub(window::base(Space::Local));
        let local = &warp.local[l * frame..(l + 1) * frame];
        let mut arguments = Arguments { local, at: at.min(frame as u64) as usize };
        let out = formatted(cx, &format, &mut arguments)
            .ok_or_else(|| wrong("arguments and format do not agree"))?;
        cx.memory.print(&out);
    }
    Ok(())
}

fn formatted(cx: &Cx<'_>, format: &str, args: &mut Arguments<'_>) -> Option<String> {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut width, mut precision, mut long) = (false, false, 0usize, None, false);
        let spec = loop {
            match chars.next()? {
                '-' => left = true,
                '0' if width == 0 && precision.is_none() => zero = true,
                '+' | ' ' | '#' => {}
                '.' => precision = Some(0usize),
                d @ '0'..='9' => {
                    let field = precision.as_mut().unwrap_or(&mut width);
                    *field = (*field * 10 + d as usize - '0' as usize).min(1000);
                }
                'l' | 'z' | 'j' | 't' => long = true,
                'h' => {}
                spec => break spec,
            }
        };
        let mut int = |signed: bool| -> Option<i128> {
            Some(match (long, signed) {
                (true, true) => i64::from_le_bytes(args.take()?).into(),
                (true, false) => u64::from_le_bytes(args.take()?).into(),
                (false, true) => i32::from_le_bytes(args.take()?).into(),
                (false, false) => u32::from_le_bytes(args.take()?).into(),
            })
        };
        let piece = match spec {
            '%' => "%".to_string(),
            'd' | 'i' => int(true)?.to_string(),
            'u' => int(false)?.to_string(),
            'x' => format!("{:x}", int(false)?),
            'X' => format!("{:X}", int(false)?),
            'o' => format!("{:o}", int(false)?),
            'c' => char::from(int(false)? as u8).to_string(),
            'p' => format!("{:#x}", u64::from_le_bytes(args.take()?)),
            's' => text(cx, u64::from_le_bytes(args.take()?))?,
            'f' | 'F' => format!("{:.*}", precision.unwrap_or(6), f64::from_le_bytes(args.take()?)),
            'e' | 'E' | 'g' | 'G' => {
                let v = f64::from_le_bytes(args.take()?);
                if matches!(spec, 'e' | 'E') {
                    format!("{v:.*e}", precision.unwrap_or(6))
                } else {
                    format!("{v}")
                }
            }
            _ => return None,
        };
        let pad = width.saturating_sub(piece.chars().count());
        match (left, zero) {
            (true, _) => {
                out.push_str(&piece);
                out.push_str(&" ".repeat(pad));
            }
            (false, true) => {
                out.push_str(&"0".repeat(pad));
                out.push_str(&piece);
            }
            (false, false) => {
                out.push_str(&" ".repeat(pad));
                out.push_str(&piece);
            }
        }
    }
    Some(out)
}
