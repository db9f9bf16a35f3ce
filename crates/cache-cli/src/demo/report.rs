//! What the demo saw, as a table and as JSON.

use std::time::{Duration, Instant};

use larder::{Cache, Stats};
use serde_json::{Value, json};

use super::{command, store::Store};
use crate::table;

/// One pass over everything.
pub(crate) struct Phase {
    name: &'static str,
    began: Instant,
    calls_before: u64,
    stats_before: Stats,
    origin_calls: u64,
    refused: u64,
    hits: Vec<(&'static str, u64)>,
    elapsed: Duration,
    /// Of each read; sorted at the end.
    latencies: Vec<Duration>,
    /// Of those that the origin answered; sorted at the end.
    origin_latencies: Vec<Duration>,
}

impl Phase {
    pub(crate) fn begin(name: &'static str, cache: &Cache, calls: u64) -> Self {
        Self {
            name,
            began: Instant::now(),
            calls_before: calls,
            stats_before: cache.stats(),
            origin_calls: 0,
            refused: 0,
            hits: Vec::new(),
            elapsed: Duration::ZERO,
            latencies: Vec::new(),
            origin_latencies: Vec::new(),
        }
    }

    /// The origin answered a read after this long, from when it was asked.
    pub(crate) fn origin_took(&mut self, latency: Duration) {
        self.origin_latencies.push(latency);
    }

    /// A read took this long.
    pub(crate) fn took(&mut self, latency: Duration) {
        self.latencies.push(latency);
    }

    /// Ends it, with the counts at its end.
    pub(crate) fn end(mut self, cache: &Cache, calls: u64, refused: u64) -> Self {
        self.elapsed = self.began.elapsed();
        self.origin_calls = calls - self.calls_before;
        self.refused = refused;
        let before = |name| self.stats_before.tier(name).map_or(0, |tier| tier.served);
        self.hits = cache
            .stats()
            .tiers
            .iter()
            .map(|tier| (tier.name, tier.served - before(tier.name)))
            .collect();
        self.latencies.sort_unstable();
        self.origin_latencies.sort_unstable();
        self
    }

    fn percentile(&self, percent: usize) -> Option<Duration> {
        percentile(&self.latencies, percent)
    }

    fn served(&self, tier: &str) -> u64 {
        self.hits.iter().find(|(name, _)| *name == tier).map_or(0, |(_, hits)| *hits)
    }
}

/// The latency that `percent` of them did not exceed (nearest rank); sorted they must be.
fn percentile(latencies: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (latencies.len() * percent).div_ceil(100);
    latencies.get(rank.saturating_sub(1)).copied()
}

/// All of it.
pub(crate) struct Report {
    pub(crate) phases: Vec<Phase>,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
}

impl Report {
    pub(crate) fn document(&self) -> Value {
        let millis = |span: Option<Duration>| span.map(|span| span.as_nanos() as f64 / 1e6);
        let phase = |phase: &Phase| {
            json!({
                "name": phase.name,
                "origin_calls": phase.origin_calls,
                "origin_refused": phase.refused,
                "hits": {"memory": phase.served("memory"), "sqlite": phase.served("sqlite")},
                "seconds": phase.elapsed.as_micros() as f64 / 1e6,
                "latency_ms": {
                    "p50": millis(phase.percentile(50)),
                    "p95": millis(phase.percentile(95)),
                    "p99": millis(phase.percentile(99)),
                },
            })
        };
        json!({
            "schema": "larder.demo/1",
            "phases": self.phases.iter().map(phase).collect::<Vec<_>>(),
            "stored_bytes": self.stored_bytes,
            "raw_bytes": self.raw_bytes,
        })
    }

    pub(crate) fn text(&self, store: &Store) -> String {
        let origin = self.phases.iter().find_map(|phase| percentile(&phase.origin_latencies, 50));
        let rows: Vec<Vec<String>> = self.phases.iter().map(|phase| row(phase, origin)).collect();
        let headings =
            ["PHASE", ">MEMORY", ">SQLITE", ">ORIGIN", ">P50", ">P95", ">P99", ">SPEED-UP"];
        let ratio = self.raw_bytes as f64 / self.stored_bytes.max(1) as f64;
        let again = if origin.is_none() {
            "\nNothing was asked of the API: an earlier run had stored it all (--fresh starts over).\n"
        } else {
            ""
        };
        let file = store.config_file();
        format!(
            "\n{}\nMEMORY, SQLITE and ORIGIN count the reads each one answered; SPEED-UP is against \
             the p50 of what\nthe API answered, from when it was asked.\nStored: {} as {} in {} ({ratio:.1}x smaller)\n{again}\n\
             Look at it, also while the API is away:\n  {}\n  {}\n  {}\n  {}\n",
            table::render(&headings, &rows),
            table::size(self.raw_bytes),
            table::size(self.stored_bytes),
            crate::context::shown(store.named()),
            command(&file, "stats"),
            command(&file, "get profile --market \"Boulder, CO\""),
            command(&file, "get neighbors --market 14500 --format json"),
            command(&file, "config show"),
        )
    }
}

fn row(phase: &Phase, origin: Option<Duration>) -> Vec<String> {
    let latency = |percent| phase.percentile(percent).map_or_else(String::new, table::latency);
    let name = match phase.name {
        "warm" => "warm",
        "memory" => "again",
        "sqlite" => "new process memory",
        _ => "API stopped",
    };
    let from_cache = phase.origin_calls == 0;
    let speed_up = match (origin, phase.percentile(50)) {
        (Some(origin), Some(here)) if from_cache && !here.is_zero() => {
            let times = origin.as_nanos() / here.as_nanos().max(1);
            format!("{}x", table::count(u64::try_from(times).unwrap_or(u64::MAX)))
        }
        _ => "–".to_owned(),
    };
    vec![
        name.to_owned(),
        table::count(phase.served("memory")),
        table::count(phase.served("sqlite")),
        table::count(phase.origin_calls),
        latency(50),
        latency(95),
        latency(99),
        speed_up,
    ]
}
