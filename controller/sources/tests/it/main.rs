//! What a directory becomes: the crate's public interface on real files.

mod fixture;
mod mistakes;
mod reading;
mod settling;
mod trees;
