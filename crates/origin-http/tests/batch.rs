//! Several members asked for by one request, against a server that counts them.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    collections::BTreeMap,
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::Request as Call,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use cache_core::{Entry, Load, Loaded, Origin, OriginErrorKind, Request, Stamp};
use origin_http::{Batch, BatchError, HttpOrigin, HttpSource, SetupError};

/// A source on this machine.
fn local(name: &str, url: impl Into<String>) -> HttpSource {
    let mut source = HttpSource::new(name, url);
    source.allow_private = true;
    source
}

/// The targets and headers of the calls that a server got.
type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A server that answers by the members in its path, `/data/1,2`; it stops with the test's runtime.
async fn serve<R: IntoResponse>(
    answer: impl Fn(Vec<String>) -> R + Clone + Send + Sync + 'static,
) -> (SocketAddr, Seen) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let app = Router::new().fallback(move |call: Call| {
        let target = call.uri().to_string();
        log.lock().unwrap().push((target.clone(), call.headers().clone()));
        let members = target.rsplit('/').next().unwrap().split("%2C").map(str::to_owned);
        let response = answer(members.collect()).into_response();
        async { response }
    });
    tokio::spawn(axum::serve(listener, app).into_future());
    (address, seen)
}

fn targets(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|(target, _)| target.clone()).collect()
}

fn source(server: SocketAddr, batch: Batch) -> HttpSource {
    let mut source = local("api", format!("http://{server}/data/{{id}}"));
    source.batch = Some(batch);
    source
}

fn loads(members: &[&str]) -> Vec<Load> {
    members.iter().map(|id| Load::new(Request::new("api").param("id", id))).collect()
}

fn body(loaded: &Loaded) -> Option<&str> {
    loaded.value().map(|value| std::str::from_utf8(value).unwrap())
}

/// As the Census API answers: a header, and a row for each member but those from 900 on.
fn census(members: Vec<String>) -> Response {
    let known = members.into_iter().filter(|id| id.parse::<u32>().unwrap() < 900);
    let rows = known.map(|id| format!("[\"N{id}\",1.50,\"{id}\"]"));
    let header = "[\"NAME\",\"B01001_001E\",\"cbsa\"]".to_owned();
    let rows: Vec<String> = std::iter::once(header).chain(rows).collect();
    let headers = [
        ("content-type", "application/json;charset=utf-8"),
        ("etag", "\"list\""),
        ("last-modified", "Sat, 01 Jan 2022 00:00:00 GMT"),
    ];
    (headers, format!("[{}]", rows.join(",\n"))).into_response()
}

fn census_row(id: &str) -> String {
    format!("[[\"NAME\",\"B01001_001E\",\"cbsa\"],[\"N{id}\",1.50,\"{id}\"]]")
}

#[tokio::test]
async fn a_hundred_and_twenty_requests_are_three_calls_each_answered_right() {
    let (server, seen) = serve(census).await;
    let origin = HttpOrigin::new(source(server, Batch::new("id", 50, "", "cbsa"))).unwrap();
    let request = |id: usize| Request::new("api").param("id", format!("{id:03}"));
    let requests: Vec<Request> = (1..=120).map(request).collect();
    let groups = origin.groups(&requests);
    let mut answers = BTreeMap::new();
    for group in groups {
        let loads = group.iter().map(|&place| Load::new(requests[place].clone())).collect();
        let loaded = origin.load_many(loads).await.unwrap();
        assert_eq!(loaded.len(), group.len());
        answers.extend(group.into_iter().zip(loaded));
    }
    assert_eq!(targets(&seen).len(), 3);
    assert_eq!(answers.len(), 120);
    for (place, answer) in answers {
        let expected = census_row(&format!("{:03}", place + 1));
        assert_eq!(body(&answer.unwrap()), Some(&*expected));
    }
}

#[tokio::test]
async fn members_get_the_media_type_and_no_validators_of_the_list() {
    let (server, seen) = serve(census).await;
    let origin = HttpOrigin::new(source(server, Batch::new("id", 50, "", "cbsa"))).unwrap();
    let stored = Entry::builder("old", Stamp::ZERO).etag(Some("\"one\"")).build();
    let loads = loads(&["1", "900", "2"]).into_iter();
    let loads = loads.map(|load| load.with_stored(Some(stored.clone()))).collect();
    let loaded: Vec<Loaded> =
        origin.load_many(loads).await.unwrap().into_iter().map(Result::unwrap).collect();
    let one = |id| Loaded::new(census_row(id)).content_type("application/json;charset=utf-8");
    assert_eq!(loaded, [one("1"), Loaded::absent(), one("2")]);
    let (target, headers) = seen.lock().unwrap()[0].clone();
    assert_eq!(target, "/data/1%2C900%2C2");
    assert!(!headers.contains_key("if-none-match"), "what is stored is of one member");
}

#[tokio::test]
async fn a_member_asked_for_twice_is_named_once() {
    let (server, seen) = serve(census).await;
    let origin = HttpOrigin::new(source(server, Batch::new("id", 2, "", "cbsa"))).unwrap();
    let loaded = origin.load_many(loads(&["7", "8", "7"])).await.unwrap();
    let bodies: Vec<_> =
        loaded.iter().map(|it| body(it.as_ref().unwrap()).unwrap().to_owned()).collect();
    assert_eq!(bodies, ["7", "8", "7"].map(census_row));

    // Of one member alone the answer is its own, with its validators.
    let loaded = origin.load_many(loads(&["7", "7"])).await.unwrap();
    for one in loaded {
        assert_eq!(one.unwrap().etag.as_deref(), Some("\"list\""));
    }
    assert_eq!(targets(&seen), ["/data/7%2C8", "/data/7"]);
}

#[tokio::test]
async fn one_load_and_loads_of_no_group_are_asked_for_alone() {
    let (server, seen) = serve(census).await;
    let origin = HttpOrigin::new(source(server, Batch::new("id", 2, "", "cbsa"))).unwrap();
    let loaded = origin.load_many(loads(&["7"])).await.unwrap();
    assert_eq!(loaded[0].as_ref().unwrap().etag.as_deref(), Some("\"list\""));
    assert_eq!(origin.load_many(loads(&["1", "2", "3"])).await.unwrap().len(), 3);
    assert_eq!(targets(&seen), ["/data/7", "/data/1", "/data/2", "/data/3"]);

    let mut alone = source(server, Batch::new("id", 2, "", "cbsa"));
    alone.batch = None;
    let origin = HttpOrigin::new(alone).unwrap();
    let requests = ["1", "2"].map(|id| Request::new("api").param("id", id));
    assert_eq!(origin.groups(&requests), [[0], [1]]);
    assert_eq!(origin.load_many(loads(&["4", "5"])).await.unwrap().len(), 2);
    assert_eq!(targets(&seen)[4..], ["/data/4", "/data/5"]);
}

#[tokio::test]
async fn rows_may_be_objects_deep_in_the_answer() {
    let series = |id: &str| format!(r#"{{"seriesID":"{id}","data":[{{"value":"1.{id}"}}]}}"#);
    let answer =
        |rows: &str| format!(r#"{{"status":"REQUEST_SUCCEEDED","Results":{{"series":[{rows}]}}}}"#);
    let all = move |ids: Vec<String>| {
        answer(&ids.iter().map(|id| series(id)).collect::<Vec<_>>().join(","))
    };
    let (server, seen) = serve(all).await;
    let batch = Batch::new("id", 25, "/Results/series", "seriesID");
    let origin = HttpOrigin::new(source(server, batch)).unwrap();
    let ids = ["CES01", "CES02", "CES03"];
    let loaded = origin.load_many(loads(&ids)).await.unwrap();
    for (id, loaded) in ids.into_iter().zip(loaded) {
        assert_eq!(body(&loaded.unwrap()), Some(&*answer(&series(id))));
    }
    assert_eq!(targets(&seen), ["/data/CES01%2CCES02%2CCES03"]);
}

#[tokio::test]
async fn members_may_be_in_the_query_with_another_separator() {
    let (server, seen) = serve(|_| r#"[{"id":"1"},{"id":"2"}]"#).await;
    let mut source = local("api", format!("http://{server}/data"));
    source.params.insert("id".into(), "1".into());
    let mut batch = Batch::new("id", 2, "", "id");
    batch.separator = ";&".into();
    source.batch = Some(batch);
    let loaded = HttpOrigin::new(source).unwrap().load_many(loads(&["1", "2"])).await.unwrap();
    assert_eq!(body(loaded[1].as_ref().unwrap()), Some(r#"[{"id":"2"}]"#));
    assert_eq!(targets(&seen), ["/data?id=1%3B%262"]);
}

#[tokio::test]
async fn a_failed_request_and_an_answer_of_another_form_fail_all() {
    let (server, seen) = serve(|_| (StatusCode::BAD_GATEWAY, "canary")).await;
    let origin = HttpOrigin::new(source(server, Batch::new("id", 9, "", "cbsa"))).unwrap();
    let error = origin.load_many(loads(&["1", "2"])).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Status(502));
    assert_eq!(targets(&seen).len(), 1);

    let (server, _) = serve(|_| r#"[["canary"],["1"]]"#).await;
    let origin = HttpOrigin::new(source(server, Batch::new("id", 9, "", "cbsa"))).unwrap();
    let error = origin.load_many(loads(&["1", "2"])).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Unusable);
    assert_eq!(
        error.to_string(),
        "source `api`: the answer for 2 members at once: its header, the first row, has no column \
         `cbsa`; check `member` of `batch`"
    );
}

#[tokio::test]
async fn a_list_longer_than_an_answer_may_be_fails_all() {
    let (server, _) = serve(census).await;
    let mut source = source(server, Batch::new("id", 9, "", "cbsa"));
    source.max_body_bytes = 60;
    let origin = HttpOrigin::new(source).unwrap();
    assert!(origin.load_many(loads(&["1"])).await.unwrap()[0].is_ok());
    let error = origin.load_many(loads(&["1", "2", "3"])).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::TooLarge);
}

#[tokio::test]
async fn what_stands_around_rows_is_not_repeated_without_bounds() {
    let around = "x".repeat(100_000);
    let rows = r#"[{"cbsa": "1"}, {"cbsa": "2"}, {"cbsa": "3"}]"#;
    let body = format!(r#"{{"note": "{around}", "rows": {rows}}}"#);
    let (server, _) = serve(move |_| body.clone()).await;
    let mut source = source(server, Batch::new("id", 9, "/rows", "cbsa"));
    source.max_body_bytes = 250_000;
    let origin = HttpOrigin::new(source).unwrap();
    assert!(origin.load_many(loads(&["1", "2"])).await.unwrap().iter().all(Result::is_ok));
    let error = origin.load_many(loads(&["1", "2", "3"])).await.unwrap_err();
    assert!(error.to_string().contains("lower `max` of `batch`"), "{error}");
}

#[test]
fn batches_that_make_no_sense_are_refused() {
    let failure = |change: fn(&mut Batch)| {
        let mut source = local("api", "http://127.0.0.1/{id}");
        source.params.insert("year".into(), "2022".into());
        let mut batch = Batch::new("id", 2, "/data", "id");
        change(&mut batch);
        source.batch = Some(batch);
        match HttpOrigin::new(source).err()? {
            SetupError::Batch(error) => Some(error),
            other => panic!("{other}"),
        }
    };
    assert_eq!(failure(|_| ()), None);
    assert_eq!(failure(|batch| batch.param = "year".into()), None);
    let param = failure(|batch| batch.param = "cbsa".into());
    assert_eq!(param, Some(BatchError::Param("cbsa".into())));
    assert_eq!(failure(|batch| batch.max = 1), Some(BatchError::Max));
    assert_eq!(failure(|batch| batch.separator.clear()), Some(BatchError::Separator));
    let rows = failure(|batch| batch.rows = "data".into());
    assert_eq!(rows, Some(BatchError::Rows("data".into())));
}

#[tokio::test]
async fn that_there_is_nothing_for_a_list_costs_no_further_calls() {
    let (server, seen) = serve(|_| StatusCode::NO_CONTENT).await;
    let mut nothing = source(server, Batch::new("id", 9, "", "cbsa"));
    nothing.checks.empty_is_absent = Some(String::new());
    let origin = HttpOrigin::new(nothing).unwrap();
    let answers = origin.load_many(loads(&["1", "2"])).await.unwrap();
    assert!(answers.into_iter().all(|answer| answer.unwrap().value().is_none()));
    assert_eq!(targets(&seen).len(), 1);

    // However long the server says that this holds.
    let (server, seen) = serve(|_| ([("cache-control", "max-age=60")], "[]")).await;
    let mut nothing = source(server, Batch::new("id", 9, "", "cbsa"));
    nothing.checks.empty_is_absent = Some(String::new());
    nothing.respect_cache_control = true;
    let origin = HttpOrigin::new(nothing).unwrap();
    let answers = origin.load_many(loads(&["1", "2"])).await.unwrap();
    assert!(answers.into_iter().all(|answer| answer.unwrap().value().is_none()));
    assert_eq!(targets(&seen).len(), 1);

    // A status may be due to one of them, and is an answer for none.
    let (server, seen) = serve(|_| StatusCode::NOT_FOUND).await;
    let mut lost = source(server, Batch::new("id", 9, "", "cbsa"));
    lost.status_ttl.insert(404, std::time::Duration::from_mins(1));
    let origin = HttpOrigin::new(lost).unwrap();
    let error = origin.load_many(loads(&["1", "2"])).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Unusable, "{error}");
    assert_eq!(targets(&seen).len(), 1);
}
