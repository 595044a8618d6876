//! Matrix times vector, and sums of magnitudes.

use super::gemm::{Matrix, Scalar};
use super::number::Element;
use crate::driver::device::{Done, Refusal};
use crate::driver::work::{Math, MathError};
use crate::memory::{Footprint, Memory};

/// A vector in device memory.
#[derive(Debug, Clone, Copy)]
pub struct Vector {
    /// Its name in the call, for messages.
    pub name: char,
    /// Address of the lowest element.
    pub at: u64,
    /// Type.
    pub element: Element,
    /// Number of elements.
    pub len: u64,
    /// Elements from one to the next; a negative step goes from the end.
    pub step: i64,
}

impl Vector {
    /// Checks the step and the alignment.
    ///
    /// # Errors
    /// By name.
    pub fn check(&self) -> Done {
        let size = self.element.bytes();
        if self.step == 0 || self.step.unsigned_abs() > 1 << 31 {
            return Err(Refusal::argument(format!("inc{} is {}", self.name, self.step)));
        }
        if self.len > 0 && (self.at == 0 || !self.at.is_multiple_of(size)) {
            return Err(Refusal::argument(format!(
                "{} is at {:#x}, no address of {size}-byte elements",
                self.name, self.at
            )));
        }
        Ok(())
    }

    fn address(&self, i: u64) -> u64 {
        let i = if self.step < 0 { self.len - 1 - i } else { i };
        self.at + i * self.step.unsigned_abs() * self.element.bytes()
    }

    fn wrong(&self, i: u64, error: crate::memory::MemoryError) -> MathError {
        MathError {
            operand: format!("{} ({} values, step {}), value {i}", self.name, self.len, self.step),
            error,
        }
    }

    fn read(&self, memory: &Memory, touched: &mut Footprint) -> Result<Vec<f64>, MathError> {
        let size = self.element.bytes() as usize;
        (0..self.len)
            .map(|i| {
                let bytes = memory.read(self.address(i), size).map_err(|e| self.wrong(i, e))?;
                touched.reads(self.address(i), size as u64);
                Ok(self.element.decode_one(&bytes))
            })
            .collect()
    }

    fn write(&self, memory: &Memory, touched: &mut Footprint, values: &[f64]) -> Result<(), MathError> {
        let mut bytes = Vec::new();
        for (i, v) in values.iter().enumerate() {
            bytes.clear();
            self.element.encode(*v, &mut bytes);
            memory.write(self.address(i as u64), &bytes).map_err(|e| self.wrong(i as u64, e))?;
            touched.writes(self.address(i as u64), bytes.len() as u64);
        }
        Ok(())
    }
}

/// y = alpha op(A) x + beta y.
#[derive(Debug, Clone)]
pub struct Gemv {
    /// A is used transposed.
    pub transpose: bool,
    /// The matrix.
    pub a: Matrix,
    /// The vector.
    pub x: Vector,
    /// The result; not read if beta is 0.
    pub y: Vector,
    /// Factor of the product.
    pub alpha: Scalar,
    /// Factor of y.
    pub beta: Scalar,
}

impl Math for Gemv {
    fn run(&self, memory: &Memory, touched: &mut Footprint) -> Result<(), MathError> {
        let alpha = self.alpha.value(memory)?;
        let beta = self.beta.value(memory)?;
        let mut out = vec![0.0; self.y.len as usize];
        if alpha != 0.0 && self.x.len > 0 {
            let a = self.a.read(memory, touched, 0)?;
            let x = self.x.read(memory, touched)?;
            let rows = self.a.rows as usize;
            for (i, y) in out.iter_mut().enumerate() {
                let at = |j: usize| if self.transpose { i * rows + j } else { j * rows + i };
                *y = alpha * x.iter().enumerate().map(|(j, x)| a[at(j)] * x).sum::<f64>();
            }
        }
        if beta != 0.0 {
            let y = self.y.read(memory, touched)?;
            out.iter_mut().zip(&y).for_each(|(o, y)| *o += beta * y);
        }
        self.y.write(memory, touched, &out)
    }

    fn multiply_adds(&self) -> u64 {
        self.a.rows * self.a.columns
    }
}

/// Sum of magnitudes.
#[derive(Debug, Clone)]
pub struct Asum {
    /// The vector.
    pub x: Vector,
    /// Device address of the result, of the vector's type.
    pub to: u64,
}

impl Asum {
    /// The sum.
    ///
    /// # Errors
    /// A vector that cannot be read.
    pub fn value(&self, memory: &Memory, touched: &mut Footprint) -> Result<f64, MathError> {
        Ok(self.x.read(memory, touched)?.iter().map(|v| v.abs()).sum())
    }
}

impl Math for Asum {
    fn run(&self, memory: &Memory, touched: &mut Footprint) -> Result<(), MathError> {
        let mut bytes = Vec::new();
        self.x.element.encode(self.value(memory, touched)?, &mut bytes);
        touched.writes(self.to, bytes.len() as u64);
        memory.write(self.to, &bytes).map_err(|error| MathError { operand: "result".into(), error })
    }

    fn multiply_adds(&self) -> u64 {
        self.x.len
    }
}
