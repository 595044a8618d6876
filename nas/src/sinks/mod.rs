//! Who listens to a run beside its journal: the terminal and TensorBoard.
//!
//! Sinks write only where their caller tells them to; they observe and never steer.

mod progress;
mod tensorboard;

pub use progress::Progress;
pub use tensorboard::TensorBoard;
