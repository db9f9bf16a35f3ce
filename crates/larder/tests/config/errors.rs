//! Errors: their places and their words.

use super::*;

#[test]
fn unknown_settings_name_the_nearest() {
    bad(
        "cache:\n\n  memory:\n\n    # why\n    max_szie: 1\n",
        "larder.yaml:6:5: unknown setting `cache.memory.max_szie`; did you mean `size_mb`? \
         (valid: enable, size_mb, policy, compress, required, read_only, max_ttl)",
    );
    bad(
        "cache:\n  memory:\n    size_bm: 1\n",
        "larder.yaml:3:5: unknown setting `cache.memory.size_bm`; did you mean `size_mb`? \
         (valid: enable, size_mb, policy, compress, required, read_only, max_ttl)",
    );
    bad(
        "cach:\n  memory: {}\n",
        "larder.yaml:1:1: unknown setting `cach`; did you mean `cache`? (valid: cache)",
    );
    bad(
        "cache: {memry: }",
        "larder.yaml:1:9: unknown setting `cache.memry`; did you mean `memory`? (valid: chain, \
         memory, sqlite, redis, read_timeout, write_timeout, lease, ledger, max_value_size, \
         breaker, compression, prefetch, monitoring, defaults, ttl_policies, graceful_mode, \
         offline, sources, jobs, notify, changes_log)",
    );
    let error = load("cache: {sources: {s: {uri: 'http://x'}}}").expect_err("uri");
    assert_eq!(error.setting(), Some("cache.sources.s.uri"));
    assert!(error.to_string().contains("did you mean `url`?"), "{error}");
}

#[test]
fn bad_values_say_where_and_what_to_write() {
    bad(
        "cache:\n  defaults:\n    ttl: 30 dayz\n",
        "larder.yaml:3:10: `cache.defaults.ttl`: cannot read `30 dayz` as a duration; \
         write for example 30d, 12h or 90s",
    );
    bad(
        &cache(&["defaults: {ttl: 30}"]),
        "larder.yaml:2:19: `cache.defaults.ttl`: `30` has no unit; add one, such as 30d \
         (ms, s, m, h, d or w)",
    );
    bad(
        &cache(&["memory: {enable: yes}"]),
        "larder.yaml:2:20: `cache.memory.enable`: cannot read `yes` as a switch; \
         write true or false",
    );
    bad(
        &cache(&["memory: {size_mb: lots}"]),
        "larder.yaml:2:21: `cache.memory.size_mb`: cannot read `lots` as a whole number; \
         write for example 5",
    );
    bad(
        &cache(&["chain: [memory, memry]"]),
        "larder.yaml:2:19: `cache.chain`: `memry` is not a tier; write memory, sqlite or redis",
    );
    bad(
        &cache(&["ttl_policies: {a: -3}"]),
        "larder.yaml:2:21: `cache.ttl_policies.a`: `-3` is negative; \
         write for example 30d, 12h or 90s",
    );
    bad(
        &cache(&["sources: {a: {max_body: -5}}"]),
        "larder.yaml:2:27: `cache.sources.a.max_body`: `-5` is negative; \
         write for example 64MiB, 512KB or 1048576",
    );
}

#[test]
fn numbers_out_of_range_name_the_range() {
    for (line, setting, range) in [
        ("memory: {size_mb: 0}", "memory.size_mb", "1 to 1048576"),
        ("memory: {size_mb: -1}", "memory.size_mb", "1 to 1048576"),
        ("memory: {size_mb: 1048577}", "memory.size_mb", "1 to 1048576"),
        ("redis: {port: 0}", "redis.port", "1 to 65535"),
        ("redis: {port: 70000}", "redis.port", "1 to 65535"),
        ("redis: {db: -1}", "redis.db", "0 to 65535"),
        ("sqlite: {readers: 0}", "sqlite.readers", "1 to 16"),
        ("sqlite: {readers: 17}", "sqlite.readers", "1 to 16"),
        ("prefetch: {max_parallel_requests: 0}", "prefetch.max_parallel_requests", "1 to 10000"),
        ("prefetch: {nearby_radius_miles: -1}", "prefetch.nearby_radius_miles", "0 to 12500"),
        ("monitoring: {alert_on_low_hit_rate: 1.1}", "monitoring.alert_on_low_hit_rate", "0 to 1"),
        ("compression: {level: 300}", "compression.level", "0 to 19"),
        ("compression: {level: 10}", "compression.level", "0 to 9"),
        ("compression: {algorithm: zlib, level: 10}", "compression.level", "0 to 9"),
        ("compression: {algorithm: zstd, level: 0}", "compression.level", "1 to 19"),
        (
            "sources: {a: {compression: {algorithm: zlib, level: 10}}}",
            "sources.a.compression.level",
            "0 to 9",
        ),
        (
            "sources: {a: {compression: {threshold_kb: -1}}}",
            "sources.a.compression.threshold_kb",
            "0 to 1048576",
        ),
    ] {
        let error = load(&cache(&[line])).expect_err(line);
        assert_eq!(error.setting(), Some(format!("cache.{setting}").as_str()), "{line}");
        assert_eq!((error.line(), error.file()), (Some(2), Some("larder.yaml")), "{line}");
        let text = error.to_string();
        assert!(text.ends_with(&format!("write a number from {range}")), "{text}");
    }
    for line in [
        "memory: {size_mb: 1}",
        "redis: {port: 65535}",
        "sqlite: {readers: 16}",
        "monitoring: {alert_on_low_hit_rate: 0}",
        "monitoring: {alert_on_low_hit_rate: 1}",
        "compression: {level: 9}",
        "compression: {algorithm: zstd, level: 19}",
        "compression: {algorithm: none, level: 19}",
    ] {
        good(&[line]);
    }
    assert!(load(&cache(&["monitoring: {alert_on_low_hit_rate: .nan}"])).is_err());
}

#[test]
fn contradictions_are_refused() {
    bad(
        &cache(&["chain: [memory, memory]"]),
        "larder.yaml:2:10: `cache.chain`: the chain names memory twice; keep one of them",
    );
    bad(
        &cache(&["chain: [memory, redis]"]),
        "larder.yaml:2:10: `cache.chain`: the chain names redis, which is disabled; \
         write `enable: true` under `cache.redis` or take redis out of the chain",
    );
    assert!(load(&cache(&["chain: []"])).is_err());
    bad(
        &cache(&["memory: {enable: true, enabled: true}"]),
        "larder.yaml:2:35: `enable` and `enabled` are two names of one switch, \
         `cache.memory.enable`; keep one of them",
    );
    let env = [("LARDER_CACHE__REDIS__ENABLE", "true"), ("LARDER_CACHE__REDIS__ENABLED", "true")];
    let error = CacheConfig::loader().env(env).load().expect_err("both names");
    assert!(error.to_string().contains("two names of one switch"), "{error}");
    let both =
        CacheConfig::loader().set("cache.redis.enable", "true").set("cache.redis.enabled", "true");
    assert!(both.load().is_err());
}

#[test]
fn sources_are_checked() {
    for (line, part) in [
        ("'a:b': {}", "name of a source has no `:`"),
        ("'a b': {}", "no space"),
        ("'': {}", "not empty"),
        ("\"a\\tb\": {}", "no control character"),
        ("a: {url: ftp://host/}", "must start with http:// or https://"),
        ("a: {url: 'https:///x'}", "no host"),
        ("a: {url: 'https://host/{cbsa'}", "is not closed"),
        ("a: {url: 'https://host/cbsa}'}", "has no `{`"),
        ("a: {url: 'https://host/{}'}", "no proper name"),
        ("a: {url: 'https://host/{a b}'}", "no spaces"),
        ("a: {url: 'https://host/{a{b}}'}", "no proper name"),
        ("a: {timeout: 0s}", "`0s` lets no request finish"),
        ("a: {max_body: 0}", "`0` lets no answer in"),
        ("a: {rate_limit: 0/s}", "lets nothing through"),
        ("a: {rate_limit: fast}", "cannot read `fast` as a rate"),
        ("a: {rate_limit: 500/day}", "is a quota; write it as `quota`"),
        ("a: {rate_limit: 5000000/s}", "more than a call in a microsecond"),
        ("a: {burst: 0}", "1 to 10000"),
        ("a: {concurrency: 0}", "1 to 10000"),
        ("a: {quota: 0/day}", "lets nothing through"),
        ("a: {quota: 5/367d}", "at most 366 days"),
        ("a: {quota_reserve: 100%}", "below 1"),
        ("a: {retry: {attempts: 0}}", "1 to 100"),
        ("a: {retry: {base: 2s, max: 1s}}", "shorter than `base`"),
        ("a: {retry: {tries: 2}}", "attempts, base, max, budget"),
        ("a: {headers: {'X Y': z}}", "not the name of a header"),
        ("a: {headers: {X: \"z\\r\\nY: w\"}}", "one line"),
        ("a: 30d", "this is a section"),
    ] {
        let error = load(&cache(&["sources:", &format!("  {line}")])).expect_err(line);
        assert_eq!(error.line(), Some(3), "{error}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
    good(&["sources: {a: {url: 'HTTPS://host/{cbsa}?y={_y2}', headers: {X-Api-Key: k}}}"]);
}

#[test]
fn shapes_are_checked() {
    for (yaml, part) in [
        ("cache: 5", "`cache`: this is a section"),
        ("- cache", "must begin with `cache:`"),
        (
            "cache: {memory: true}",
            "this is a section; write its settings below it (valid: enable, size_mb, policy, \
             compress, required, read_only, max_ttl)",
        ),
        ("cache: {memory: {size_mb: [1]}}", "one value is expected"),
        ("cache: {memory: {size_mb: {a: 1}}}", "one value is expected"),
        ("cache: {chain: {a: 1}}", "a list is expected"),
        ("cache: {chain: [[memory]]}", "a list of plain values"),
        ("cache: {chain: [~]}", "a list of plain values"),
        ("cache: {ttl_policies: 30d}", "write `name: value` pairs"),
        ("cache: {ttl_policies: {a: }}", "`cache.ttl_policies.a`: a value is missing"),
    ] {
        let error = load(yaml).expect_err(yaml).to_string();
        assert!(error.contains(part), "{yaml}: {error}");
    }
}

#[test]
fn yaml_that_is_broken_says_where() {
    let error = load("cache:\n  memory:\n\tsize_mb: 1\n").expect_err("a tab");
    assert_eq!((error.line(), error.column()), (Some(3), Some(2)), "{error}");
    assert!(error.to_string().starts_with("larder.yaml:3:2: not valid YAML: "), "{error}");
    assert!(error.to_string().contains("no tabs"), "{error}");
    bad(
        "cache:\n  redis: {}\n  redis: {}\n",
        "larder.yaml:3:3: `redis` is given twice in one mapping; keep one of them",
    );
    assert!(load("cache: {}\n---\ncache: {}\n").is_err());
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.yaml");
    let error = CacheConfig::loader().file(&missing).load().expect_err("missing");
    let text = format!("{}: no such file; check the path", missing.display());
    assert!(error.to_string().starts_with(&text), "{error}");
    assert_eq!((error.line(), error.file()), (None, missing.to_str()));

    let error = CacheConfig::loader().file(dir.path()).load().expect_err("a directory");
    assert!(error.to_string().contains("a directory"), "{error}");

    let path = dir.path().join("big.yaml");
    fs::write(&path, format!("#{}", "x".repeat(1 << 20))).expect("written");
    let error = CacheConfig::loader().file(&path).load().expect_err("big");
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");

    fs::write(&path, b"cache: \xff").expect("written");
    let error = CacheConfig::loader().file(&path).load().expect_err("not text");
    assert!(error.to_string().contains("not UTF-8"), "{error}");
}

#[track_caller]
fn bad_env(name: &str, value: &str, message: &str) {
    let error = CacheConfig::loader().env([(name, value)]).load().expect_err(name);
    assert_eq!(error.to_string(), format!("environment variable {name}: {message}"));
    assert_eq!((error.variable(), error.file(), error.line()), (Some(name), None, None));
}

#[test]
fn variables_are_named() {
    bad_env(
        "LARDER_CACHE__MEMORY__SIZE_BM",
        "1",
        "unknown setting `cache.memory.size_bm`; did you mean `LARDER_CACHE__MEMORY__SIZE_MB`?",
    );
    bad_env(
        "LARDER_CACHE__MEMRY__MAX_SZIE",
        "1",
        "unknown setting `cache.memry.max_szie`; did you mean `LARDER_CACHE__MEMORY__SIZE_MB`?",
    );
    bad_env(
        "LARDER_CACHE__CHAIN",
        "memory,memry",
        "`cache.chain`: `memry` is not a tier; write memory, sqlite or redis",
    );
    bad_env(
        "LARDER_CACHE_MEMORY__SIZE_MB",
        "1",
        "unknown setting `cache_memory.size_mb`; did you mean `LARDER_CACHE__MEMORY__SIZE_MB`?",
    );
    bad_env(
        "LARDER_CACHE__SOURCES__CENSUS__TIMOUT",
        "1s",
        "unknown setting `cache.sources.census.timout`; \
         did you mean `LARDER_CACHE__SOURCES__CENSUS__TIMEOUT`?",
    );
    bad_env(
        "LARDER_X__Y",
        "1",
        "unknown setting `x.y`; settings are named like `LARDER_CACHE__MEMORY__SIZE_MB`",
    );
    bad_env(
        "LARDER_CACHE__MEMORY",
        "1",
        "`cache.memory`: this is a section; set a setting in it, such as \
         LARDER_CACHE__MEMORY__ENABLE, LARDER_CACHE__MEMORY__SIZE_MB, \
         LARDER_CACHE__MEMORY__POLICY",
    );
    bad_env(
        "LARDER_CACHE__MEMORY__SIZE_MB",
        "1 GB",
        "`cache.memory.size_mb`: cannot read `1 GB` as a whole number; write for example 5",
    );
    for name in [
        "LARDER_CACHE__",
        "LARDER___",
        "LARDER_CACHE__MEMORY__SIZE_MB__X",
        "LARDER_CACHE__TTL_POLICIES__",
    ] {
        let error = CacheConfig::loader().env([(name, "1")]).load().expect_err(name);
        assert_eq!(error.variable(), Some(name), "{error}");
    }
    let twice = [("LARDER_CACHE__REDIS__DB", "1"), ("larder_cache__redis__db", "2")];
    let error = CacheConfig::loader().env(twice).load().expect_err("one setting twice");
    assert!(error.to_string().contains("`cache.redis.db` is given twice"), "{error}");
}

#[test]
fn code_is_checked_too() {
    let fails = |path: &str, value: &str| {
        let error = CacheConfig::loader().set(path, value).load().expect_err(path);
        (error.to_string(), error.setting().map(str::to_owned))
    };
    assert_eq!(
        fails("cache.memory.size", "1").0,
        "unknown setting `cache.memory.size`; did you mean `cache.memory.size_mb`?"
    );
    assert_eq!(
        fails("cache.redis.port", "x"),
        (
            "`cache.redis.port`: cannot read `x` as a whole number; write for example 5".into(),
            Some("cache.redis.port".into())
        )
    );
    assert!(fails("", "x").0.contains("unknown setting"));
    assert!(fails("cache", "x").0.contains("this is a section"));
}

#[test]
fn the_strongest_layer_is_the_one_blamed() {
    let loader = CacheConfig::loader().yaml("cache: {redis: {port: nonsense}}", "f.yaml");
    let error = loader.clone().load().expect_err("the file's");
    assert_eq!(error.file(), Some("f.yaml"));
    let error = loader.clone().set("cache.redis.port", "0").load().expect_err("code's");
    assert_eq!(error.file(), None);
    assert!(loader.set("cache.redis.port", "5").load().is_ok(), "what is replaced is not read");
}

#[test]
fn a_changed_configuration_can_be_checked() {
    let mut config = CacheConfig::default();
    config.memory.size_mb = 0;
    let error = config.validate().expect_err("no size");
    assert_eq!(
        error.to_string(),
        "`cache.memory.size_mb`: the value is out of range; write a number from 1 to 1048576"
    );
}

#[test]
fn hostile_text_is_escaped() {
    let error = load("cache: {\"mem\\e[2Jory\": 1}").expect_err("escape").to_string();
    assert!(!error.contains('\u{1b}'), "{error}");
    let error =
        load("cache: {defaults: {ttl: \"\\e[2J\\u202e\"}}").expect_err("escape").to_string();
    assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error}");
    let long = "x".repeat(100_000);
    let error = load(&cache(&[&format!("defaults: {{ttl: {long}}}")])).expect_err("long");
    assert!(error.to_string().len() < 300, "{}", error.to_string().len());
}
