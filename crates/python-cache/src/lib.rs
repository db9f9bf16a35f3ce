//! Larder's reader of the cache files that its Python predecessor made.

mod error;
mod file;
mod iso;

pub use crate::{
    error::Error,
    file::{PythonCache, Row, UnreadableKey},
};
