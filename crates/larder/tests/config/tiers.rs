//! What holds for tiers: `required`, `read_only`, `max_ttl`, time limits and the breaker.

use larder::{BreakerOptions, TierOptions};

use super::*;

type Change = fn(&mut TierOptions);

/// Settings that each tier has, as they may be written and are shown, and what they do.
const OF_ONE: [(&str, &str, &str, Change); 6] = [
    ("required", "true", "true", |it| it.required = true),
    ("required", "false", "false", |it| it.required = false),
    ("read_only", "true", "true", |it| it.read_only = true),
    ("max_ttl", "1h30m", "1h 30m", |it| it.max_ttl = Some(Duration::from_mins(90))),
    ("max_ttl", "off", "off", |it| it.max_ttl = None),
    ("max_ttl", "0s", "off", |it| it.max_ttl = None),
];

/// Settings that hold for all tiers.
const OF_ALL: [(&str, &str, &str, Change); 8] = [
    ("read_timeout", "250ms", "250ms", |it| it.read_timeout = Duration::from_millis(250)),
    ("write_timeout", "1m", "1m", |it| it.write_timeout = Duration::from_mins(1)),
    ("breaker.failures", "3", "3", |it| it.breaker.failures = 3),
    ("breaker.error_share", "0.25", "0.25", |it| it.breaker.error_share = 0.25),
    ("breaker.error_share", "100%", "1", |it| it.breaker.error_share = 1.0),
    ("breaker.window", "30s", "30s", |it| it.breaker.window = Duration::from_secs(30)),
    ("breaker.cooldown", "1m", "1m", |it| it.breaker.cooldown = Duration::from_mins(1)),
    ("breaker.max_cooldown", "5s", "5s", |it| it.breaker.max_cooldown = Duration::from_secs(5)),
];

/// The setting from a file, from the environment and from code.
fn layers(path: &str, written: &str) -> [CacheConfig; 3] {
    let mut yaml = String::new();
    for (depth, part) in path.split('.').enumerate() {
        writeln!(yaml, "{}{part}:", "  ".repeat(depth)).expect("a string");
    }
    let yaml = format!("{} {written}\n", yaml.trim_end());
    let variable = format!("LARDER_{}", path.replace('.', "__").to_uppercase());
    let line = yaml.lines().count() as u64;
    let loaders = [
        (CacheConfig::loader().yaml(yaml, "larder.yaml"), file(line)),
        (
            CacheConfig::loader().env([(variable.as_str(), written)]),
            Provenance::Env { variable: variable.clone() },
        ),
        (CacheConfig::loader().set(path, written), Provenance::Code),
    ];
    loaders.map(|(loader, provenance)| {
        let loaded = loader.load().unwrap_or_else(|error| panic!("{path}: {written}: {error}"));
        assert_eq!(from(&loaded, path).1, &provenance, "{path}: {written}");
        loaded.config
    })
}

fn shown(path: &str, written: &str) -> String {
    let loaded = CacheConfig::loader().set(path, written).load().expect(path);
    from(&loaded, path).0.to_owned()
}

#[test]
fn every_option_of_a_tier_has_its_effect_from_every_layer_and_on_that_tier_alone() {
    for (setting, written, printed, change) in OF_ONE {
        let mut expected = TierOptions::default();
        change(&mut expected);
        for kind in TierKind::ALL {
            if (setting, written, kind) == ("read_only", "true", TierKind::Memory) {
                continue;
            }
            let path = format!("cache.{kind}.{setting}");
            for config in layers(&path, written) {
                assert_eq!(config.tier_options(kind), expected, "{path}: {written}");
                for other in TierKind::ALL.into_iter().filter(|other| *other != kind) {
                    assert_eq!(config.tier_options(other), TierOptions::default(), "{path}");
                }
            }
            assert_eq!(shown(&path, written), printed, "{path}: {written}");
        }
    }
}

#[test]
fn every_option_of_all_tiers_has_its_effect_on_each() {
    for (setting, written, printed, change) in OF_ALL {
        let mut expected = TierOptions::default();
        change(&mut expected);
        let path = format!("cache.{setting}");
        for config in layers(&path, written) {
            for kind in TierKind::ALL {
                assert_eq!(config.tier_options(kind), expected, "{path}: {written}");
            }
            config.validate().expect("what loads is valid");
        }
        assert_eq!(shown(&path, written), printed, "{path}: {written}");
    }
}

#[test]
fn nothing_written_is_the_default_options() {
    let config = good(&[]);
    for kind in TierKind::ALL {
        assert_eq!(config.tier_options(kind), TierOptions::default(), "{kind}");
    }
    assert_eq!(config.breaker.options(), BreakerOptions::default());
}

#[test]
fn bad_options_say_where_and_what_to_write() {
    for (line, message) in [
        (
            "memory: {required: 1}",
            "22: `cache.memory.required`: cannot read `1` as a switch; write true or false",
        ),
        (
            "redis: {max_ttl: 1}",
            "20: `cache.redis.max_ttl`: `1` has no unit; add one, such as 1d (ms, s, m, h, d or w)",
        ),
        (
            "memory: {read_only: true}",
            "23: `cache.memory.read_only`: memory that is only read stays empty; take this out, \
             or write `enable: false` to go without memory",
        ),
        (
            "sqlite: {read_only: true, required: true}",
            "39: `cache.sqlite.required`: a tier that is only read takes no value, so that every \
             `set` would fail; keep one of `required` and `read_only`",
        ),
        (
            "read_timeout: 0s",
            "17: `cache.read_timeout`: `0s` lets no tier answer; write for example 2s",
        ),
        (
            "write_timeout: 0ms",
            "18: `cache.write_timeout`: `0ms` lets no tier answer; write for example 10s",
        ),
        (
            "breaker: {failures: 0}",
            "23: `cache.breaker.failures`: `0` is out of range; write a number from 1 to 10000",
        ),
        (
            "breaker: {error_share: 0%}",
            "26: `cache.breaker.error_share`: `0%` is out of range; \
             write a share above 0 and up to 1, such as 0.5 or 50%",
        ),
        (
            "breaker: {error_share: 1.5}",
            "26: `cache.breaker.error_share`: `1.5` is out of range; \
             write a share above 0 and up to 1, such as 0.5 or 50%",
        ),
        (
            "breaker: {error_share: half}",
            "26: `cache.breaker.error_share`: cannot read `half` as a share; \
             write for example 0.1 or 10%",
        ),
        (
            "breaker: {window: 0s}",
            "21: `cache.breaker.window`: `0s` lets nothing be counted; write for example 10s",
        ),
        (
            "breaker: {cooldown: 0s}",
            "23: `cache.breaker.cooldown`: `0s` lets no tier be skipped; write for example 5s",
        ),
        (
            "breaker: {cooldown: 2m}",
            "23: `cache.breaker.cooldown`: a tier would be skipped for longer at first than at \
             most; write a `max_cooldown` that is not shorter than `cooldown`",
        ),
        (
            "breaker: {max_cooldown: 1s}",
            "27: `cache.breaker.max_cooldown`: a tier would be skipped for longer at first than \
             at most; write a `max_cooldown` that is not shorter than `cooldown`",
        ),
    ] {
        bad(&cache(&[line]), &format!("larder.yaml:2:{message}"));
    }
    let off = "sqlite: {enable: false, read_only: true, required: true}";
    assert!(load(&cache(&[off])).is_err(), "also while the tier is off");
    good(&["breaker: {cooldown: 2m, max_cooldown: 2m}", "sqlite: {read_only: true}"]);
}

#[test]
fn misspelled_options_name_the_nearest() {
    for (given, meant) in [
        ("memory.max_tll", "max_ttl"),
        ("memory.max_size", "size_mb"),
        ("sqlite.readonly", "read_only"),
        ("redis.require", "required"),
        ("breaker.failure", "failures"),
        ("breaker.cool_down", "cooldown"),
        ("breaker.max_cool_down", "max_cooldown"),
    ] {
        let (section, name) = given.split_once('.').expect("two parts");
        let error = load(&cache(&[&format!("{section}: {{{name}: 1}}")])).expect_err(given);
        let text = format!("unknown setting `cache.{given}`; did you mean `{meant}`?");
        assert!(error.to_string().contains(&text), "{error}");
    }
    let error = load(&cache(&["read_timout: 2s"])).expect_err("a letter is missing").to_string();
    assert!(error.contains("did you mean `read_timeout`?"), "{error}");
}
