//! What a network costs: exact parameters and multiply-adds.

use serde::{Deserialize, Serialize};

/// Parameters and multiply-adds of one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Everything that is learned, two for every batch-norm channel.
    pub params: u64,
    /// Multiply-adds of convolutions and linear layers; no norm, activation, pooling or bias.
    pub macs: u64,
}

impl Cost {
    /// The most parameters or multiply-adds that a space may have: whole numbers up to here are exact in
    /// JSON too, and so far below 64 bits that no sum over layers wraps.
    pub const MAX: u64 = 1 << 53;
}

/// What one image makes a network do, apart by kind, so that every paper's counting rule is a sum over
/// it. So many bits that no bound of a space's file can wrap a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Everything that is learned, two for every batch-norm channel.
    pub params: u128,
    /// Multiply-adds of convolutions and linear layers.
    pub macs: u128,
    /// Of these, multiply-adds of linear layers.
    pub linear_macs: u128,
    /// Values that linear layers give.
    pub linear_outputs: u128,
    /// Values that biases of 1x1 convolutions are added to (squeeze-excite).
    pub biased: u128,
    /// Values that batch norms read.
    pub normed: u128,
    /// Values that pooling reads.
    pub pooled: u128,
    /// Values that pooling gives.
    pub pool_outputs: u128,
}

impl Work {
    /// A dense convolution without bias and its batch norm, on an output plane of side `plane`.
    pub(crate) fn conv(&mut self, plane: usize, kernel: usize, input: usize, output: usize) {
        self.filter(plane, kernel * kernel * input, output);
    }

    /// The same, depthwise.
    pub(crate) fn depthwise(&mut self, plane: usize, kernel: usize, channels: usize) {
        self.filter(plane, kernel * kernel, channels);
    }

    /// A convolution without bias and its batch norm; `fan` values make one of the output.
    fn filter(&mut self, plane: usize, fan: usize, output: usize) {
        let [plane, fan, output] = [plane, fan, output].map(|n| n as u128);
        let values = plane * plane * output;
        self.params += fan * output + 2 * output;
        self.macs += fan * values;
        self.normed += values;
    }

    /// A linear layer.
    pub(crate) fn linear(&mut self, input: usize, output: usize, bias: bool) {
        let [input, output] = [input, output].map(|n| n as u128);
        self.params += input * output + if bias { output } else { 0 };
        self.macs += input * output;
        self.linear_macs += input * output;
        self.linear_outputs += output;
    }

    /// Squeeze-excite on a plane of side `plane`: two 1x1 convolutions with biases over the mean.
    pub(crate) fn squeeze(&mut self, plane: usize, wide: usize, hidden: usize) {
        self.pool(plane, wide);
        let [wide, hidden] = [wide, hidden].map(|n| n as u128);
        self.params += 2 * wide * hidden + wide + hidden;
        self.macs += 2 * wide * hidden;
        self.biased += wide + hidden;
    }

    /// The mean over a plane.
    pub(crate) fn pool(&mut self, plane: usize, channels: usize) {
        let [plane, channels] = [plane, channels].map(|n| n as u128);
        self.pooled += plane * plane * channels;
        self.pool_outputs += channels;
    }

    /// Parameters and multiply-adds; `None` if one of them exceeds [`Cost::MAX`].
    pub fn cost(&self) -> Option<Cost> {
        let bounded = |n: u128| u64::try_from(n).ok().filter(|&n| n <= Cost::MAX);
        Some(Cost { params: bounded(self.params)?, macs: bounded(self.macs)? })
    }
}

impl std::ops::Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work {
            params: self.params + other.params,
            macs: self.macs + other.macs,
            linear_macs: self.linear_macs + other.linear_macs,
            linear_outputs: self.linear_outputs + other.linear_outputs,
            biased: self.biased + other.biased,
            normed: self.normed + other.normed,
            pooled: self.pooled + other.pooled,
            pool_outputs: self.pool_outputs + other.pool_outputs,
        }
    }
}

/// A rule by which papers count operations. Where a paper's figure is plain multiply-adds (SPOS,
/// NAS-Bench-Macro, ProxylessNAS), [`Cost::macs`] is that figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The profiler `thop` of 2020, which Cream's published figures are given by (its section 8.1, rule A):
    /// biases of convolutions, two per value of a batch norm and average pooling on top.
    Thop,
    /// The counter of ABS's released code: a linear layer's additions and multiplications apart, so
    /// `2 inputs - 1` per output.
    Abs,
}

impl Counter {
    /// Every rule.
    pub const ALL: [Counter; 2] = [Counter::Thop, Counter::Abs];

    /// Its name in `monopath count`.
    pub fn name(self) -> &'static str {
        match self {
            Counter::Thop => "thop",
            Counter::Abs => "abs",
        }
    }

    /// Operations under this rule. Each kind of work is at most the multiply-adds, and those of a network
    /// at most [`Cost::MAX`], so the sum fits.
    pub fn count(self, work: &Work) -> u64 {
        let count = match self {
            Counter::Thop => work.macs + work.biased + 2 * work.normed + work.pooled + work.pool_outputs,
            Counter::Abs => work.macs + work.linear_macs - work.linear_outputs,
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

impl std::ops::Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost { params: self.params + other.params, macs: self.macs + other.macs }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), |a, b| a + b)
    }
}
