//! Tests of the program as people use it.
//!
//! | module | says |
//! | --- | --- |
//! | `cli` | every command end to end, and how bad input is answered |
//! | `cuda` | the same on the virtual GPU, beside the CPU |
//! | `data_cli` | a packed set gives the bits of its source, and damage is found and named |
//! | `gates` | a latency table as the cost of binary gates; kills while they are trained change no bit |
//! | `resume` | kills, failing system calls and full disks change no bit of the result |
//! | `recipes` | the recipes for ImageNet and ProxylessNAS on Fashion-MNIST run for a few steps on small images |
//! | `shrink` | shrinking and ranking as commands; kills while they go on change no bit |
//! | `tidy` | house rules that the compiler does not know |

mod cli;
mod cuda;
mod data_cli;
mod gates;
mod recipes;
mod resume;
mod shrink;
mod tidy;
