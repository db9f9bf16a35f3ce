//! Compression as tiers see it.

#![expect(clippy::unwrap_used, reason = "what a test prepares works, or the test fails")]

mod compressor;
mod documents;
mod fixtures;
mod round_trip;
mod training;
