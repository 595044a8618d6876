//! Stochastic gradient descent with momentum over the touched parameters, in one launch.
//!
//! Parameters, gradients and momenta lie in flat buffers; what a step touched is a list of [`Range`]s. Everything else
//! stands still: no decay, no momentum.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, image};
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("optimizer");

/// Elements of a piece: four per thread.
const PIECE: usize = 1024;

/// 32-bit words of a piece in the table.
const WORDS: usize = 8;

/// Rows of elements in the flat buffers: a whole parameter is one row, a window of one has several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// First element.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub row_len: usize,
    /// Elements from one row to the next.
    pub stride: usize,
    /// Weight decay.
    pub decay: f32,
}

/// The touched ranges cut into pieces, as the kernel wants them; valid for buffers of the length that was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    words: Vec<i32>,
    buffers: usize,
}

impl Table {
    /// Cuts ranges of buffers with `buffers` elements.
    ///
    /// # Errors
    /// A range that is empty, that reaches past the buffers, or whose rows overlap.
    pub fn new(ranges: &[Range], buffers: usize) -> Result<Table> {
        let wrong =
            |what, value, expected| Err(KernelError::Shape { op: "sgd_update", what, value, expected });
        if buffers > i32::MAX as usize {
            return wrong("length of the buffers", buffers, "at most 2^31 - 1");
        }
        let mut words = Vec::new();
        for r in ranges {
            if r.rows == 0 || r.row_len == 0 {
                return wrong("elements of a range", 0, "1 or more");
            }
            if r.rows > 1 && r.stride < r.row_len {
                return wrong("stride of a range", r.stride, "at least the length of a row");
            }
            let last = (r.rows - 1).checked_mul(r.stride).and_then(|v| v.checked_add(r.offset));
            let Some(end) = last.and_then(|v| v.checked_add(r.row_len)).filter(|end| *end <= buffers) else {
                return wrong("offset of a range", r.offset, "a range within the buffers");
            };
            let mut piece = |offset: usize, row: usize, rows: usize| {
                let vectors = rows == 1 && offset.is_multiple_of(4) && row.is_multiple_of(4)
                    || [offset, row, r.stride].iter().all(|v| v.is_multiple_of(4));
                let magic = if rows > 1 { (1u64 << 32).div_ceil(row as u64) as u32 } else { 0 };
                words.extend([
                    offset as i32,
                    row as i32,
                    if rows > 1 { r.stride as i32 } else { 0 },
                    (row * rows) as i32,
                    magic as i32,
                    r.decay.to_bits() as i32,
                    i32::from(vectors),
                    0,
                ]);
            };
            if r.stride == r.row_len || r.rows == 1 {
                // One stretch.
                let mut from = r.offset;
                while from < end {
                    let len = (end - from).min(PIECE);
                    piece(from, len, 1);
                    from += len;
                }
            } else {
                for row in (0..r.rows).step_by((PIECE / r.row_len).max(1)) {
                    let rows = (PIECE / r.row_len).max(1).min(r.rows - row);
                    let start = r.offset + row * r.stride;
                    for from in (0..r.row_len).step_by(PIECE) {
                        piece(start + from, (r.row_len - from).min(PIECE), rows);
                    }
                }
            }
        }
        Ok(Table { words, buffers })
    }

    /// The table as it goes to the device.
    pub fn words(&self) -> &[i32] {
        &self.words
    }

    /// Elements of the buffers that it was made for.
    pub(crate) fn buffers(&self) -> usize {
        self.buffers
    }

    /// Pieces, and so blocks of a launch.
    pub fn pieces(&self) -> usize {
        self.words.len() / WORDS
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    momentum: f32,
    nesterov: i32,
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// `g += decay * p; m = momentum * m + g; p -= lr * (nesterov ? g + momentum * m : m)`; gradients become zero.
#[derive(Debug)]
pub struct Sgd {
    dims: Dims,
    kernel: Kernel,
}

/// Buffers of [`Sgd`]. The flat ones have equal lengths.
#[derive(Debug)]
pub struct SgdArgs<'a> {
    /// The words of the [`Table`], on the device.
    pub pieces: Input<'a>,
    /// Learning rate `[1]`, f32.
    pub lr: Input<'a>,
    /// Not zero: nothing moves, gradients are cleared, `[1]`, i32.
    pub skip: Option<Input<'a>>,
    /// Parameters, f32.
    pub values: Output<'a>,
    /// Gradients, f32.
    pub grads: Output<'a>,
    /// Momenta, f32.
    pub momenta: Output<'a>,
    /// Parameters rounded to bf16, for products that want them so.
    pub copy: Option<Output<'a>>,
}

impl Sgd {
    /// Prepares launches.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Device, momentum: f32, nesterov: bool) -> Result<Sgd> {
        let kernel = device.kernel(&IMAGE, "sgd_update".into(), 0)?;
        Ok(Sgd { dims: Dims { momentum, nesterov: i32::from(nesterov) }, kernel })
    }

    /// Launches for the ranges of `table`; no ranges, no launch.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    ///
    /// # Safety
    /// When the launch runs, `a.pieces` holds the table's words: they say where the kernel writes.
    pub unsafe fn launch(&self, stream: &CudaStream, table: &Table, a: SgdArgs<'_>) -> Result<()> {
        if table.pieces() == 0 {
            return Ok(());
        }
        let (n, f32) = (table.buffers, DType::F32);
        let args = [
            Arg::In("pieces", a.pieces, DType::I32, table.words.len()),
            Arg::In("lr", a.lr, f32, 1),
            Arg::perhaps("skip", a.skip, DType::I32, 1),
            Arg::Out("values", a.values, f32, n),
            Arg::Out("grads", a.grads, f32, n),
            Arg::Out("momenta", a.momenta, f32, n),
            Arg::perhaps_out("copy", a.copy, DType::Bf16, n),
        ];
        // SAFETY: these are the kernel's parameters; the table's pieces lie within `n` elements, and the caller
        // promises that they are the ones on the device.
        unsafe { self.kernel.launch(stream, [table.pieces() as u32, 1, 1], 256, &args, &self.dims) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Range = Range { offset: 8, rows: 3, row_len: 20, stride: 40, decay: 0.1 };

    #[test]
    fn rows_share_pieces_and_long_rows_are_cut() {
        assert_eq!(Table::new(&[WINDOW], 200).expect("it fits").pieces(), 1);
        let whole = Range { offset: 0, rows: 1, row_len: 2500, stride: 2500, decay: 0.0 };
        assert_eq!(Table::new(&[whole], 2500).expect("it fits").pieces(), 3);
        let wide = Range { offset: 0, rows: 2, row_len: 1500, stride: 1600, decay: 0.0 };
        assert_eq!(Table::new(&[wide], 3100).expect("it fits").pieces(), 4);
        assert_eq!(Table::new(&[], 0).expect("nothing fits").pieces(), 0);
    }

    #[test]
    fn ranges_outside_are_refused() {
        for r in [
            Range { rows: 0, ..WINDOW },
            Range { stride: 19, ..WINDOW },
            Range { offset: 101, ..WINDOW },
            Range { stride: usize::MAX, ..WINDOW },
        ] {
            assert!(Table::new(&[r], 200).is_err(), "{r:?}");
        }
    }
}
