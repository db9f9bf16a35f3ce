//! Markets as commands name them.

use cache_warmer::{Gazetteer, Market};

use crate::exit::Failure;

/// The market of this name, slug or code.
pub(crate) fn resolve(text: &str) -> Result<&'static Market, Failure> {
    Gazetteer::us().resolve(text).map_err(|unknown| Failure::usage(unknown.to_string()))
}
