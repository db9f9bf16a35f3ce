//! Many markets by few calls.

use larder::{
    Cache, OriginOptions, Request, RetryOptions, ServedBy, Tag,
    http::{Batch, HttpOrigin, HttpSource},
    tiers::MemoryTier,
};

use crate::server::{Server, answer, within};

/// Answers as the Census API does: a header, and a row for each area that was asked for.
fn census() -> Server {
    Server::start(|seen| {
        let asked = seen.uri.path().rsplit('/').next().unwrap_or_default().replace("%2C", ",");
        let row = |area| format!(",[\"N{area}\",\"{area}\"]");
        let rows: Vec<String> = asked.split(',').map(row).collect();
        answer(200, format!("[[\"NAME\",\"cbsa\"]{}]", rows.concat()))
    })
}

fn cache(server: &Server, options: OriginOptions) -> Cache {
    let url = format!("http://127.0.0.1:{}/data/{{cbsa}}", server.port);
    let mut source = HttpSource::new("census", url);
    source.allow_private = true;
    source.batch = Some(Batch::new("cbsa", 50, "", "cbsa"));
    Cache::builder()
        .tier(MemoryTier::new(16 << 20))
        .origin("census", HttpOrigin::new(source).unwrap())
        .origin_options("census", options)
        .build()
        .unwrap()
}

fn requests(areas: std::ops::Range<u32>) -> Vec<Request> {
    areas.map(|area| Request::new("census").param("cbsa", area)).collect()
}

#[tokio::test]
async fn one_call_answers_fifty_markets_and_stores_fifty_entries() {
    let server = census();
    let cache = cache(&server, OriginOptions::default());
    // Two are there already; one of them is asked for twice.
    within(cache.request_many(&requests(0..2))).await.unwrap();
    assert_eq!(server.count(), 1);
    let mut asked = requests(0..122);
    asked.push(asked[1].clone());
    asked[7] = asked[7].clone().tag(Tag::new("seventh").unwrap());
    let hits = within(cache.request_many(&asked)).await.unwrap();
    assert_eq!(server.count(), 1 + 3, "120 are missing");
    for (area, hit) in hits.iter().enumerate() {
        let hit = hit.as_ref().unwrap();
        let area = if area == 122 { 1 } else { area };
        let document = format!("[[\"NAME\",\"cbsa\"],[\"N{area}\",\"{area}\"]]");
        assert_eq!(hit.value(), document.as_bytes());
        let tags: Vec<&str> = hit.entry().tags().iter().map(Tag::as_str).collect();
        assert_eq!(tags, if area == 7 { vec!["seventh"] } else { Vec::new() });
    }
    // Each is an entry of its own.
    let alone = within(cache.request(&requests(60..61)[0])).await.unwrap();
    assert_eq!(alone.served_by(), ServedBy::Tier("memory"));
    within(cache.invalidate(&requests(60..61)[0].key())).await.unwrap();
    within(cache.request_many(&requests(0..122))).await.unwrap();
    assert_eq!(server.count(), 5);
}

#[tokio::test]
async fn a_batch_is_one_call_of_its_sources_quota_and_is_made_again_as_one() {
    let server = Server::start(|seen| match seen.number {
        1 => answer(503, "not now"),
        _ => answer(200, r#"[{"cbsa": 1}, {"cbsa": 2}]"#),
    });
    let retry = RetryOptions::attempts(2)
        .delay(std::time::Duration::from_millis(1), std::time::Duration::from_millis(1));
    let limits = larder::Limits::default().quota(2, std::time::Duration::from_hours(1));
    let cache = cache(&server, OriginOptions::default().retry(retry).limits(limits));
    let hits = within(cache.request_many(&requests(1..4))).await.unwrap();
    assert_eq!(hits[0].as_ref().unwrap().value(), r#"[{"cbsa": 1}]"#);
    assert!(hits[2].as_ref().unwrap().is_absent(), "there is no row about it");
    assert_eq!(server.count(), 2);
    let refused = within(cache.request_many(&requests(5..8))).await.unwrap();
    assert!(refused.iter().all(|one| one.as_ref().unwrap_err().to_string().contains("quota")));
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn sources_without_an_origin_fail_by_themselves() {
    let server = census();
    let cache = cache(&server, OriginOptions::default());
    let mut asked = requests(0..2);
    asked.push(Request::new("nowhere").param("cbsa", 1));
    let hits = within(cache.request_many(&asked)).await.unwrap();
    assert!(hits[0].is_ok() && hits[1].is_ok());
    let text = hits[2].as_ref().unwrap_err().to_string();
    assert!(text.contains("no origin answers for source `nowhere`"), "{text}");
}
