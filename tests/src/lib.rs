//! Tests of whole chains live in `it/`; here the README's program is compiled and run.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
