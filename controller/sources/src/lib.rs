//! The only crate that reads trees: a directory becomes a release.
