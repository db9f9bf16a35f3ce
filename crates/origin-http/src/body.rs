//! Reading an answer without trusting its length.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

pub(crate) enum BodyError {
    TooLarge,
    Transport(reqwest::Error),
}

/// The whole body, unless it is longer than `limit` bytes, declared or not, decompressed.
pub(crate) async fn read(mut response: Response, limit: u64) -> Result<Bytes, BodyError> {
    if response.content_length().is_some_and(|declared| declared > limit) {
        return Err(BodyError::TooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Transport)? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    // The buffer grew by doubling; what is kept for weeks should not keep the slack.
    Ok(if body.capacity() - body.len() > body.len() / 8 {
        Bytes::copy_from_slice(&body)
    } else {
        body.freeze()
    })
}
