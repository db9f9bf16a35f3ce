//! Advice: settings that load, and do less, or something else, than they seem to.

use super::*;

const URL: &str = "url: 'https://a.b/'";

#[track_caller]
fn advised(lines: &[&str], expected: &[&str]) {
    let loaded = load(&cache(lines)).unwrap_or_else(|error| panic!("{lines:?}: {error}"));
    let told: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told, expected, "{lines:#?}");
}

#[test]
fn a_sound_configuration_gets_none() {
    advised(&[], &[]);
    advised(
        &[
            "memory: {max_ttl: 5m, required: true}",
            "sqlite: {max_ttl: 8d}",
            "redis: {max_ttl: 90d, read_only: true}",
            "breaker: {failures: 2, error_share: 20%, cooldown: 1s, max_cooldown: 1m}",
            "defaults:",
            "  ttl: 30d",
            "  jitter: 10%",
            "  stale_while_revalidate: 1h",
            "  stale_if_error: 7d",
            "  refresh_ahead: 80%",
            "  negative_ttl: 1h",
            "  soft_timeout: 2s",
            "  hard_timeout: 1m",
            "  throttle: 1m",
            "ttl_policies: {frozen: never, daily: 1d}",
            "sources:",
            "  limited: {url: 'https://a.b/', rate_limit: 5/s, refresh_ahead: off}",
            "  slow: {url: 'https://a.b/', timeout: 1m}",
            "  patient: {url: 'https://a.b/', timeout: 10m, hard_timeout: off}",
            "  frozen: {url: 'https://a.b/', version: v1}",
            // No stale values: what the defaults say of them is for the others.
            "  exact: {url: 'https://a.b/', stale_if_error: 0s}",
        ],
        &[],
    );
}

#[test]
fn refreshing_ahead_spends_a_shared_quota() {
    let told = "each process refreshes for itself, and all of them spend one quota, that of \
                `rate_limit`; leave it off where processes share the sqlite tier";
    let source = format!("  a: {{{URL}, rate_limit: 5/s, refresh_ahead: 80%}}");
    advised(
        &["sources:", &source],
        &[&format!("larder.yaml:3: `cache.sources.a.refresh_ahead`: {told}")],
    );
    advised(&["sqlite: {enable: false}", "sources:", &source], &[]);
    advised(&["chain: [memory]", "sources:", &source], &[]);
    advised(
        &["sqlite: {enable: false}", "redis: {enable: true}", "sources:", &source],
        &[&format!(
            "larder.yaml:5: `cache.sources.a.refresh_ahead`: {}",
            told.replace("sqlite", "redis")
        )],
    );
    advised(&["sources:", &format!("  a: {{{URL}, refresh_ahead: 80%}}")], &[]);
}

#[test]
fn what_sources_have_from_the_defaults_is_told_once_there() {
    let told = "larder.yaml:2: `cache.defaults.refresh_ahead`: each process refreshes for itself, \
                and all of them spend one quota, that of `rate_limit`; leave it off where \
                processes share the sqlite tier";
    let mut lines = vec!["defaults: {refresh_ahead: 80%}", "sources:"];
    lines.push("  free: {url: 'https://a.b/'}");
    lines.push("  a: {url: 'https://a.b/', rate_limit: 5/s}");
    advised(&lines, &[&format!("{told} (source a)")]);
    lines.push("  b: {url: 'https://a.b/', rate_limit: 6/s}");
    advised(&lines, &[&format!("{told} (sources a, b)")]);
    lines.push("  off: {url: 'https://a.b/', rate_limit: 6/s, refresh_ahead: off}");
    for line in ["  c: {rate_limit: 1/s}", "  d: {rate_limit: 1/s}", "  e: {rate_limit: 1/s}"] {
        lines.push(line);
    }
    advised(&lines, &[&format!("{told} (sources a, b, c, d and 1 more)")]);
}

#[test]
fn a_stale_window_should_outlast_the_throttle() {
    let told = "a stale value is dead before its load is tried again";
    advised(
        &["defaults: {stale_if_error: 10s}", "ttl_policies: {a: 1d, b: 2d}"],
        &[&format!(
            "larder.yaml:2: `cache.defaults.stale_if_error`: `stale_if_error` (10s) is shorter \
             than `throttle` (30s): {told}"
        )],
    );
    advised(&["defaults: {stale_if_error: 30s}"], &[]);
    advised(&["defaults: {throttle: 1d}"], &[]);
    // Where it was written that they do not go together: the window, or the throttle.
    advised(
        &[
            "defaults: {stale_if_error: 1m}",
            "sources:",
            "  a: {throttle: 5m}",
            "  b: {stale_if_error: 5s}",
            "  c: {stale_if_error: 5s, throttle: 1s}",
            "  d: {stale_if_error: 0s, throttle: 1h}",
        ],
        &[
            &format!(
                "larder.yaml:4: `cache.sources.a.throttle`: `stale_if_error` (1m) is shorter than \
                 `throttle` (5m): {told}"
            ),
            &format!(
                "larder.yaml:5: `cache.sources.b.stale_if_error`: `stale_if_error` (5s) is shorter \
                 than `throttle` (30s): {told}"
            ),
        ],
    );
}

#[test]
fn a_limit_of_a_tier_above_the_life_of_entries_has_no_effect_on_them() {
    let told = "has no effect on entries that live for less";
    advised(
        &["memory: {max_ttl: 31d}"],
        &[&format!("larder.yaml:2: `cache.memory.max_ttl`: {told} (the defaults)")],
    );
    advised(&["memory: {max_ttl: 30d}", "sqlite: {max_ttl: 1h}"], &[]);
    advised(&["memory: {max_ttl: 31d}", "defaults: {stale_if_error: 2d}"], &[]);
    advised(
        &[
            "sqlite: {max_ttl: 1d}",
            "ttl_policies: {live: 0s, hourly: 1h, daily: 1d, frozen: never}",
            "sources: {quick: {ttl: 1m}, kept: {ttl: 1m, stale_if_error: 7d}}",
        ],
        &[&format!("larder.yaml:2: `cache.sqlite.max_ttl`: {told} (sources hourly, quick)")],
    );
    advised(
        &["sqlite: {max_ttl: 60d}", "ttl_policies: {a: 1h}", "sources: {b: {}, c: {ttl: never}}"],
        &[&format!("larder.yaml:2: `cache.sqlite.max_ttl`: {told} (the defaults, source a)")],
    );
    advised(&["sqlite: {enable: false, max_ttl: 31d}"], &[]);
}

#[test]
fn a_soft_time_limit_needs_stale_values_and_a_longer_hard_one() {
    let useless = "has no effect without `stale_if_error`, which says what may be served instead";
    advised(
        &["defaults: {soft_timeout: 1s}", "ttl_policies: {a: 1d}"],
        &[&format!("larder.yaml:2: `cache.defaults.soft_timeout`: {useless}")],
    );
    advised(
        &["sources: {a: {soft_timeout: 1s}, b: {}}"],
        &[&format!("larder.yaml:2: `cache.sources.a.soft_timeout`: {useless}")],
    );
    // One source that has stale values is a reason to have a default.
    advised(&["defaults: {soft_timeout: 1s}", "sources: {a: {stale_if_error: 1d}, b: {}}"], &[]);
    advised(
        &["defaults: {stale_if_error: 1d, soft_timeout: 5m}"],
        &["larder.yaml:2: `cache.defaults.soft_timeout`: `soft_timeout` (5m) has no effect: \
           it is not shorter than `hard_timeout` (5m)"],
    );
    advised(
        &[
            "defaults: {stale_if_error: 1d, soft_timeout: 10s}",
            "sources: {a: {hard_timeout: 5s}, b: {hard_timeout: off}, c: {hard_timeout: 11s}}",
        ],
        &["larder.yaml:3: `cache.sources.a.hard_timeout`: `soft_timeout` (10s) has no effect: \
           it is not shorter than `hard_timeout` (5s)"],
    );
}

#[test]
fn a_hard_time_limit_should_outlast_the_request() {
    let told = "callers give up before the request does";
    advised(
        &["sources:", &format!("  a: {{{URL}, hard_timeout: 10s}}")],
        &[&format!(
            "larder.yaml:3: `cache.sources.a.hard_timeout`: `hard_timeout` (10s) is shorter than \
             `timeout` (30s): {told}"
        )],
    );
    advised(
        &["sources:", &format!("  a: {{{URL}, timeout: 10m}}")],
        &[&format!(
            "larder.yaml:3: `cache.sources.a.timeout`: `hard_timeout` (5m) is shorter than \
             `timeout` (10m): {told}"
        )],
    );
    advised(
        &[
            "defaults: {hard_timeout: 20s}",
            "sources:",
            &format!("  a: {{{URL}}}"),
            &format!("  b: {{{URL}}}"),
            &format!("  c: {{{URL}, timeout: 20s}}"),
            &format!("  d: {{{URL}, hard_timeout: 1m}}"),
            "  e: {params: {x: y}}",
        ],
        &[&format!(
            "larder.yaml:2: `cache.defaults.hard_timeout`: `hard_timeout` (20s) is shorter than \
             `timeout` (30s): {told} (sources a, b)"
        )],
    );
}

#[test]
fn what_never_expires_is_never_stale_and_never_refreshed() {
    let told = "has no effect with `ttl: never`";
    let lines = [
        "  jitter: 10%",
        "  stale_while_revalidate: 1h",
        "  stale_if_error: 1h",
        "  refresh_ahead: 0.5",
    ];
    let settings = ["jitter", "stale_while_revalidate", "stale_if_error", "refresh_ahead"];
    let expected = |section: &str, first: u64| -> Vec<String> {
        let lines = settings.iter().zip(first..);
        lines
            .map(|(name, line)| format!("larder.yaml:{line}: `cache.{section}.{name}`: {told}"))
            .collect()
    };
    let mut all = vec!["defaults:", "  ttl: never"];
    all.extend(lines);
    let told: Vec<String> = expected("defaults", 4);
    advised(&all, &told.iter().map(String::as_str).collect::<Vec<_>>());
    // A source that expires is what the defaults are for.
    all.push("ttl_policies: {a: 1d}");
    advised(&all, &["larder.yaml:8: `cache.ttl_policies.a`: it is not this line that is odd"; 0]);
}

#[test]
fn what_never_expires_is_told_at_the_source_that_says_it() {
    advised(
        &["ttl_policies: {a: never}", "sources: {a: {jitter: 10%}, b: {jitter: 10%}}"],
        &["larder.yaml:3: `cache.sources.a.jitter`: has no effect with `ttl: never`"],
    );
    // It may still be that there is none, and that expires.
    advised(&["sources: {a: {ttl: never, jitter: 10%, negative_ttl: 1h}}"], &[]);
    advised(&["defaults: {jitter: 10%}", "sources: {a: {ttl: never}}"], &[]);
}

#[test]
fn that_there_is_none_should_not_be_believed_for_longer_than_a_value() {
    let told = "that there is none is believed for longer than a value";
    advised(
        &["defaults: {ttl: 1h, negative_ttl: 2h}", "sources: {a: {}, b: {ttl: 1d}}"],
        &[&format!(
            "larder.yaml:2: `cache.defaults.negative_ttl`: `negative_ttl` (2h) is longer than \
             `ttl` (1h): {told}"
        )],
    );
    advised(
        &["defaults: {negative_ttl: 1m}", "ttl_policies: {live: 0s}"],
        &[&format!(
            "larder.yaml:3: `cache.ttl_policies.live`: `negative_ttl` (1m) is longer than `ttl` \
             (0s): {told}"
        )],
    );
    advised(
        &["defaults: {negative_ttl: 2h}", "ttl_policies: {a: 1h, b: 2h, c: never}"],
        &[&format!(
            "larder.yaml:3: `cache.ttl_policies.a`: `negative_ttl` (2h) is longer than `ttl` (1h): \
             {told}"
        )],
    );
}

#[test]
fn only_tiers_of_the_chain_can_be_required() {
    advised(
        &["redis: {required: true}"],
        &["larder.yaml:2: `cache.redis.required`: has no effect: redis is not in the chain"],
    );
    advised(
        &["chain: [memory]", "sqlite: {required: true}"],
        &["larder.yaml:3: `cache.sqlite.required`: has no effect: sqlite is not in the chain"],
    );
    advised(&["sqlite: {required: true}", "redis: {max_ttl: 1d}"], &[]);
}

#[test]
fn advice_names_the_layer_that_a_setting_came_from() {
    let loaded = CacheConfig::loader()
        .yaml("cache: {ttl_policies: {Census: never}}", "larder.yaml")
        .env([("LARDER_CACHE__SOURCES__CENSUS__JITTER", "10%")])
        .set("cache.defaults.soft_timeout", "1s")
        .load()
        .expect("valid");
    let told: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "code: `cache.defaults.soft_timeout`: has no effect without `stale_if_error`, which \
             says what may be served instead",
            "LARDER_CACHE__SOURCES__CENSUS__JITTER: `cache.sources.Census.jitter`: has no effect \
             with `ttl: never`",
        ]
    );
    assert_eq!(loaded.warnings[0].setting, "cache.defaults.soft_timeout");
    assert_eq!(loaded.warnings[0].from, Provenance::Code);
}

#[test]
fn advice_comes_in_the_order_of_the_settings_after_what_nothing_reads() {
    let loaded = load(&cache(&[
        "sources: {a: {soft_timeout: 1s}}",
        "monitoring: {alert_on_low_hit_rate: 0.5}",
        "defaults: {throttle: 1h, stale_if_error: 1m}",
        "redis: {required: true}",
    ]));
    let warnings = loaded.expect("valid").warnings;
    let settings: Vec<&str> = warnings.iter().map(|it| it.setting.as_str()).collect();
    assert_eq!(
        settings,
        [
            "cache.monitoring.alert_on_low_hit_rate",
            "cache.redis.required",
            "cache.defaults.stale_if_error",
        ]
    );
}

#[test]
fn advice_shows_no_value_of_a_variable_and_escapes_names() {
    let loaded = CacheConfig::loader()
        .yaml(
            "cache: {defaults: {stale_if_error: \"${WINDOW}\", throttle: 1h}, \
             sources: {\"a\\u202eb\": {soft_timeout: 1s, stale_if_error: 0s}}}",
            "larder.yaml",
        )
        .env([("WINDOW", "17m")])
        .load()
        .expect("valid");
    let told: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told[0],
        "larder.yaml:1: `cache.defaults.stale_if_error`: `stale_if_error` (***) is shorter than \
         `throttle` (1h): a stale value is dead before its load is tried again"
    );
    assert!(!told.concat().contains(['\u{202e}']), "{told:?}");
}
