//! The pages of the documentation, so that `cargo test --doc` compiles and runs every example in them.

/// Makes a module of each page, seen by rustdoc's tests alone.
macro_rules! pages {
    ($($name:ident: $path:literal;)*) => {
        $(#[cfg(doctest)]
        #[doc = include_str!($path)]
        mod $name {})*
    };
}

pages! {
    readme: "../../README.md";
    records: "../records.md";
    queues: "../queues.md";
    blobs: "../blobs.md";
    cache: "../cache.md";
    configuration: "../configuration.md";
    layers: "../layers.md";
    tasks: "../tasks.md";
}
