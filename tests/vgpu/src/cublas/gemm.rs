//! Matrix products: what a call asks for, the checks of its sizes, and the computation.

use super::number::Element;
use crate::driver::device::{Done, Refusal};
use crate::driver::work::{Math, MathError};
use crate::memory::{Footprint, Memory, MemoryError};

/// Largest number of multiply-adds of one call.
const MOST_WORK: u128 = 1 << 40;

/// A column-major matrix in device memory, or a batch of them.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// Its name in the call, for messages.
    pub name: char,
    /// Address of the first element.
    pub at: u64,
    /// Type.
    pub element: Element,
    /// Rows as stored.
    pub rows: u64,
    /// Columns as stored.
    pub columns: u64,
    /// Elements from one column to the next.
    pub ld: i64,
    /// Elements from one matrix of a batch to the next.
    pub stride: i64,
}

impl Matrix {
    /// Checks the leading dimension, the alignment and that no address overflows.
    ///
    /// # Errors
    /// By name of the operand.
    pub fn check(&self, batch: u64) -> Done {
        let Matrix { name, at, rows, columns, ld, stride, .. } = *self;
        let size = self.element.bytes();
        if ld < rows.max(1) as i64 {
            return Err(Refusal::argument(format!(
                "ld{} is {ld}, but {name} is stored with {rows} rows (and {columns} columns): at least {} is needed",
                name.to_ascii_lowercase(),
                rows.max(1)
            )));
        }
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        if at == 0 || !at.is_multiple_of(size) {
            return Err(Refusal::argument(format!(
                "{name} is at {at:#x}, which is no address of {size}-byte elements"
            )));
        }
        let end = (i128::from(columns - 1) * i128::from(ld)
            + i128::from(rows)
            + i128::from(batch.max(1) - 1) * i128::from(stride))
            * i128::from(size)
            + i128::from(at);
        if !(0..1 << 62).contains(&end) {
            return Err(Refusal::argument(format!("{name} reaches past every address")));
        }
        Ok(())
    }

    /// Address of a column.
    fn column(&self, batch: u64, column: u64) -> u64 {
        let elements = i128::from(batch) * i128::from(self.stride) + i128::from(column) * i128::from(self.ld);
        (i128::from(self.at) + elements * i128::from(self.element.bytes())) as u64
    }

    fn wrong(&self, column: u64, error: MemoryError) -> MathError {
        let Matrix { name, rows, columns, ld, .. } = *self;
        let operand = format!(
            "{name} ({rows} x {columns} as stored, ld{} {ld}), column {column}",
            name.to_ascii_lowercase()
        );
        MathError { operand, error }
    }

    pub(super) fn read(
        &self,
        memory: &Memory,
        touched: &mut Footprint,
        batch: u64,
    ) -> Result<Vec<f64>, MathError> {
        let mut all = Vec::with_capacity((self.rows * self.columns) as usize);
        for column in 0..self.columns {
            let at = self.column(batch, column);
            let bytes = memory
                .read(at, (self.rows * self.element.bytes()) as usize)
                .map_err(|e| self.wrong(column, e))?;
            touched.reads(at, bytes.len() as u64);
            all.extend(self.element.decode(&bytes));
        }
        Ok(all)
    }

    fn write(
        &self,
        memory: &Memory,
        touched: &mut Footprint,
        batch: u64,
        values: &[f64],
    ) -> Result<(), MathError> {
        let mut bytes = Vec::with_capacity((self.rows * self.element.bytes()) as usize);
        for column in 0..self.columns {
            bytes.clear();
            let at = (column * self.rows) as usize;
            for v in &values[at..at + self.rows as usize] {
                self.element.encode(*v, &mut bytes);
            }
            let to = self.column(batch, column);
            memory.write(to, &bytes).map_err(|e| self.wrong(column, e))?;
            touched.writes(to, bytes.len() as u64);
        }
        Ok(())
    }
}

/// What a `cublasComputeType_t` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compute {
    /// Type of alpha and beta.
    pub scalar: Element,
    /// The library may round inputs of single precision; this stand-in never does.
    pub fast: bool,
}

impl Compute {
    /// The meaning of a number.
    ///
    /// # Errors
    /// Integers and unknown ones.
    pub fn of_number(number: u32) -> Done<Compute> {
        let (scalar, fast) = match number {
            64 | 65 => (Element::F16, false),
            68 | 69 => (Element::F32, false),
            70 | 71 => (Element::F64, false),
            74 | 75 | 77 => (Element::F32, true),
            other => return Err(Refusal::unsupported(format!("compute type {other}"))),
        };
        Ok(Compute { scalar, fast })
    }

    /// Checks that the libraries know this combination of types.
    ///
    /// # Errors
    /// They do not.
    pub fn check(self, a: Element, b: Element, c: Element) -> Done {
        use Element::{Bf16, F16, F32, F64};
        let known = match self.scalar {
            F16 => (a, b, c) == (F16, F16, F16),
            F32 => {
                let same = a == b && a != F64 && (c == a || c == F32);
                same && (!self.fast || a == F32)
            }
            F64 => (a, b, c) == (F64, F64, F64),
            Bf16 => false,
        };
        if known {
            return Ok(());
        }
        Err(Refusal::unsupported(format!(
            "a product of {a:?} and {b:?} into {c:?} computed in {:?}",
            self.scalar
        )))
    }
}

/// Alpha or beta.
#[derive(Debug, Clone, Copy)]
pub enum Scalar {
    /// Known at the call.
    Known(f64),
    /// In device memory, read when the product runs.
    Device {
        /// Its name, for messages.
        name: &'static str,
        /// Address.
        at: u64,
        /// Type.
        element: Element,
    },
}

impl Scalar {
    /// Its value.
    pub fn value(self, memory: &Memory) -> Result<f64, MathError> {
        match self {
            Scalar::Known(v) => Ok(v),
            Scalar::Device { name, at, element } => memory
                .read(at, element.bytes() as usize)
                .map(|b| element.decode_one(&b))
                .map_err(|error| MathError { operand: name.into(), error }),
        }
    }
}

/// What follows a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// max(x, 0).
    Relu,
    /// The Gaussian error linear unit by its tanh approximation.
    Gelu,
}

impl Activation {
    fn apply(self, x: f64) -> f64 {
        match self {
            Activation::None => x,
            Activation::Relu => x.max(0.0),
            Activation::Gelu => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }
}

/// D = activation(alpha op(A) op(B) + beta C + bias), for a batch.
#[derive(Debug, Clone)]
pub struct Gemm {
    /// A is used transposed.
    pub transpose_a: bool,
    /// B is used transposed.
    pub transpose_b: bool,
    /// Length of the sums.
    pub k: u64,
    /// First factor.
    pub a: Matrix,
    /// Second factor.
    pub b: Matrix,
    /// Added to the product; not read if beta is 0.
    pub c: Matrix,
    /// Result.
    pub d: Matrix,
    /// Number of products.
    pub batch: u64,
    /// Factor of the product.
    pub alpha: Scalar,
    /// Factor of C.
    pub beta: Scalar,
    /// A value per row: address, type, elements from one product of the batch to the next.
    pub bias: Option<(u64, Element, i64)>,
    /// What follows.
    pub activation: Activation,
}

impl Gemm {
    /// Checks sizes, leading dimensions and the amount of work.
    ///
    /// # Errors
    /// By name of the operand.
    pub fn check(&self) -> Done {
        for m in [&self.a, &self.b, &self.c, &self.d] {
            m.check(self.batch)?;
        }
        let work = u128::from(self.d.rows)
            * u128::from(self.d.columns)
            * u128::from(self.k)
            * u128::from(self.batch);
        if work > MOST_WORK {
            return Err(Refusal::unsupported(format!(
                "{work} multiply-adds in one call (at most {MOST_WORK})"
            )));
        }
        Ok(())
    }
}

impl Math for Gemm {
    fn run(&self, memory: &Memory, touched: &mut Footprint) -> Result<(), MathError> {
        let (m, n, k) = (self.d.rows as usize, self.d.columns as usize, self.k as usize);
        let alpha = self.alpha.value(memory)?;
        let beta = self.beta.value(memory)?;
        for batch in 0..self.batch {
            let mut out = vec![0.0; m * n];
            if alpha != 0.0 && k > 0 {
                let a = self.a.read(memory, touched, batch)?;
                let b = self.b.read(memory, touched, batch)?;
                // Rows of op(A) and columns of op(B), each contiguous.
                let a = if self.transpose_a { a } else { transposed(&a, m, k) };
                let b = if self.transpose_b { transposed(&b, n, k) } else { b };
                for (column, b) in out.chunks_exact_mut(m.max(1)).zip(b.chunks_exact(k)) {
                    for (x, a) in column.iter_mut().zip(a.chunks_exact(k)) {
                        *x = alpha * a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                    }
                }
            }
            if beta != 0.0 {
                let c = self.c.read(memory, touched, batch)?;
                out.iter_mut().zip(&c).for_each(|(x, c)| *x += beta * c);
            }
            if let Some((at, element, stride)) = self.bias {
                let at = (at as i64 + batch as i64 * stride * element.bytes() as i64) as u64;
                let bytes = memory
                    .read(at, m * element.bytes() as usize)
                    .map_err(|error| MathError { operand: format!("bias ({m} values)"), error })?;
                touched.reads(at, bytes.len() as u64);
                let bias = element.decode(&bytes);
                for column in out.chunks_exact_mut(m.max(1)) {
                    column.iter_mut().zip(&bias).for_each(|(x, b)| *x += b);
                }
            }
            if self.activation != Activation::None {
                out.iter_mut().for_each(|x| *x = self.activation.apply(*x));
            }
            self.d.write(memory, touched, batch, &out)?;
        }
        Ok(())
    }

    fn multiply_adds(&self) -> u64 {
        self.d.rows * self.d.columns * self.k * self.batch
    }
}

/// A column-major matrix of `rows` rows, with its rows made contiguous.
fn transposed(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for r in 0..rows {
        out.extend((0..columns).map(|c| values[c * rows + r]));
    }
    out
}

/// Products of different sizes whose matrices are named by arrays of addresses in device memory.
#[derive(Debug, Clone)]
pub struct Grouped {
    /// One product per group with the number of times it is done; addresses of the matrices are filled in later.
    pub groups: Vec<(Gemm, u64)>,
    /// Arrays of addresses of A, B and C.
    pub arrays: [u64; 3],
}

impl Math for Grouped {
    fn run(&self, memory: &Memory, touched: &mut Footprint) -> Result<(), MathError> {
        let mut index = 0;
        for (gemm, count) in &self.groups {
            for _ in 0..*count {
                let mut at = [0; 3];
                for ((at, array), name) in at.iter_mut().zip(self.arrays).zip(["A", "B", "C"]) {
                    let bytes = memory.read(array + index * 8, 8).map_err(|error| MathError {
                        operand: format!("array of addresses of {name}"),
                        error,
                    })?;
                    *at = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                }
                let mut one = gemm.clone();
                (one.a.at, one.b.at, one.c.at, one.d.at) = (at[0], at[1], at[2], at[2]);
                one.run(memory, touched)?;
                index += 1;
            }
        }
        Ok(())
    }

    fn multiply_adds(&self) -> u64 {
        self.groups.iter().map(|(g, n)| g.multiply_adds() * n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Origin;

    fn store(memory: &Memory, values: &[f32]) -> u64 {
        let at = memory.alloc(values.len() as u64 * 4, Origin::Malloc).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        memory.write(at, &bytes).unwrap();
        at
    }

    fn matrix(name: char, at: u64, rows: u64, columns: u64, ld: i64) -> Matrix {
        Matrix { name, at, element: Element::F32, rows, columns, ld, stride: 0 }
    }

    fn product(a: Matrix, b: Matrix, d: Matrix, transpose: (bool, bool), k: u64) -> Gemm {
        Gemm {
            transpose_a: transpose.0,
            transpose_b: transpose.1,
            k,
            a,
            b,
            c: d,
            d,
            batch: 1,
            alpha: Scalar::Known(2.0),
            beta: Scalar::Known(0.0),
            bias: None,
            activation: Activation::None,
        }
    }

    #[test]
    fn every_transposition_gives_the_product() {
        let memory = Memory::new(1 << 20);
        let (m, n, k) = (3usize, 2usize, 4usize);
        let a = |r: usize, c: usize| (r * 5 + c) as f32 - 3.0;
        let b = |r: usize, c: usize| (r * 3 + c * 7) as f32 - 8.0;
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let (ar, ac) = if ta { (k, m) } else { (m, k) };
            let (br, bc) = if tb { (n, k) } else { (k, n) };
            let ld = 6;
            let fill = |rows: usize, columns: usize, of: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
                (0..columns * ld).map(|i| if i % ld < rows { of(i % ld, i / ld) } else { f32::NAN }).collect()
            };
            let av = fill(ar, ac, &|r, c| if ta { a(c, r) } else { a(r, c) });
            let bv = fill(br, bc, &|r, c| if tb { b(c, r) } else { b(r, c) });
            let at = memory.alloc(256, Origin::Malloc).unwrap();
            let g = product(
                matrix('A', store(&memory, &av), ar as u64, ac as u64, ld as i64),
                matrix('B', store(&memory, &bv), br as u64, bc as u64, ld as i64),
                matrix('C', at, m as u64, n as u64, m as i64),
                (ta, tb),
                k as u64,
            );
            g.check().unwrap();
            g.run(&memory, &mut Footprint::default()).unwrap();
            let got = Element::F32.decode(&memory.read(at, m * n * 4).unwrap());
            for c in 0..n {
                for r in 0..m {
                    let want: f32 = (0..k).map(|i| 2.0 * a(r, i) * b(i, c)).sum();
                    assert_eq!(got[c * m + r], f64::from(want), "({r}, {c}) {ta} {tb}");
                }
            }
        }
    }

    #[test]
    fn a_short_leading_dimension_is_named() {
        let g = product(
            matrix('A', 256, 3, 4, 2),
            matrix('B', 256, 4, 2, 4),
            matrix('C', 256, 3, 2, 3),
            (false, false),
            4,
        );
        match g.check() {
            Err(Refusal::Said(_, _, text)) => {
                assert!(text.contains("lda is 2") && text.contains("3 rows"), "{text}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_short_operand_is_named_when_it_runs() {
        let memory = Memory::new(1 << 20);
        let a = store(&memory, &[1.0; 12]);
        let b = store(&memory, &[1.0; 7]);
        let c = store(&memory, &[0.0; 6]);
        let g = product(
            matrix('A', a, 3, 4, 3),
            matrix('B', b, 4, 2, 4),
            matrix('C', c, 3, 2, 3),
            (false, false),
            4,
        );
        let e = g.run(&memory, &mut Footprint::default()).unwrap_err();
        assert!(e.operand.starts_with("B (4 x 2"), "{e}");
        assert!(matches!(e.error, MemoryError::OutOfBounds { .. }));
    }

    #[test]
    fn activations_are_what_they_say() {
        assert_eq!(Activation::Relu.apply(-1.0), 0.0);
        assert!((Activation::Gelu.apply(1.0) - 0.841_192).abs() < 1e-6);
        assert_eq!(Activation::None.apply(-3.0), -3.0);
    }

    #[test]
    fn only_known_combinations_of_types_pass() {
        let f32s = Compute::of_number(68).unwrap();
        assert!(f32s.check(Element::Bf16, Element::Bf16, Element::F32).is_ok());
        assert!(f32s.check(Element::Bf16, Element::F16, Element::F32).is_err());
        assert!(f32s.check(Element::F64, Element::F64, Element::F64).is_err());
        assert!(Compute::of_number(77).unwrap().check(Element::F32, Element::F32, Element::F32).is_ok());
        assert!(Compute::of_number(72).is_err());
    }
}
