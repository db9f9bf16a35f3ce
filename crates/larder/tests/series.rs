//! Ranges answered from cached chunks.

#![cfg(all(feature = "memory", feature = "series"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use larder::{
    Cache, Error, Loaded, OriginError, OriginErrorKind, Policy, ReadOptions, Request, StaleReason,
    series::{DateRange, Run, Series, SeriesHit, Step},
    tiers::MemoryTier,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tier_testkit::ManualClock;

const HOUR: Duration = Duration::from_hours(1);

fn cache(policy: Policy) -> Cache {
    timed(policy, &Arc::default())
}

/// A cache that reads this clock.
fn timed(policy: Policy, clock: &Arc<ManualClock>) -> Cache {
    let memory = MemoryTier::with_clock(64 << 20, Arc::<ManualClock>::clone(clock));
    let builder = Cache::builder().clock(Arc::<ManualClock>::clone(clock)).tier(memory);
    builder.policy("bls", policy).build().unwrap()
}

fn months() -> Series {
    Series::new(Step::Month).chunk(12).rows("/data").date("/month")
}

fn jobs() -> Request {
    Request::new("bls").param("cbsa", 14500)
}

fn range(from: &str, to: &str) -> DateRange {
    DateRange::parse(from, to).unwrap()
}

/// Month `at`, counted from the year 0.
fn month(at: usize) -> String {
    format!("{:04}-{:02}", at / 12, at % 12 + 1)
}

fn number(month: &str) -> usize {
    let (year, month) = month.split_once('-').unwrap();
    year.parse::<usize>().unwrap() * 12 + month.parse::<usize>().unwrap() - 1
}

/// An upstream with a row for each month, that remembers what it was asked for.
#[derive(Clone, Default)]
struct Upstream {
    asked: Arc<Mutex<Vec<(usize, usize)>>>,
    /// Rows that it gives though nobody asked for them, on both sides.
    extra: usize,
    down: bool,
}

impl Upstream {
    fn load(
        &self,
    ) -> impl Fn(Run) -> std::future::Ready<Result<Loaded, OriginError>> + Send + Sync + 'static
    {
        let Self { asked, extra, down } = self.clone();
        move |run| {
            let bound = |name| number(run.request.value(name).unwrap());
            let (from, to) = (bound("from"), bound("to"));
            asked.lock().unwrap().push((from, to));
            if down {
                let error = OriginError::new(OriginErrorKind::Network, "bls", "unplugged");
                return std::future::ready(Err(error));
            }
            // The latest first, as BLS has it.
            let rows = (from.saturating_sub(extra)..=to + extra).rev();
            let rows: Vec<Value> = rows
                .map(|at| json!({"month": month(at), "asked": (from..=to).contains(&at)}))
                .collect();
            let document = json!({"data": rows, "status": "ok"}).to_string();
            std::future::ready(Ok(Loaded::new(document).content_type("application/json")))
        }
    }

    fn asked(&self) -> Vec<(usize, usize)> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort_unstable();
        asked
    }
}

fn rows(answer: &SeriesHit) -> Vec<usize> {
    let document: Value = serde_json::from_slice(answer.value()).unwrap();
    let rows = document["data"].as_array().unwrap().iter();
    let rows = rows.inspect(|row| assert_eq!(row["asked"], true, "of its own chunk: {row}"));
    rows.map(|row| number(row["month"].as_str().unwrap())).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_union_is_right_and_no_cached_chunk_is_fetched_again(
        chunk in 1_u32..30,
        per_call in 1_u32..5,
        extra in 0_usize..3,
        before in proptest::collection::vec((0_usize..120, 0_usize..40), 0..6),
        wanted in (0_usize..120, 0_usize..120),
    ) {
        runtime().block_on(async {
            let cache = cache(Policy::ttl(HOUR));
            let upstream = Upstream { extra, ..Upstream::default() };
            let series = months().chunk(chunk).chunks_per_call(per_call);
            let mut cached = BTreeSet::new();
            let chunk = chunk as usize;
            for (start, length) in before.into_iter().chain([wanted]) {
                let (from, to) = (2000 * 12 + start, 2000 * 12 + start + length);
                let days = range(&month(from), &month(to));
                let answer = cache.series(&series, &jobs(), days, upstream.load()).await.unwrap();
                prop_assert_eq!(rows(&answer), (from..=to).collect::<Vec<_>>());
                let mut fetched = Vec::new();
                for (first, last) in upstream.asked() {
                    prop_assert_eq!((first % chunk, (last + 1) % chunk), (0, 0), "whole chunks");
                    prop_assert!((last + 1 - first) / chunk <= per_call as usize);
                    fetched.extend(first / chunk..=last / chunk);
                }
                let missing: Vec<usize> =
                    (from / chunk..=to / chunk).filter(|it| !cached.contains(it)).collect();
                prop_assert_eq!(&fetched, &missing, "each missing chunk once, and no other");
                prop_assert_eq!(answer.loaded(), missing.len());
                cached.extend(missing);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn neighbouring_chunks_are_asked_for_together_where_the_loader_allows_it() {
    let (cache, upstream) = (cache(Policy::ttl(HOUR)), Upstream::default());
    let series = months().chunks_per_call(3);
    let ask = async |from, to| {
        cache.series(&series, &jobs(), range(from, to), upstream.load()).await.unwrap();
        upstream.asked()
    };
    let years = |from: usize, to: usize| (from * 12, to * 12 + 11);
    assert_eq!(ask("2013", "2013").await, [years(2013, 2013)]);
    assert_eq!(
        ask("2010", "2018").await,
        [years(2010, 2012), years(2014, 2016), years(2017, 2018)]
    );
    assert_eq!(ask("2010-05", "2018-03").await, []);
}

#[tokio::test]
async fn a_chunk_is_an_ordinary_entry_under_the_key_of_a_request_for_it() {
    let (cache, upstream) = (cache(Policy::ttl(HOUR)), Upstream::default());
    let answer =
        cache.series(&months(), &jobs(), range("2014-06", "2015"), upstream.load()).await.unwrap();
    assert_eq!(answer.value().first(), Some(&b'{'));
    assert_eq!(answer.hit().entry().content_type(), Some("application/json"));
    let key = jobs().param("from", "2015-01").param("to", "2015-12").key();
    assert!(cache.peek(key.as_str()).is_some());
    cache.invalidate(&key).await.unwrap();
    upstream.asked();
    cache.series(&months(), &jobs(), range("2014", "2015"), upstream.load()).await.unwrap();
    assert_eq!(upstream.asked(), [(2015 * 12, 2015 * 12 + 11)], "the one that was invalidated");
}

#[tokio::test]
async fn the_answer_is_as_fresh_as_its_oldest_part() {
    let clock = Arc::<ManualClock>::default();
    let cache = timed(Policy::ttl(HOUR).stale_if_error(HOUR), &clock);
    let upstream = Upstream::default();
    let old =
        cache.series(&months(), &jobs(), range("2014", "2014"), upstream.load()).await.unwrap();
    clock.advance(Duration::from_mins(1));
    let both =
        cache.series(&months(), &jobs(), range("2014", "2015"), upstream.load()).await.unwrap();
    assert_eq!(both.hit().entry().expires_at(), old.hit().entry().expires_at());
    assert_eq!(both.hit().entry().as_of(), old.hit().entry().as_of());
    assert_eq!(both.hit().served_by(), larder::ServedBy::Origin, "one of them was loaded");

    // One part is stale, and served because it cannot be loaded.
    let key = jobs().param("from", "2014-01").param("to", "2014-12").key();
    cache.expire(&key).await.unwrap();
    let down = Upstream { down: true, ..Upstream::default() };
    let stale = cache.series(&months(), &jobs(), range("2014", "2015"), down.load()).await.unwrap();
    assert_eq!(stale.hit().stale_reason(), Some(StaleReason::LoadFailed));
    assert!(stale.hit().failure().is_some());
    assert_eq!(rows(&stale).len(), 24);
}

#[tokio::test]
async fn a_chunk_that_fails_fails_the_answer_and_the_others_stay() {
    let (cache, upstream) = (cache(Policy::ttl(HOUR)), Upstream::default());
    let load = upstream.load();
    let failing = move |run: Run| {
        let fails = run.request.value("from") == Some("2015-01");
        let answer = load(run).into_inner();
        std::future::ready(if fails {
            Err(OriginError::new(OriginErrorKind::Status(500), "bls", "broken"))
        } else {
            answer
        })
    };
    let days = range("2014", "2016");
    let error = cache.series(&months(), &jobs(), days, failing).await.unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    upstream.asked();
    cache.series(&months(), &jobs(), days, upstream.load()).await.unwrap();
    assert_eq!(upstream.asked(), [(2015 * 12, 2015 * 12 + 11)]);
    let cached = ReadOptions::cached_only();
    let wider =
        cache.series_with(&months(), &jobs(), range("2014", "2017"), cached, upstream.load()).await;
    assert!(matches!(wider, Err(Error::NotCached { .. })));
}

#[tokio::test]
async fn a_chunk_that_has_not_ended_stays_fresh_for_less() {
    let (cache, upstream) = (cache(Policy::ttl(24 * HOUR)), Upstream::default());
    let series = months().open_ttl(HOUR);
    let ended =
        cache.series(&series, &jobs(), range("2001", "2001"), upstream.load()).await.unwrap();
    assert!(ended.hit().fresh_for() > 2 * HOUR);
    let open = cache.series(&series, &jobs(), range("2098", "2099-01"), upstream.load()).await;
    assert!(open.is_ok());
    let key = jobs().param("from", "2099-01").param("to", "2099-12").key();
    assert!(cache.peek(key.as_str()).unwrap().fresh_for() <= HOUR);
}

#[tokio::test]
async fn rows_keep_their_digits_and_header_rows_come_first_and_once() {
    let cache = cache(Policy::ttl(HOUR));
    let series = Series::new(Step::Year).date("/1").key("/1").params("start", "end");
    let load = |run: Run| async move {
        let year = run.request.value("start").unwrap_or_default().to_owned();
        Ok(Loaded::new(format!("[[\"value\",\"year\"],[1.10,\"{year}\"]]")))
    };
    let answer = cache.series(&series, &jobs(), range("2020", "2021"), load).await.unwrap();
    assert_eq!(answer.value(), r#"[["value","year"],[1.10,"2020"],[1.10,"2021"]]"#);
}

#[tokio::test]
async fn chunks_without_an_answer_are_no_rows_and_nothing_at_all_is_none() {
    let cache = cache(Policy::ttl(HOUR).negative_ttl(HOUR));
    let absent = |_run: Run| async { Ok(Loaded::absent()) };
    let years = range("2020", "2021");
    let answer = cache.series(&months(), &jobs(), years, absent).await.unwrap();
    assert!(answer.hit().is_absent() && answer.value().is_empty());
    let upstream = Upstream::default();
    let wider = cache.series(&months(), &jobs(), range("2020", "2022"), upstream.load()).await;
    assert_eq!(rows(&wider.unwrap()).len(), 12);
    assert_eq!(upstream.asked(), [(2022 * 12, 2022 * 12 + 11)], "that there is none is known");
}

#[tokio::test]
async fn what_makes_no_sense_is_told_before_anything_is_asked() {
    let (cache, upstream) = (cache(Policy::ttl(HOUR)), Upstream::default());
    let long = range("0001", "9999");
    let few = range("2020", "2021");
    for (series, days, told) in [
        (Series::new(Step::Day), long, "more than 10000 chunks"),
        (months().chunk(0), few, "at least one step"),
        (Series::new(Step::Month).chunks_per_call(2), few, "date of a row"),
        (months().params("at", "at"), few, "both bounds"),
        (months().format("%Y").chunk(1), few, "do not tell chunks apart"),
        (months().format("%!"), few, "cannot be written as"),
        (months().rows("data"), few, "begins with `/`"),
    ] {
        let error = cache.series(&series, &jobs(), days, upstream.load()).await.unwrap_err();
        assert!(matches!(error, Error::Series { .. }), "{error:?}");
        assert!(error.to_string().contains(told), "{told}: {error}");
    }
    assert_eq!(upstream.asked(), []);
    let elsewhere = months().rows("/rows");
    let error = cache.series(&elsewhere, &jobs(), few, upstream.load()).await.unwrap_err();
    assert!(error.to_string().contains("no array of rows at `/rows`"), "{error}");
    assert!(DateRange::parse("2021", "2020").is_err());
    assert!(DateRange::parse("soon", "2020").unwrap_err().to_string().contains("2015-03"));
}
