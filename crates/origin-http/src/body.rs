//! Reading an answer without trusting its length.

use bytes::Bytes;
use cache_core::OriginErrorKind;
use reqwest::Response;

use crate::fault::Fault;

/// The whole body, unless it is longer than `limit` bytes, declared or not, decompressed. Never needs
/// more memory than the limit and a chunk.
pub(crate) async fn read(mut response: Response, limit: u64) -> Result<Bytes, Fault> {
    let too_large = || {
        let what = format_args!("the answer has more than {limit} bytes; raise `max_body`");
        Fault::new(OriginErrorKind::TooLarge, what)
    };
    if response.content_length().is_some_and(|declared| declared > limit) {
        return Err(too_large());
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Fault::transport)? {
        let length = body.len().saturating_add(chunk.len());
        if length > most {
            return Err(too_large());
        }
        if length > body.capacity() {
            // By doubling, as Vec would, but not beyond the limit.
            let wanted = length.max(body.capacity().saturating_mul(2).min(most));
            body.reserve_exact(wanted - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    // What is kept for weeks should not keep the slack.
    if body.capacity() - body.len() > body.len() / 8 {
        body.shrink_to_fit();
    }
    Ok(body.into())
}
