//! How differently a network answers to different images before it is trained (Mellor et al., "Neural
//! architecture search without training", first version, arXiv 2006.04647v1; `jacob_cov` of Abdelfattah et al.).

use engine::{ParamStore, Tape, Tensor};

use crate::arch::Arch;
use crate::error::Result;
use crate::model::{Context, Model, Norms};

/// Keeps the logarithm of a vanishing eigenvalue finite, as in the paper's code.
const LEAST: f64 = 1e-5;

/// `-sum (ln(v + k) + 1 / (v + k))` over the eigenvalues `v` of the correlations between images of the gradients
/// of the summed logits by the pixels; `images` is `[n, h, w, c]`, batch norms take the batch's statistics.
/// Highest, about `-n`, where no two images have anything in common.
///
/// # Errors
/// What the engine returns.
pub fn jacobian_covariance(
    model: &Model,
    store: &mut ParamStore,
    arch: &Arch,
    images: &Tensor,
) -> Result<f64> {
    let device = store.device().clone();
    let mut tape = Tape::new(&device);
    let x = tape.leaf(images.clone());
    let mut moments = Vec::new();
    let norms = Norms::Batch(&mut moments);
    let logits = model.forward(&mut Context { tape: &mut tape, store, norms, dropout: None }, arch, &x)?;
    let seed = Tensor::from_slice(&device, logits.shape(), &vec![1f32; logits.shape().len()])?;
    let gradients = tape.backward_from(&logits, seed, store)?;
    drop(logits);
    store.clear_touched()?;
    let n = images.shape().dims()[0];
    let rows = match gradients.get(&x) {
        Some(gradient) => gradient.to_host()?,
        // Nothing depends on the pixels.
        None => vec![0.0; images.shape().len()],
    };
    let values = eigenvalues(correlations(&rows, n), n);
    Ok(-values.iter().map(|v| (v.max(0.0) + LEAST).ln() + 1.0 / (v.max(0.0) + LEAST)).sum::<f64>())
}

/// Pearson's correlations `[n, n]` of `n` rows; a row that is constant has none with others.
fn correlations(rows: &[f32], n: usize) -> Vec<f64> {
    let width = rows.len() / n.max(1);
    let centred: Vec<Vec<f64>> = rows
        .chunks_exact(width.max(1))
        .map(|row| {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
            let row: Vec<f64> = row.iter().map(|&v| f64::from(v) - mean).collect();
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter().map(|v| if norm > 0.0 { v / norm } else { 0.0 }).collect()
        })
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    (0..n * n)
        .map(|at| if at / n == at % n { 1.0 } else { dot(&centred[at / n], &centred[at % n]) })
        .collect()
}

/// The eigenvalues of a symmetric matrix `[n, n]` by cyclic Jacobi rotations, in no order.
fn eigenvalues(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    // Convergence is quadratic: a hundred images need about eight sweeps.
    for _ in 0..30 {
        let off: f64 = (0..n * n).filter(|at| at / n != at % n).map(|at| a[at] * a[at]).sum();
        if off < 1e-22 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    (0..n).map(|i| a[i * n + i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(a: &[f64], n: usize) -> Vec<f64> {
        let mut values = eigenvalues(a.to_vec(), n);
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn eigenvalues_of_known_matrices() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-10);
        assert!(close(&sorted(&[2.0, 1.0, 1.0, 2.0], 2), &[1.0, 3.0]));
        // A chain of three: 2 - sqrt 2, 2, 2 + sqrt 2.
        let chain = [2.0, -1.0, 0.0, -1.0, 2.0, -1.0, 0.0, -1.0, 2.0];
        let root = 2f64.sqrt();
        assert!(close(&sorted(&chain, 3), &[2.0 - root, 2.0, 2.0 + root]));
        // All alike: one eigenvalue of n.
        let mut want = vec![0.0; 40];
        want[39] = 40.0;
        assert!(close(&sorted(&[1.0; 1600], 40), &want));
    }

    #[test]
    fn rows_that_are_alike_correlate() {
        let rows = [1.0, 2.0, 4.0, 2.0, 4.0, 8.0, 4.0, 2.0, 1.0, 5.0, 5.0, 5.0];
        let c = correlations(&rows, 4);
        assert!((c[1] - 1.0).abs() < 1e-12, "scale does not matter");
        assert!(c[2] < -0.8);
        assert_eq!((c[3], c[15]), (0.0, 1.0), "a constant row");
    }
}
