//! The binary `peerlane`.

fn main() {}
