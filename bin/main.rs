//! The `monopath` command line.

fn main() {}
