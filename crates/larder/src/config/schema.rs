//! The table of all settings: their names in order, their ranges, and what may be shown of them.
//!
//! The structs in `model` hold types and defaults; a test keeps the two in step.

use super::error::clean;

/// What is at one place in the tree of settings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Leaf(Mark),
    /// A number with its bounds, both allowed.
    Number(Mark, f64, f64),
    /// A list of plain values, or one text with commas; with an example.
    List(&'static str),
    Section(&'static [Field]),
    /// Names chosen by the user, each with the same kind of value.
    Map(&'static Kind),
}

/// How to treat the text of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Plain,
    /// Never shown.
    Secret,
    /// Shown only where it has been redacted, so not in errors.
    Url,
    /// Accepted so that existing files load; nothing reads it yet.
    Unused,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

const fn leaf(name: &'static str) -> Field {
    field(name, Kind::Leaf(Mark::Plain))
}

const fn number(name: &'static str, min: f64, max: f64) -> Field {
    field(name, Kind::Number(Mark::Plain, min, max))
}

/// One list after the other.
const fn joined<const A: usize, const B: usize, const N: usize>(
    first: [Field; A],
    second: [Field; B],
) -> [Field; N] {
    assert!(A + B == N, "the length of the whole is the sum of its parts");
    let mut all = [leaf(""); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < A { first[at] } else { second[at - A] };
        at += 1;
    }
    all
}

/// 1 TiB in MiB.
const MAX_MIB: f64 = 1_048_576.0;

pub(super) const ROOT: Kind = Kind::Section(&[field("cache", CACHE)]);

pub(super) const CACHE: Kind = Kind::Section(&[
    field("chain", Kind::List("[memory, sqlite]")),
    field("memory", Kind::Section(&MEMORY)),
    field("sqlite", Kind::Section(&SQLITE)),
    field("redis", Kind::Section(&REDIS)),
    leaf("read_timeout"),
    leaf("write_timeout"),
    leaf("lease"),
    leaf("ledger"),
    leaf("max_value_size"),
    field(
        "breaker",
        Kind::Section(&[
            number("failures", 1.0, 10_000.0),
            leaf("error_share"),
            leaf("window"),
            leaf("cooldown"),
            leaf("max_cooldown"),
        ]),
    ),
    field("compression", Kind::Section(&COMPRESSION)),
    field(
        "prefetch",
        Kind::Section(&[
            leaf("enabled"),
            // Half of the Earth's girth is the farthest anything can be.
            number("nearby_radius_miles", 0.0, 12_500.0),
            number("max_parallel_requests", 1.0, 10_000.0),
        ]),
    ),
    field(
        "monitoring",
        Kind::Section(&[
            leaf("log_cache_hits"),
            field("alert_on_low_hit_rate", Kind::Number(Mark::Unused, 0.0, 1.0)),
            field("alert_on_high_latency_ms", Kind::Number(Mark::Unused, 0.0, 86_400_000.0)),
        ]),
    ),
    field("defaults", Kind::Section(&POLICY)),
    field("ttl_policies", Kind::Map(&Kind::Leaf(Mark::Plain))),
    leaf("graceful_mode"),
    leaf("offline"),
    field("sources", Kind::Map(&SOURCE)),
    field("jobs", Kind::Map(&JOB)),
    field("notify", Kind::Section(&NOTIFY)),
    leaf("changes_log"),
]);

const JOB: Kind = Kind::Section(&[
    leaf("cron"),
    leaf("time_zone"),
    leaf("jitter"),
    leaf("markets"),
    field("market", Kind::List("[boulder-co, \"Denver, CO\"]")),
    leaf("all_metros"),
    number("nearby_miles", 0.0, 12_500.0),
    field("sources", Kind::List("[census_acs]")),
    leaf("refresh"),
    leaf("max_age"),
]);

const NOTIFY: [Field; 3] = [
    field("webhook", Kind::Leaf(Mark::Url)),
    field("secret", Kind::Leaf(Mark::Secret)),
    field("command", Kind::List("[/usr/local/bin/tell, --now]")),
];

const CHANGES: [Field; 2] = [
    field("pointers", Kind::List("[/data/*/value]")),
    field("ignore", Kind::List("[/generated_at]")),
];

const COMPRESSION: [Field; 5] = [
    leaf("enable"),
    leaf("algorithm"),
    number("threshold_kb", 0.0, MAX_MIB),
    number("level", 0.0, 19.0),
    leaf("dictionaries"),
];

const AUTH: [Field; 4] =
    [leaf("header"), leaf("query"), leaf("field"), field("value", Kind::Leaf(Mark::Secret))];

const RESPONSE: [Field; 7] = [
    field("statuses", Kind::List("[200, 203]")),
    field("content_types", Kind::List("[application/json]")),
    field("must_exist", Kind::List("[/Results/series]")),
    field("must_not_exist", Kind::List("[/remark]")),
    field("must_equal", Kind::Map(&Kind::Leaf(Mark::Plain))),
    leaf("empty_is_absent"),
    field("drop", Kind::List("[/Header/0/url]")),
];

const RANGE: [Field; 10] = [
    leaf("from"),
    leaf("to"),
    leaf("step"),
    number("chunk", 1.0, 100_000.0),
    number("chunks_per_call", 1.0, 10_000.0),
    leaf("format"),
    leaf("open_ttl"),
    leaf("rows"),
    field("date", Kind::List("[/year, /month]")),
    field("key", Kind::List("[/seriesID]")),
];

const VERSION_FROM: [Field; 2] = [leaf("header"), leaf("pointer")];

const PROBE: [Field; 4] =
    [field("url", Kind::Leaf(Mark::Url)), leaf("header"), leaf("pointer"), leaf("check_every")];

const BATCH: [Field; 5] =
    [leaf("param"), number("max", 2.0, 10_000.0), leaf("separator"), leaf("rows"), leaf("member")];

const RETRY: [Field; 4] =
    [number("attempts", 1.0, 100.0), leaf("base"), leaf("max"), leaf("budget")];

const MEMORY: [Field; 7] = joined(
    [leaf("enable"), number("size_mb", 1.0, MAX_MIB), leaf("policy"), leaf("compress")],
    TIER,
);

const SQLITE: [Field; 9] = joined(
    [
        leaf("enable"),
        leaf("path"),
        leaf("busy_timeout"),
        number("readers", 1.0, 16.0),
        leaf("max_size"),
        leaf("poll_interval"),
    ],
    TIER,
);

const REDIS: [Field; 9] = joined(
    [
        leaf("enable"),
        leaf("host"),
        number("port", 1.0, 65_535.0),
        number("db", 0.0, 65_535.0),
        field("password", Kind::Leaf(Mark::Secret)),
        leaf("ttl_default"),
    ],
    TIER,
);

/// What every tier has.
const TIER: [Field; 3] = [leaf("required"), leaf("read_only"), leaf("max_ttl")];

const SOURCE: Kind = Kind::Section(&SOURCE_FIELDS);

const SOURCE_FIELDS: [Field; 42] = joined(
    [
        field("url", Kind::Leaf(Mark::Url)),
        field("params", Kind::Map(&Kind::Leaf(Mark::Url))),
        field("query", Kind::Map(&Kind::Leaf(Mark::Secret))),
        field("headers", Kind::Map(&Kind::Leaf(Mark::Secret))),
        field("json", Kind::Leaf(Mark::Secret)),
        field("form", Kind::Map(&Kind::Leaf(Mark::Secret))),
        field("auth", Kind::Section(&AUTH)),
        field("response", Kind::Section(&RESPONSE)),
        field("status_ttl", Kind::Map(&Kind::Leaf(Mark::Plain))),
        leaf("respect_cache_control"),
        field("redirect_hosts", Kind::List("[data.example.org]")),
        leaf("allow_private"),
        leaf("timeout"),
        leaf("max_body"),
        leaf("rate_limit"),
        number("burst", 1.0, 10_000.0),
        number("concurrency", 1.0, 10_000.0),
        leaf("quota"),
        leaf("quota_reserve"),
        field("retry", Kind::Section(&RETRY)),
        leaf("version"),
        field("version_from", Kind::Section(&VERSION_FROM)),
        field("probe", Kind::Section(&PROBE)),
        field("range", Kind::Section(&RANGE)),
        field("batch", Kind::Section(&BATCH)),
        number("cost_per_call", 0.0, 1e9),
        leaf("critical"),
        field("changes", Kind::Section(&CHANGES)),
        field("compression", Kind::Section(&COMPRESSION)),
    ],
    POLICY,
);

/// What a policy has; shares have bounds that a `Number` cannot say, and may be percents.
const POLICY: [Field; 13] = [
    leaf("ttl"),
    leaf("jitter"),
    leaf("stale_while_revalidate"),
    leaf("stale_if_error"),
    leaf("revalidate_for"),
    leaf("refresh_ahead"),
    leaf("negative_ttl"),
    leaf("soft_timeout"),
    leaf("hard_timeout"),
    leaf("throttle"),
    leaf("retroactive_ttl"),
    field("stale_on", Kind::List("[network, timeout]")),
    leaf("cancel_abandoned"),
];

/// The field a key names, under either spelling of a section's switch.
pub(super) fn find(fields: &'static [Field], key: &str) -> Option<&'static Field> {
    let by_name = |name: &str| fields.iter().find(|field| field.name == name);
    by_name(key).or_else(|| match key {
        "enable" => by_name("enabled"),
        "enabled" => by_name("enable"),
        _ => None,
    })
}

/// The switch of a section that has one.
pub(super) fn switch(fields: &'static [Field]) -> Option<&'static Field> {
    find(fields, "enable")
}

/// The kind at a path of canonical names.
pub(super) fn kind_at<S: AsRef<str>>(path: &[S]) -> Option<Kind> {
    path.iter().try_fold(ROOT, |kind, key| match kind {
        Kind::Section(fields) => find(fields, key.as_ref()).map(|field| field.kind),
        Kind::Map(inner) => Some(*inner),
        Kind::Leaf(_) | Kind::Number(..) | Kind::List(_) => None,
    })
}

/// What follows "unknown setting": the nearest name, and all that are valid.
pub(super) fn advice(key: &str, fields: &'static [Field]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    let valid = format!("(valid: {})", names.join(", "));
    match nearest(key, fields) {
        Some(field) => format!("; did you mean `{}`? {valid}", field.name),
        None => format!(" {valid}"),
    }
}

/// The field with the name most like the given one, if any is like it at all.
pub(super) fn nearest(given: &str, fields: &'static [Field]) -> Option<&'static Field> {
    let given = given.to_ascii_lowercase();
    let scored = fields.iter().map(|field| (likeness(&given, field.name), field));
    let (score, field) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (score > 0.8).then_some(field)
}

/// Of the whole names, or of one word in each, which counts for less. That both say `max` tells
/// nothing of what.
fn likeness(given: &str, name: &str) -> f64 {
    let words = given.split('_').flat_map(|a| name.split('_').map(move |b| (a, b)));
    let word = words
        .filter(|(a, _)| a.len() > 2 && *a != "max")
        .map(|(a, b)| strsim::jaro_winkler(a, b) * 0.9)
        .fold(0.0, f64::max);
    strsim::jaro_winkler(given, name).max(word)
}

/// The dotted name of a path, safe to print.
pub(super) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    path.iter().map(|part| clean(part.as_ref())).collect::<Vec<_>>().join(".")
}

/// Calls `visit` for all leaves, with the path where names chosen by the user are `*`.
pub(super) fn leaves(kind: Kind, path: &mut Vec<&'static str>, visit: &mut impl FnMut(&[&str])) {
    match kind {
        Kind::Section(fields) => {
            for field in fields {
                path.push(field.name);
                leaves(field.kind, path, visit);
                path.pop();
            }
        }
        Kind::Map(inner) => {
            path.push("*");
            leaves(*inner, path, visit);
            path.pop();
        }
        Kind::Leaf(_) | Kind::Number(..) | Kind::List(_) => visit(path),
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::Value;

    use super::*;
    use crate::config::{CacheConfig, SourceConfig};

    fn same_keys(kind: Kind, value: &Value, at: &str) {
        let Kind::Section(fields) = kind else { return };
        let map = value.as_object().unwrap_or_else(|| panic!("{at} is a section"));
        let mut names: Vec<&str> = fields.iter().map(|field| field.name).collect();
        names.sort_unstable();
        let mut keys: Vec<&str> = map.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(names, keys, "{at}");
        for field in fields {
            same_keys(field.kind, &map[field.name], field.name);
        }
    }

    fn json(value: impl Serialize) -> Value {
        serde_json::to_value(value).expect("settings are plain data")
    }

    #[test]
    fn the_table_names_what_the_structs_hold() {
        same_keys(CACHE, &json(CacheConfig::default()), "cache");
        same_keys(SOURCE, &json(SourceConfig::default()), "source");
    }

    #[test]
    fn a_switch_has_two_names() {
        for section in ["memory", "sqlite", "redis", "compression", "prefetch"] {
            let Some(Kind::Section(fields)) = kind_at(&["cache", section]) else {
                panic!("{section} is a section")
            };
            let names = ["enable", "enabled"].map(|name| find(fields, name).map(|f| f.name));
            assert!(names[0].is_some() && names[0] == names[1], "{section}: {names:?}");
        }
    }
}
