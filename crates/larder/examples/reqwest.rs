//! An existing `reqwest` client that asks by way of the cache:
//!
//! ```sh
//! cargo run --example reqwest -- https://api.weather.gov/points/40.01,-105.27
//! ```
//!
//! Whatever is set up in the client, such as headers, proxies or time limits, stays as it is. What the
//! cache adds: answers are stored, asked about by their validators when they have expired, loaded once for
//! all who wait, within limits and again after failures that pass.

#![expect(clippy::print_stdout, reason = "it is a program to look at")]

use std::{error::Error, time::Duration};

use larder::{
    Cache, CacheBuilder, Hit, Load, Loaded, OriginError, OriginErrorKind, OriginOptions, Policy,
    Request, RetryOptions, origin_fn,
};
use reqwest::{Client, StatusCode, header};

/// The source that the answers belong to: a name for the API.
const SOURCE: &str = "weather";

/// Has `client` answer what is not stored.
pub fn with_client(builder: CacheBuilder, client: Client) -> CacheBuilder {
    let retry = RetryOptions::attempts(3);
    builder
        .origin(SOURCE, origin_fn(move |load| fetch(client.clone(), load)))
        .origin_options(SOURCE, OriginOptions::default().retry(retry))
}

/// What is at `url`, which must hold no secrets: it is the key, and keys are stored and shown.
pub async fn get(cache: &Cache, url: &str) -> Result<Hit, larder::Error> {
    cache.request(&Request::new(SOURCE).param("url", url)).await
}

async fn fetch(client: Client, load: Load) -> Result<Loaded, OriginError> {
    let failed = |error: reqwest::Error| {
        let kind =
            if error.is_timeout() { OriginErrorKind::Timeout } else { OriginErrorKind::Network };
        OriginError::new(kind, SOURCE, error.without_url())
    };
    let mut request = client.get(load.request.value("url").unwrap_or_default());
    if let Some(etag) = load.stored.as_ref().and_then(|stored| stored.etag()) {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    let text = |name| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (etag, content_type) = (text(header::ETAG), text(header::CONTENT_TYPE));
    let retry_after = text(header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
    if status == StatusCode::NOT_MODIFIED && load.stored.is_some() {
        return Ok(Loaded::not_modified());
    }
    if !status.is_success() {
        let error = OriginError::new(OriginErrorKind::Status(status.as_u16()), SOURCE, status);
        return Err(error.with_retry_after(retry_after.map(Duration::from_secs)));
    }
    let mut loaded = Loaded::new(response.bytes().await.map_err(failed)?);
    (loaded.etag, loaded.content_type) = (etag, content_type);
    Ok(loaded)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("say what to get: reqwest URL")?;
    // The first choice of a program's libraries stands; reqwest is built without one here.
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().user_agent("larder-example").build()?;
    let builder = Cache::builder()
        .tier(larder::tiers::MemoryTier::new(64 << 20))
        .policy(SOURCE, Policy::ttl(Duration::from_mins(10)));
    let cache = with_client(builder, client).build()?;
    for _ in 0..2 {
        let began = std::time::Instant::now();
        let hit = get(&cache, &url).await?;
        let bytes = hit.value().len();
        println!("{bytes} bytes from {:?} in {:?}", hit.served_by(), began.elapsed());
    }
    Ok(())
}
