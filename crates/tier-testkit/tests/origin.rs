//! The counting origin: what it answers, and that it counts.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::time::Duration;

use cache_core::{Answer, Entry, Key, Load, Loaded, Origin, OriginErrorKind, Request, Stamp, Ttl};
use tier_testkit::CountingOrigin;

fn load() -> Load {
    Load::new(Request::new("census").param("year", 2022))
}

async fn answer(origin: &CountingOrigin) -> Loaded {
    origin.load(load()).await.unwrap()
}

#[tokio::test]
async fn it_answers_with_key_and_count() {
    let origin = CountingOrigin::default();
    assert_eq!((origin.calls(), origin.last_key()), (0, None));
    assert_eq!(answer(&origin).await, Loaded::new("census:year=2022 #1"));
    assert_eq!(answer(&origin).await, Loaded::new("census:year=2022 #2"));
    assert_eq!((origin.calls(), origin.last_key()), (2, Some(Key::new("census:year=2022"))));
}

#[tokio::test]
async fn it_fails_as_told_and_answers_again() {
    let origin = CountingOrigin::default();
    origin.set_down(true);
    let error = origin.load(load()).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Network);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    origin.set_down(false);
    for (kind, after) in [
        (OriginErrorKind::Status(429), Some(Duration::from_secs(7))),
        (OriginErrorKind::Status(404), None),
        (OriginErrorKind::GaveUp, None),
    ] {
        origin.set_error(Some(kind));
        origin.set_retry_after(after);
        let error = origin.load(load()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (kind, after));
        assert_eq!(error.origin(), "census");
    }
    origin.set_error(None);
    assert_eq!(answer(&origin).await.value().unwrap(), "census:year=2022 #5", "failures count");
}

#[tokio::test]
async fn it_says_that_there_is_nothing_or_nothing_new() {
    let origin = CountingOrigin::default();
    origin.set_absent(true);
    assert_eq!(answer(&origin).await, Loaded::absent());
    origin.set_absent(false);
    origin.set_not_modified(true);
    assert!(answer(&origin).await.value().is_some(), "nothing is stored that could be unchanged");
    let stored = Entry::builder("v", Stamp::ZERO).build();
    let again = origin.load(load().with_stored(Some(stored))).await.unwrap();
    assert_eq!(again.answer, Answer::NotModified);
}

#[tokio::test]
async fn answers_have_the_version_etag_and_ttl_it_was_told() {
    let origin = CountingOrigin::default();
    origin.set_version(Some("2022"));
    origin.set_etag(Some("\"abc\""));
    origin.set_ttl(Some(Ttl::For(Duration::from_secs(5))));
    let loaded = answer(&origin).await;
    assert_eq!(
        (loaded.version.as_deref(), loaded.etag.as_deref()),
        (Some("2022"), Some("\"abc\""))
    );
    assert_eq!(loaded.ttl, Some(Ttl::For(Duration::from_secs(5))));
    origin.set_version(None);
    origin.set_etag(None);
    origin.set_ttl(None);
    assert_eq!(answer(&origin).await, Loaded::new("census:year=2022 #2"));
}
