//! What is to be in the cache: markets x sources.

use std::collections::BTreeMap;

use larder::{Cache, Error, Request, Tag};

use crate::Market;

/// The tag that answers about a market are stored with.
///
/// # Errors
/// When the slug cannot be part of a tag.
pub fn market_tag(market: &Market) -> Result<Tag, larder::InvalidTag> {
    Tag::new(format!("market:{}", market.slug()))
}

/// The question to `source` about a market; `extra` overrides the market's values and those that the
/// source has by default. What the source does not use is left out.
///
/// # Errors
/// [`Error::NoOrigin`] if the source has no origin, [`Error::Origin`] if it needs a value that is
/// not there.
pub fn market_request(
    cache: &Cache,
    source: &str,
    market: &Market,
    extra: &BTreeMap<String, String>,
) -> Result<Request, Error> {
    let mut values = market.params();
    values.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut request = cache.request_for(source, &values)?;
    for (name, value) in extra {
        if request.params().contains_key(name) {
            request = request.param(name, value);
        }
    }
    // Slugs are letters, digits and hyphens: the tag is always valid.
    Ok(match market_tag(market) {
        Ok(tag) => request.tag(tag),
        Err(_invalid) => request,
    })
}

/// One thing to have in the cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// The source.
    pub source: String,
    /// The market's slug.
    pub market: String,
    pub(crate) request: Result<Request, Error>,
}

impl Task {
    pub(crate) fn new(
        cache: &Cache,
        source: &str,
        market: &Market,
        extra: &BTreeMap<String, String>,
    ) -> Self {
        Self {
            source: source.to_owned(),
            market: market.slug().to_owned(),
            request: market_request(cache, source, market, extra),
        }
    }

    /// What the source is asked; the error if it cannot be asked.
    ///
    /// # Errors
    /// As [`market_request`].
    pub fn request(&self) -> Result<&Request, &Error> {
        self.request.as_ref()
    }
}
