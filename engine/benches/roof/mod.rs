//! The roofline of this machine: measured, not looked up.

use std::hint::black_box;
use std::time::Instant;

use engine::Cpu;
use engine::cpu::simd::{self, LANES, Loop, Simd};

/// What the machine can do on these threads.
#[derive(Clone, Copy)]
pub struct Roof {
    /// Multiply-adds count twice.
    pub gflops: f64,
    /// Copying, reads and writes together.
    pub gbs: f64,
}

impl Roof {
    /// Measures it.
    pub fn measure(cpu: &Cpu) -> Self {
        const ROUNDS: usize = 1 << 20;
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            cpu.pool().parallel_for(cpu.pool().threads(), |_, _| simd::run(Peak(ROUNDS)));
            best = best.min(start.elapsed().as_secs_f64());
        }
        let flops = (2 * ROUNDS * CHAINS * LANES * cpu.pool().threads()) as f64;
        // Far beyond the last cache.
        let (from, mut to) = (vec![1f32; 32 << 20], vec![0f32; 32 << 20]);
        let mut copy = f64::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            cpu.pool().parallel_chunks(&mut to, 1 << 16, |i, to| {
                to.copy_from_slice(&from[i << 16..(i << 16) + to.len()]);
            });
            copy = copy.min(start.elapsed().as_secs_f64());
        }
        black_box(&to);
        Self { gflops: flops / best / 1e9, gbs: 8.0 * from.len() as f64 / copy / 1e9 }
    }
}

/// Independent sums that hide the latency of an addition.
const CHAINS: usize = 12;

struct Peak(usize);

impl Loop for Peak {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let factor = s.splat(black_box(0.999));
        let mut sums = [s.splat(1.0); CHAINS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, factor, factor);
            }
        }
        black_box(sums.map(|sum| s.array(sum)));
    }
}
