//! Boxes of up to four axes that move from one array to another: channels that are joined, picked or shuffled, windows of
//! parameters that are gathered and whose gradients are added.

use cudarc::driver::{CudaStream, DeviceRepr};

use crate::device::{Arg, DType, Device, Image, Input, Kernel, Output, Write, image};
use crate::divide::Divide;
use crate::error::{KernelError, Result};

const IMAGE: Image = image!("boxes");

/// Where a box lies in a flat array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its first element.
    pub offset: usize,
    /// Elements between neighbours along each axis.
    pub stride: [usize; 4],
}

impl Place {
    /// A whole array of this box alone.
    fn dense(len: [usize; 4]) -> Place {
        let [_, b, c, d] = len;
        Place { offset: 0, stride: [b * c * d, c * d, d, 1] }
    }

    /// Elements that an array needs to hold the box.
    fn reach(&self, len: [usize; 4]) -> Option<usize> {
        let mut last = self.offset;
        for (len, stride) in len.into_iter().zip(self.stride) {
            last = (len - 1).checked_mul(stride)?.checked_add(last)?;
        }
        last.checked_add(1)
    }

    /// Whether no two elements lie at one place: each stride steps over all that smaller ones reach.
    fn is_distinct(&self, len: [usize; 4]) -> bool {
        let mut axes: Vec<_> = self.stride.into_iter().zip(len).filter(|(_, len)| *len > 1).collect();
        axes.sort_unstable();
        let mut reach = 0;
        axes.into_iter().all(|(stride, len)| {
            let apart = stride > reach;
            reach += stride * (len - 1);
            apart
        })
    }
}

/// A box and both its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Box4 {
    /// Length of each axis.
    pub len: [usize; 4],
    /// Where it comes from.
    pub from: Place,
    /// Where it goes.
    pub to: Place,
}

impl Box4 {
    /// The way back: what a gradient takes.
    pub fn reversed(self) -> Box4 {
        Box4 { len: self.len, from: self.to, to: self.from }
    }

    /// `count` channels of `rows`: channels `start`, `start + step`, … of `from [rows, c]` become those of `to`; each is
    /// `[c, start, step]`. Joining and picking.
    pub fn channels(rows: usize, count: usize, from: [usize; 3], to: [usize; 3]) -> Box4 {
        let place = |[c, start, step]: [usize; 3]| Place { offset: start, stride: [c, 0, 0, step] };
        Box4 { len: [rows, 1, 1, count], from: place(from), to: place(to) }
    }

    /// Shuffled channels: `[rows, groups, c / groups]` becomes `[rows, c / groups, groups]`.
    pub fn shuffle(rows: usize, c: usize, groups: usize) -> Box4 {
        let each = c / groups.max(1);
        Box4 {
            len: [rows, 1, groups, each],
            from: Place { offset: 0, stride: [c, 0, each, 1] },
            to: Place { offset: 0, stride: [c, 0, 1, groups] },
        }
    }

    /// A window `start..start + len` of a parameter of shape `shape` at `offset` of the flat buffer, gathered; the
    /// reverse adds its gradient. Unused axes come first, with length 1.
    pub fn window(offset: usize, shape: [usize; 4], start: [usize; 4], len: [usize; 4]) -> Box4 {
        let whole = Place::dense(shape);
        let at: usize = start.iter().zip(whole.stride).map(|(start, stride)| start * stride).sum();
        Box4 { len, from: Place { offset: offset + at, stride: whole.stride }, to: Place::dense(len) }
    }
}

/// `Move` of `boxes.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Dims {
    n: i32,
    add: i32,
    from: [i32; 4],
    to: [i32; 4],
    by: [Divide; 3],
    // Low and high words of the first element's place.
    offset_from: [u32; 2],
    offset_to: [u32; 2],
}

// SAFETY: plain 32-bit numbers in the order of the kernel's struct.
unsafe impl DeviceRepr for Dims {}

/// `to (+)= from` for the elements of a box.
#[derive(Debug)]
pub struct Move {
    kernel: Kernel,
    dtype: DType,
    dims: Dims,
    reach: [usize; 2],
}

impl Move {
    /// Prepares launches over f32 or bf16.
    ///
    /// # Errors
    /// An axis without elements, two elements that go to one place, a box that is too large; the driver's.
    pub fn new(device: &Device, dtype: DType, b: Box4) -> Result<Move> {
        let wrong = |what, value, expected| Err(KernelError::Shape { op: "boxes", what, value, expected });
        if b.len.contains(&0) {
            return wrong("length of an axis", 0, "1 or more");
        }
        let elements = b.len.iter().try_fold(1usize, |n, len| n.checked_mul(*len)).unwrap_or(usize::MAX);
        if elements > 1 << 30 {
            return wrong("elements of a box", elements, "at most 2^30");
        }
        let (Some(from), Some(to)) = (b.from.reach(b.len), b.to.reach(b.len)) else {
            return wrong("offset of a box", b.from.offset.max(b.to.offset), "a box within an array");
        };
        let widest = b.from.stride.into_iter().chain(b.to.stride).max().unwrap_or(0);
        if widest > i32::MAX as usize {
            return wrong("stride of a box", widest, "at most 2^31 - 1");
        }
        if !b.to.is_distinct(b.len) {
            return wrong("stride of a box", widest, "no two elements at one place");
        }
        let vector = 16 / dtype.size();
        let whole = |p: &Place| {
            p.stride[3] == 1
                && p.offset.is_multiple_of(vector)
                && (0..3).all(|i| b.len[i] == 1 || p.stride[i].is_multiple_of(vector))
        };
        let vectors = b.len[3].is_multiple_of(vector) && whole(&b.from) && whole(&b.to);
        let (each, suffix) = if vectors { (vector, "_vector") } else { (1, "") };
        let strides = |p: &Place| {
            let [s0, s1, s2, s3] = p.stride.map(|s| s as i32);
            [s0, s1, s2, s3 * each as i32]
        };
        let words = |v: usize| [v as u32, (v as u64 >> 32) as u32];
        let dims = Dims {
            n: (elements / each) as i32,
            add: 0,
            from: strides(&b.from),
            to: strides(&b.to),
            by: [b.len[1], b.len[2], b.len[3] / each].map(Divide::new),
            offset_from: words(b.from.offset),
            offset_to: words(b.to.offset),
        };
        let kernel = device.kernel(&IMAGE, format!("boxes_{dtype}{suffix}"), 0)?;
        Ok(Move { kernel, dtype, dims, reach: [from, to] })
    }

    /// Launches.
    ///
    /// # Errors
    /// A buffer of the wrong type or too short; the driver's.
    pub fn launch(&self, stream: &CudaStream, from: Input<'_>, to: Output<'_>, write: Write) -> Result<()> {
        let args =
            [Arg::In("from", from, self.dtype, self.reach[0]), Arg::Out("to", to, self.dtype, self.reach[1])];
        let dims = Dims { add: write.adds(), ..self.dims };
        let blocks = (self.dims.n as u32).div_ceil(256);
        // SAFETY: these are the kernel's parameters; it stays within the sizes that were checked.
        unsafe { self.kernel.launch(stream, [blocks, 1, 1], 256, &args, &dims) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_where_elements_meet_are_found() {
        let place = |stride| Place { offset: 0, stride };
        assert!(place([12, 6, 2, 1]).is_distinct([3, 2, 3, 2]));
        assert!(place([12, 0, 1, 3]).is_distinct([3, 1, 3, 4]), "a shuffle");
        assert!(!place([12, 6, 2, 1]).is_distinct([3, 2, 3, 3]));
        assert!(!place([4, 0, 0, 0]).is_distinct([3, 1, 1, 2]));
    }
}
