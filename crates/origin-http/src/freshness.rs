//! How long a response says that it stays fresh (RFC 9111).

use std::time::{Duration, SystemTime};

use cache_core::{Loaded, Ttl};
use http_cache_semantics::{CacheOptions, CachePolicy};
use reqwest::{
    StatusCode,
    header::{CACHE_CONTROL, EXPIRES, HeaderMap},
};

/// What must be asked about each time is kept, and fresh for no time that counts: its validators spare
/// the body.
const AT_ONCE_STALE: Duration = Duration::from_millis(1);

/// Takes from the response how long the answer is fresh, how long it may be served after that, and
/// whether it may be stored; leaves alone what the response says nothing about.
///
/// As for a cache that many use: the request counts as one without a key, for which the source stands,
/// not its user.
pub(crate) fn apply(loaded: &mut Loaded, status: StatusCode, headers: &HeaderMap, now: SystemTime) {
    let lines = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|line| line.to_str().ok());
    let control = lines.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let directives = || control.split(',').map(str::trim);
    let has = |name: &str| directives().any(|it| it == name || it.starts_with(&format!("{name}=")));
    let mut response = http::Response::new(());
    *response.status_mut() = status;
    response.headers_mut().clone_from(headers);
    // No guesses from the time of the last change: the source's policy knows better.
    let options = CacheOptions { cache_heuristic: 0.0, ..CacheOptions::default() };
    let policy = CachePolicy::new_options(&http::Request::new(()), &response, now, options);
    if has("no-store")
        || has("private")
        || headers.contains_key("set-cookie")
        || !policy.is_storable()
    {
        loaded.store = false;
        return;
    }
    let says = ["max-age", "s-maxage", "no-cache", "immutable"].into_iter().any(has);
    if says || headers.contains_key(EXPIRES) {
        let fresh = if has("no-cache") { Duration::ZERO } else { policy.time_to_live(now) };
        loaded.ttl = Some(Ttl::For(fresh.max(AT_ONCE_STALE)));
    }
    let seconds = |name: &str| {
        let given = directives().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        given.and_then(|text| text.trim_matches('"').parse().ok()).map(Duration::from_secs)
    };
    loaded.stale_for = seconds("stale-if-error").max(seconds("stale-while-revalidate"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(headers: &[(&'static str, &str)]) -> Loaded {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let mut loaded = Loaded::new("v");
        apply(&mut loaded, StatusCode::OK, &map, SystemTime::now());
        loaded
    }

    fn ttl(control: &str) -> Option<Ttl> {
        applied(&[("cache-control", control)]).ttl
    }

    #[test]
    fn what_is_said_counts_and_nothing_is_guessed() {
        let seconds = |seconds| Some(Ttl::For(Duration::from_secs(seconds)));
        assert_eq!(ttl("max-age=60"), seconds(60));
        assert_eq!(ttl("public, s-maxage=30, max-age=60"), seconds(30), "many share it");
        assert_eq!(ttl("no-cache"), Some(Ttl::For(AT_ONCE_STALE)));
        assert_eq!(ttl("max-age=0"), Some(Ttl::For(AT_ONCE_STALE)));
        assert_eq!(ttl("public"), None);
        let two = [("cache-control", "public"), ("cache-control", "max-age=60")];
        assert_eq!(applied(&two).ttl, seconds(60), "several lines are one");
        let modified = [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(applied(&modified).ttl, None);
        let aged = [("cache-control", "max-age=60"), ("age", "20")];
        assert_eq!(applied(&aged).ttl, seconds(40));
        let passed = [("expires", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(applied(&passed).ttl, Some(Ttl::For(AT_ONCE_STALE)));
    }

    #[test]
    fn what_is_not_for_all_is_not_stored() {
        for control in ["no-store", "private", "private, max-age=60", "No-Store"] {
            assert!(!applied(&[("cache-control", control)]).store, "{control}");
        }
        assert!(!applied(&[("set-cookie", "a=b"), ("cache-control", "max-age=60")]).store);
        assert!(applied(&[("cache-control", "max-age=60")]).store);
        assert!(applied(&[]).store);
    }

    #[test]
    fn stale_answers_may_be_served_as_long_as_said() {
        let loaded =
            applied(&[("cache-control", "max-age=1, stale-while-revalidate=5, stale-if-error=9")]);
        assert_eq!(loaded.stale_for, Some(Duration::from_secs(9)));
    }
}
