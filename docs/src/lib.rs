//! The pages of the documentation, so that `cargo test --doc` compiles and runs every example in them.
