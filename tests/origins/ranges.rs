//! Sources whose answers are about ranges of time.

use std::collections::BTreeSet;

use larder::{Cache, Hit, ReadOptions, Request, ServedBy};
use serde_json::{Value, json};
use tier_testkit::Dice;

use crate::server::{Place, Server, answer, ask, close, within};

/// The months from one to another, both included, as `2015-01`.
fn months(from: &str, to: &str) -> Vec<String> {
    let number = |text: &str| -> usize {
        let (year, month) = text.split_once('-').unwrap();
        year.parse::<usize>().unwrap() * 12 + month.parse::<usize>().unwrap() - 1
    };
    (number(from)..=number(to)).map(name).collect()
}

fn name(number: usize) -> String {
    format!("{:04}-{:02}", number / 12, number % 12 + 1)
}

/// Answers with a row a month, in which a number tells the month.
fn serve() -> Server {
    Server::start(|seen| {
        let query = seen.uri.query().unwrap_or_default();
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap()
        };
        let rows = months(value("start"), value("end"));
        let rows: Vec<Value> = rows.iter().map(|at| json!({"month": at, "jobs": 1.5})).collect();
        answer(200, json!({"data": rows}).to_string())
    })
}

/// The months that the server was asked for.
fn asked(server: &Server) -> Vec<String> {
    let months = |uri: &str| {
        let bound = |name: &str| {
            let (_, rest) = uri.split_once(name).unwrap();
            rest.split('&').next().unwrap().to_owned()
        };
        months(&bound("start="), &bound("end="))
    };
    server.seen().iter().flat_map(|seen| months(&seen.uri.to_string())).collect()
}

fn rows(hit: &Hit) -> Vec<String> {
    let document: Value = serde_json::from_slice(hit.value()).unwrap();
    let rows = document["data"].as_array().unwrap().iter();
    rows.map(|row| row["month"].as_str().unwrap().to_owned()).collect()
}

fn request(from: &str, to: &str) -> Request {
    Request::new("census").param("cbsa", 1).param("start", from).param("end", to)
}

async fn range(cache: &Cache, from: &str, to: &str) -> Hit {
    within(cache.request(&request(from, to))).await.unwrap()
}

const RANGE: &str =
    "range: {from: start, to: end, step: month, chunk: 12, rows: /data, date: /month}";

#[tokio::test]
async fn only_chunks_that_are_missing_are_asked_for_also_after_a_restart() {
    let server = serve();
    let place = Place::new(&server);
    let cache = place.cache(RANGE);
    assert_eq!(rows(&range(&cache, "2010-01", "2020-12").await), months("2010-01", "2020-12"));
    assert_eq!(server.count(), 11);
    close(cache).await;
    let cache = place.cache(RANGE);
    let hit = range(&cache, "2015-01", "2022-06").await;
    assert_eq!(rows(&hit), months("2015-01", "2022-06"));
    let mut later = asked(&server).split_off(11 * 12);
    later.sort_unstable();
    assert_eq!(later, months("2021-01", "2022-12"));
    assert_eq!(hit.served_by(), ServedBy::Origin);
    let again = range(&cache, "2015-01", "2022-06").await;
    assert_eq!((again.value(), again.served_by()), (hit.value(), ServedBy::Tier("memory")));

    // Together with others, and by what the command line does.
    let requests = [request("2022-03", "2022-04"), request("2009-12", "2010-01")];
    let hits = within(cache.request_many(&requests)).await.unwrap();
    let found: Vec<_> = hits.iter().map(|hit| rows(hit.as_ref().unwrap())).collect();
    assert_eq!(found, [months("2022-03", "2022-04"), months("2009-12", "2010-01")]);
    assert_eq!(server.count(), 14);
    let values = [("cbsa", "1"), ("start", "2010"), ("end", "2010")];
    let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let whole = cache.request_for("census", &values).unwrap();
    assert_eq!(rows(&within(cache.request(&whole)).await.unwrap()).len(), 12);
    assert_eq!(server.count(), 14);
}

#[tokio::test]
async fn neighbouring_chunks_are_asked_for_together_where_the_source_allows_it() {
    let server = serve();
    let place = Place::new(&server);
    let range_of = RANGE.replace("chunk: 12", "chunk: 1, chunks_per_call: 24");
    let cache = place.cache(&range_of);
    range(&cache, "2020-03", "2020-04").await;
    let hit = range(&cache, "2019-01", "2021-12").await;
    assert_eq!(rows(&hit), months("2019-01", "2021-12"));
    assert_eq!(server.count(), 3, "14 months before, and 20 after, what is there");
}

#[tokio::test]
async fn what_is_no_range_is_refused_and_what_has_none_is_asked_as_it_is() {
    let server = Server::plain();
    let place = Place::new(&server);
    let cache = place.cache(RANGE);
    assert_eq!(ask(&cache, 1).await.unwrap().value(), "ok", "it has no bounds");
    for (from, to) in [("soon", "2020"), ("2021", "2020")] {
        let error = within(cache.request(&request(from, to))).await.unwrap_err().to_string();
        assert!(error.contains("census"), "{error}");
    }
    let error = within(cache.request(&request("2020", "2020"))).await.unwrap_err();
    assert!(error.to_string().contains("`census`"), "it has no rows: {error}");
    let options = ReadOptions::cached_only();
    assert!(within(cache.request_with(&request("2010", "2010"), options)).await.is_err());
    assert_eq!(server.count(), 2);
}

/// Whatever is stored: the answer has what was asked for, and nothing is asked for twice.
#[tokio::test]
async fn random_ranges_are_whole_and_no_chunk_is_fetched_twice() {
    let mut dice = Dice::new(20_261_130);
    for (chunk, per_call) in [(1, 1), (1, 7), (5, 1), (12, 3)] {
        let server = serve();
        let place = Place::new(&server);
        let sizes = format!("chunk: {chunk}, chunks_per_call: {per_call}");
        let cache = place.cache(&RANGE.replace("chunk: 12", &sizes));
        for _ in 0..40 {
            let from = 24_000 + dice.below(120);
            let (from, to) = (name(from), name(from + dice.below(40)));
            let hit = range(&cache, &from, &to).await;
            assert_eq!(rows(&hit), months(&from, &to), "{sizes}");
        }
        let asked = asked(&server);
        let distinct: BTreeSet<&String> = asked.iter().collect();
        assert_eq!(asked.len(), distinct.len(), "{sizes}");
    }
}
