//! Policies: `cache.defaults`, what a source changes of them, and what is refused.

use larder::{Failure, Failures, Policy, PolicyPatch};

use super::*;

type Change = fn(&mut Policy);

/// Every setting of a policy as it may be written, how `config show` prints it, and what it does.
const CASES: [(&str, &str, &str, Change); 29] = [
    ("ttl", "1h30m", "1h 30m", |it| it.ttl = larder::Ttl::For(Duration::from_mins(90))),
    ("ttl", "0s", "0s", |it| it.ttl = larder::Ttl::For(Duration::ZERO)),
    ("ttl", "never", "never", |it| it.ttl = larder::Ttl::Never),
    ("jitter", "0.25", "0.25", |it| it.jitter = 0.25),
    ("jitter", "10%", "0.1", |it| it.jitter = 0.1),
    ("jitter", "100 %", "1", |it| it.jitter = 1.0),
    ("stale_while_revalidate", "1d", "1d", |it| {
        it.stale_while_revalidate = Duration::from_hours(24);
    }),
    ("stale_if_error", "250ms", "250ms", |it| it.stale_if_error = Duration::from_millis(250)),
    ("revalidate_for", "90d", "90d", |it| it.revalidate_for = Duration::from_hours(90 * 24)),
    ("refresh_ahead", "0.8", "0.8", |it| it.refresh_ahead = Some(0.8)),
    ("refresh_ahead", "80%", "0.8", |it| it.refresh_ahead = Some(0.8)),
    ("refresh_ahead", "0", "off", |it| it.refresh_ahead = None),
    ("refresh_ahead", "off", "off", |it| it.refresh_ahead = None),
    ("negative_ttl", "1h", "1h", |it| it.negative_ttl = Duration::from_hours(1)),
    ("soft_timeout", "2s", "2s", |it| it.soft_timeout = Some(Duration::from_secs(2))),
    ("soft_timeout", "0s", "off", |it| it.soft_timeout = None),
    ("hard_timeout", "1m", "1m", |it| it.hard_timeout = Some(Duration::from_mins(1))),
    ("hard_timeout", "0s", "off", |it| it.hard_timeout = None),
    ("hard_timeout", "off", "off", |it| it.hard_timeout = None),
    ("throttle", "5s", "5s", |it| it.throttle = Duration::from_secs(5)),
    ("throttle", "0s", "0s", |it| it.throttle = Duration::ZERO),
    ("retroactive_ttl", "false", "false", |it| it.retroactive_ttl = false),
    ("stale_on", "network", "network", |it| {
        it.stale_on = Failures::NONE.with(Failure::Network);
    }),
    ("stale_on", "other, Client_Error", "client_error, other", |it| {
        it.stale_on = Failures::NONE.with(Failure::ClientError).with(Failure::Other);
    }),
    (
        "stale_on",
        "server_error,rate_limited,timeout,",
        "timeout, rate_limited, server_error",
        |it| {
            it.stale_on = Failures::NONE
                .with(Failure::Timeout)
                .with(Failure::RateLimited)
                .with(Failure::ServerError);
        },
    ),
    ("stale_on", "all", "all", |it| it.stale_on = Failures::ALL),
    ("stale_on", "none", "none", |it| it.stale_on = Failures::NONE),
    ("cancel_abandoned", "true", "true", |it| it.cancel_abandoned = true),
    ("cancel_abandoned", "false", "false", |it| it.cancel_abandoned = false),
];

fn changed(change: Change) -> Policy {
    let mut policy = Policy::default();
    change(&mut policy);
    policy
}

#[test]
fn every_setting_of_a_policy_has_its_effect_from_every_layer() {
    for (setting, written, shown, change) in CASES {
        let expected = changed(change);
        for (section, of) in [("defaults", None), ("sources.a", Some("a"))] {
            let path = format!("cache.{section}.{setting}");
            let yaml = match of {
                None => cache(&["defaults:", &format!("  {setting}: '{written}'")]),
                Some(_) => cache(&["sources:", &format!("  a: {{{setting}: '{written}'}}")]),
            };
            let variable = format!("LARDER_{}", path.replace('.', "__").to_uppercase());
            let loaders = [
                (CacheConfig::loader().yaml(yaml, "larder.yaml"), file(3)),
                (
                    CacheConfig::loader()
                        .yaml("cache: {sources: {a: }}", "f")
                        .env([(variable.as_str(), written)]),
                    Provenance::Env { variable: variable.clone() },
                ),
                (CacheConfig::loader().set(path.as_str(), written), Provenance::Code),
            ];
            for (loader, provenance) in loaders {
                let loaded = loader.load().unwrap_or_else(|error| panic!("{path}: {error}"));
                let config = &loaded.config;
                assert_eq!(config.policy_for("a"), expected, "{path}: {written}");
                let other = if of.is_none() { expected.clone() } else { Policy::default() };
                assert_eq!(config.defaults.policy(), other, "{path}: {written}");
                assert_eq!(config.policy_for("unheard_of"), other, "{path}: {written}");
                assert_eq!(from(&loaded, &path), (shown, &provenance), "{path}: {written}");
                config.validate().expect("what loads is valid");
            }
        }
    }
}

#[test]
fn no_setting_of_a_policy_is_left_out_above() {
    let loaded = load("cache: {}").expect("valid");
    let settings = loaded.settings.iter().filter_map(|it| it.path.strip_prefix("cache.defaults."));
    for setting in settings {
        assert!(CASES.iter().any(|(name, ..)| *name == setting), "{setting}");
    }
}

#[test]
fn nothing_written_is_the_default_policy() {
    let config = good(&["sources: {a: {url: 'https://a.b/'}}", "ttl_policies: {b: 1d}"]);
    assert_eq!(config.defaults.policy(), Policy::default());
    assert_eq!(config.policy_for("a"), Policy::default());
    assert_eq!(config.policy_for("b"), Policy::ttl(Duration::from_hours(24)));
    assert_eq!(config.sources["a"].patch(), PolicyPatch::default());
}

#[test]
fn a_call_goes_before_its_source_and_a_source_before_the_defaults() {
    let config = good(&[
        "defaults: {ttl: 1d, jitter: 10%, stale_if_error: 1h, refresh_ahead: 0.5, soft_timeout: 1s}",
        "ttl_policies: {a: 2d, named: 3d}",
        "sources:",
        "  a: {stale_if_error: 2h, refresh_ahead: off, soft_timeout: off, throttle: 1s}",
    ]);
    let mut expected = config.defaults.policy();
    expected.ttl = larder::Ttl::For(Duration::from_hours(48));
    expected.stale_if_error = Duration::from_hours(2);
    expected.refresh_ahead = None;
    expected.soft_timeout = None;
    expected.throttle = Duration::from_secs(1);
    assert_eq!(config.policy_for("a"), expected, "what it does not say, the defaults say");
    assert!((expected.jitter - 0.1).abs() < 1e-12);

    let call = PolicyPatch::default().stale_if_error(Duration::from_hours(3)).jitter(0.0);
    expected.stale_if_error = Duration::from_hours(3);
    expected.jitter = 0.0;
    assert_eq!(config.policy_for("a").patched(&call), expected);

    let mut named = config.defaults.policy();
    named.ttl = larder::Ttl::For(Duration::from_hours(72));
    assert_eq!(config.policy_for("named"), named, "a source of `ttl_policies` alone has one too");
}

#[test]
fn failures_may_be_a_list() {
    let on = |line: &str| good(&[line]).defaults.stale_on;
    assert_eq!(on("defaults: {stale_on: []}"), Failures::NONE);
    assert_eq!(on("defaults: {stale_on: [all]}"), Failures::ALL);
    assert_eq!(on("defaults: {stale_on: [none]}"), Failures::NONE);
    let two = Failures::NONE.with(Failure::Network).with(Failure::Timeout);
    assert_eq!(on("defaults: {stale_on: [timeout, network]}"), two);
    assert_eq!(on("defaults: {stale_on: }"), Failures::TEMPORARY, "nothing is the default");
    let source = good(&["sources: {a: {stale_on: []}}"]);
    assert_eq!(source.policy_for("a").stale_on, Failures::NONE, "an empty list is no default");
}

#[test]
fn a_source_has_a_version() {
    let config = good(&["sources: {a: {version: 2022.10}, b: {}}"]);
    assert_eq!(config.policy_for("a"), Policy::default().version("2022.10"));
    assert_eq!(config.policy_for("b"), Policy::default());
    bad(
        &cache(&["sources: {a: {version: ' '}}"]),
        "larder.yaml:2:26: `cache.sources.a.version`: a version is missing here; \
         write for example 2022, or leave it out",
    );
    let error = load(&cache(&["defaults: {version: 1}"])).expect_err("of a source alone");
    assert!(error.to_string().contains("unknown setting `cache.defaults.version`"), "{error}");
}

#[test]
fn bad_values_of_a_policy_say_where_and_what_to_write() {
    for (written, message) in [
        ("jitter: 1.1", "`1.1` is out of range; write a share from 0 to 1, such as 0.1 or 10%"),
        ("jitter: 101%", "`101%` is out of range; write a share from 0 to 1, such as 0.1 or 10%"),
        ("jitter: -0.1", "`-0.1` is out of range; write a share from 0 to 1, such as 0.1 or 10%"),
        ("jitter: 10", "`10` is out of range; write a share from 0 to 1, such as 0.1 or 10%"),
        ("jitter: off", "cannot read `off` as a share; write for example 0.1 or 10%"),
        ("jitter: .nan", "cannot read `.nan` as a share; write for example 0.1 or 10%"),
        (
            "refresh_ahead: 1",
            "`1` is out of range; write a share above 0 and below 1, such as 0.8 or 80%, or off",
        ),
        (
            "refresh_ahead: 100%",
            "`100%` is out of range; write a share above 0 and below 1, such as 0.8 or 80%, or off",
        ),
        (
            "refresh_ahead: -10%",
            "`-10%` is out of range; write a share above 0 and below 1, such as 0.8 or 80%, or off",
        ),
        ("refresh_ahead: late", "cannot read `late` as a share; write for example 0.1 or 10%"),
        ("refresh_ahead: 80s", "cannot read `80s` as a share; write for example 0.1 or 10%"),
        ("ttl: 30", "`30` has no unit; add one, such as 30d (ms, s, m, h, d or w)"),
        (
            "stale_if_error: long",
            "cannot read `long` as a duration; write for example 30d, 12h or 90s",
        ),
        ("negative_ttl: -1h", "`-1h` is negative; write for example 30d, 12h or 90s"),
        ("hard_timeout: 5", "`5` has no unit; add one, such as 5d (ms, s, m, h, d or w)"),
        (
            "soft_timeout: none",
            "cannot read `none` as a duration; write for example 30d, 12h or 90s",
        ),
        ("retroactive_ttl: yes", "cannot read `yes` as a switch; write true or false"),
        (
            "stale_on: [500]",
            "`500` is no class of failures; write network, timeout, rate_limited, server_error, \
             client_error, other, all or none",
        ),
        (
            "stale_on: 'all, other'",
            "`all, other` has other classes beside all or none; write one or the other",
        ),
        ("stale_on: {network: true}", "a list is expected, such as [network, timeout]"),
    ] {
        let (setting, value) = written.split_once(": ").expect("a setting");
        for (yaml, path) in [
            (format!("cache:\n  defaults:\n    {written}\n"), "defaults"),
            (format!("cache:\n  sources:\n    a: {{{written}}}\n"), "sources.a"),
        ] {
            let error = load(&yaml).expect_err(&yaml);
            let line = yaml.lines().nth(2).expect("three lines");
            // The place is that of the value, without its quote or bracket if it is in a list.
            let at = line.find(value).expect("the value") + 1 + usize::from(value == "[500]");
            assert_eq!(
                error.to_string(),
                format!("larder.yaml:3:{at}: `cache.{path}.{setting}`: {message}"),
            );
        }
    }
    let error = CacheConfig::loader().env([("LARDER_CACHE__SOURCES__A__JITTER", "2")]).load();
    assert_eq!(
        error.expect_err("too much").to_string(),
        "environment variable LARDER_CACHE__SOURCES__A__JITTER: `cache.sources.a.jitter`: \
         `2` is out of range; write a share from 0 to 1, such as 0.1 or 10%"
    );
}

#[test]
fn misspelled_settings_of_a_policy_name_the_nearest() {
    for (section, given, meant) in [
        ("defaults", "stale_if_eror", "stale_if_error"),
        ("defaults", "refreshahead", "refresh_ahead"),
        ("sources.a", "stale_while_revalidating", "stale_while_revalidate"),
        ("sources.a", "softtimeout", "soft_timeout"),
        ("sources.a", "timout", "timeout"),
        ("sources.a", "vesion", "version"),
    ] {
        let (first, last) = section.split_once('.').unwrap_or((section, ""));
        let inner = format!("{{{given}: 1}}");
        let inner = if last.is_empty() { inner } else { format!("{{{last}: {inner}}}") };
        let error = load(&format!("cache: {{{first}: {inner}}}")).expect_err(given).to_string();
        let text = format!("unknown setting `cache.{section}.{given}`; did you mean `{meant}`?");
        assert!(error.contains(&text), "{error}");
    }
}

#[test]
fn a_policy_that_was_changed_in_code_can_be_checked() {
    for (change, message) in [
        (
            (|config| config.defaults.jitter = f64::NAN) as fn(&mut CacheConfig),
            "`cache.defaults.jitter`: the value is out of range; write a share from 0 to 1, \
             such as 0.1 or 10%",
        ),
        (
            |config| config.defaults.refresh_ahead = Some(0.0),
            "`cache.defaults.refresh_ahead`: the value is out of range; write a share above 0 and \
             below 1, such as 0.8 or 80%, or off",
        ),
        (
            |config| {
                let mut source = SourceConfig::default();
                source.refresh_ahead = Some(Some(1.0));
                config.sources.insert("a".into(), source);
            },
            "`cache.sources.a.refresh_ahead`: the value is out of range; write a share above 0 \
             and below 1, such as 0.8 or 80%, or off",
        ),
    ] {
        let mut config = CacheConfig::default();
        change(&mut config);
        assert_eq!(config.validate().expect_err(message).to_string(), message);
    }
}

#[test]
fn what_is_printed_of_a_source_names_its_policy_and_no_secret() {
    let config = good(&["sources: {a: {jitter: 10%, stale_on: none, query: {key: hush}}}"]);
    let text = format!("{:?}", config.sources["a"]);
    assert!(text.contains("jitter: Some(0.1)") && !text.contains("hush"), "{text}");
}
