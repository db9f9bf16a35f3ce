//! Layers: what is given where, which one wins, and where each value came from.

use super::*;

#[test]
fn nothing_given_is_the_defaults() {
    for yaml in ["", "# nothing\n", "cache:\n", "cache: {}\n", "cache:\n  memory:\n  redis: ~\n"] {
        let loaded = load(yaml).expect(yaml);
        assert_eq!(loaded.config, CacheConfig::default(), "{yaml:?}");
        assert!(loaded.settings.iter().all(|setting| setting.from == Provenance::Default));
    }
    let loaded = CacheConfig::loader().load().expect("no layers");
    assert_eq!(loaded.config, CacheConfig::default());
}

#[test]
fn the_existing_section_loads_as_it_stands() {
    let loaded = CacheConfig::loader()
        .file(shipped("cache_config.yaml"))
        .env(no_env())
        .load()
        .expect("existing users have it");
    let config = &loaded.config;
    assert_eq!(config.memory.capacity_bytes(), 256 * 1024 * 1024, "size_mb is MiB");
    assert_eq!(config.sqlite.path, PathBuf::from(".cache/aker_platform.db"));
    assert!(!config.redis.enable);
    assert_eq!(config.redis.password, None, "its variable is unset and not needed");
    assert_eq!(config.redis.ttl_default, Ttl::days(7));
    assert_eq!(config.compression.level, Some(6));
    assert_eq!(config.compression.threshold_bytes(), 10 * 1024);
    assert_eq!(config.monitoring.alert_on_high_latency_ms, Some(20.0));
    assert_eq!(config.ttl_for("census_acs"), Ttl::days(365));
    assert_eq!(config.ttl_for("epa_aqs"), Ttl::After(Duration::from_secs(HOUR)));
    assert_eq!(config.ttl_for("unheard_of"), Ttl::days(30));
    assert_eq!(config.tiers(), [TierKind::Memory, TierKind::Sqlite]);
    let unused: Vec<&str> = loaded.warnings.iter().map(|it| it.setting.as_str()).collect();
    let expected =
        ["cache.monitoring.alert_on_low_hit_rate", "cache.monitoring.alert_on_high_latency_ms"];
    assert_eq!(unused, expected);
}

#[test]
fn the_starter_file_is_the_defaults() {
    let loaded = CacheConfig::loader().file(shipped("larder.yaml")).load().expect("shipped");
    assert_eq!(loaded.config, CacheConfig::default());
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_starter_file_names_every_setting_and_its_examples_load() {
    let text = fs::read_to_string(shipped("larder.yaml")).expect("shipped");
    let mut yaml = String::new();
    for line in text.lines() {
        let bare = line.trim_start();
        let indent = &line[..line.len() - bare.len()];
        let example = bare.strip_prefix("# ").filter(|it| {
            let key = it.trim_start().split(':').next().unwrap_or_default();
            !indent.is_empty()
                && it.contains(": ") | it.ends_with(':')
                && !key.contains(' ')
                && !["true", "false"].contains(&key)
        });
        writeln!(yaml, "{indent}{}", example.unwrap_or(bare)).expect("a string");
    }
    let loaded = CacheConfig::loader()
        .yaml(yaml.replace("enable: false", "enable: true"), "examples")
        .env([("REDIS_PASSWORD", "p"), ("CENSUS_API_KEY", "k"), ("HOOK_SECRET", "s")])
        .load()
        .unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let silent: Vec<_> = loaded
        .settings
        .iter()
        .filter(|setting| setting.from == Provenance::Default)
        .map(|setting| &setting.path)
        .collect();
    assert!(silent.is_empty(), "not in the file: {silent:?}");
}

#[test]
fn stronger_layers_win() {
    let loader = CacheConfig::loader();
    let size = |loader: larder::config::Loader| {
        let result = loader.load().expect("valid");
        let (value, from) = from(&result, "cache.memory.size_mb");
        (result.config.memory.size_mb, value.to_owned(), from.clone())
    };
    assert_eq!(size(loader.clone()), (256, "256".into(), Provenance::Default));

    let loader = loader.yaml("cache:\n  memory:\n    size_mb: 1\n", "larder.yaml");
    assert_eq!(size(loader.clone()), (1, "1".into(), file(3)));

    let loader = loader.env([("LARDER_CACHE__MEMORY__SIZE_MB", "2")]);
    let (value, _, from) = size(loader.clone());
    assert_eq!((value, from.to_string().as_str()), (2, "LARDER_CACHE__MEMORY__SIZE_MB"));

    let loader = loader.set("cache.memory.size_mb", "3");
    assert_eq!(size(loader.clone()), (3, "3".into(), Provenance::Code));
    assert_eq!(size(loader.set("cache.memory.size_mb", "4")).0, 4, "the last call counts");
}

#[test]
fn layers_merge_setting_by_setting() {
    let loaded = CacheConfig::loader()
        .yaml("cache: {redis: {host: a, port: 1}, ttl_policies: {x: 1d, y: 2d}}", "one.yaml")
        .yaml("cache: {redis: {port: 2}, ttl_policies: {y: 3d}}", "two.yaml")
        .env([("LARDER_CACHE__REDIS__DB", "5"), ("larder_cache__ttl_policies__X", "9d")])
        .set("cache.redis.enable", "true")
        .load()
        .expect("valid");
    let redis = &loaded.config.redis;
    assert_eq!((redis.host.as_str(), redis.port, redis.db, redis.enable), ("a", 2, 5, true));
    assert_eq!(loaded.config.ttl_for("x"), Ttl::days(9));
    assert_eq!(loaded.config.ttl_for("y"), Ttl::days(3));
    assert_eq!(from(&loaded, "cache.redis.port").1.to_string(), "two.yaml:1");
    assert_eq!(from(&loaded, "cache.redis.host").1.to_string(), "one.yaml:1");
}

#[test]
#[expect(clippy::too_many_lines, reason = "it lists them all")]
fn settings_are_every_leaf_in_order() {
    let loaded = load("cache: {sources: {s: {params: {b: 1, a: 2}}}}").expect("valid");
    let paths: Vec<&str> = loaded.settings.iter().map(|it| it.path.as_str()).collect();
    let expected = [
        "cache.chain",
        "cache.memory.enable",
        "cache.memory.size_mb",
        "cache.memory.policy",
        "cache.memory.compress",
        "cache.memory.required",
        "cache.memory.read_only",
        "cache.memory.max_ttl",
        "cache.sqlite.enable",
        "cache.sqlite.path",
        "cache.sqlite.busy_timeout",
        "cache.sqlite.readers",
        "cache.sqlite.max_size",
        "cache.sqlite.poll_interval",
        "cache.sqlite.required",
        "cache.sqlite.read_only",
        "cache.sqlite.max_ttl",
        "cache.redis.enable",
        "cache.redis.host",
        "cache.redis.port",
        "cache.redis.db",
        "cache.redis.password",
        "cache.redis.ttl_default",
        "cache.redis.required",
        "cache.redis.read_only",
        "cache.redis.max_ttl",
        "cache.read_timeout",
        "cache.write_timeout",
        "cache.lease",
        "cache.ledger",
        "cache.max_value_size",
        "cache.breaker.failures",
        "cache.breaker.error_share",
        "cache.breaker.window",
        "cache.breaker.cooldown",
        "cache.breaker.max_cooldown",
        "cache.compression.enable",
        "cache.compression.algorithm",
        "cache.compression.threshold_kb",
        "cache.compression.level",
        "cache.compression.dictionaries",
        "cache.prefetch.enabled",
        "cache.prefetch.nearby_radius_miles",
        "cache.prefetch.max_parallel_requests",
        "cache.monitoring.log_cache_hits",
        "cache.monitoring.alert_on_low_hit_rate",
        "cache.monitoring.alert_on_high_latency_ms",
        "cache.defaults.ttl",
        "cache.defaults.jitter",
        "cache.defaults.stale_while_revalidate",
        "cache.defaults.stale_if_error",
        "cache.defaults.revalidate_for",
        "cache.defaults.refresh_ahead",
        "cache.defaults.negative_ttl",
        "cache.defaults.soft_timeout",
        "cache.defaults.hard_timeout",
        "cache.defaults.throttle",
        "cache.defaults.retroactive_ttl",
        "cache.defaults.stale_on",
        "cache.defaults.cancel_abandoned",
        "cache.graceful_mode",
        "cache.offline",
        "cache.sources.s.url",
        "cache.sources.s.params.a",
        "cache.sources.s.params.b",
        "cache.sources.s.json",
        "cache.sources.s.auth.header",
        "cache.sources.s.auth.query",
        "cache.sources.s.auth.field",
        "cache.sources.s.auth.value",
        "cache.sources.s.response.statuses",
        "cache.sources.s.response.content_types",
        "cache.sources.s.response.must_exist",
        "cache.sources.s.response.must_not_exist",
        "cache.sources.s.response.empty_is_absent",
        "cache.sources.s.response.drop",
        "cache.sources.s.respect_cache_control",
        "cache.sources.s.redirect_hosts",
        "cache.sources.s.allow_private",
        "cache.sources.s.timeout",
        "cache.sources.s.max_body",
        "cache.sources.s.rate_limit",
        "cache.sources.s.burst",
        "cache.sources.s.concurrency",
        "cache.sources.s.quota",
        "cache.sources.s.quota_reserve",
        "cache.sources.s.retry.attempts",
        "cache.sources.s.retry.base",
        "cache.sources.s.retry.max",
        "cache.sources.s.retry.budget",
        "cache.sources.s.version",
        "cache.sources.s.version_from.header",
        "cache.sources.s.version_from.pointer",
        "cache.sources.s.probe.url",
        "cache.sources.s.probe.header",
        "cache.sources.s.probe.pointer",
        "cache.sources.s.probe.check_every",
        "cache.sources.s.range.from",
        "cache.sources.s.range.to",
        "cache.sources.s.range.step",
        "cache.sources.s.range.chunk",
        "cache.sources.s.range.chunks_per_call",
        "cache.sources.s.range.format",
        "cache.sources.s.range.open_ttl",
        "cache.sources.s.range.rows",
        "cache.sources.s.range.date",
        "cache.sources.s.range.key",
        "cache.sources.s.batch.param",
        "cache.sources.s.batch.max",
        "cache.sources.s.batch.separator",
        "cache.sources.s.batch.rows",
        "cache.sources.s.batch.member",
        "cache.sources.s.cost_per_call",
        "cache.sources.s.critical",
        "cache.sources.s.changes.pointers",
        "cache.sources.s.changes.ignore",
        "cache.sources.s.compression.enable",
        "cache.sources.s.compression.algorithm",
        "cache.sources.s.compression.threshold_kb",
        "cache.sources.s.compression.level",
        "cache.sources.s.compression.dictionaries",
        "cache.sources.s.ttl",
        "cache.sources.s.jitter",
        "cache.sources.s.stale_while_revalidate",
        "cache.sources.s.stale_if_error",
        "cache.sources.s.revalidate_for",
        "cache.sources.s.refresh_ahead",
        "cache.sources.s.negative_ttl",
        "cache.sources.s.soft_timeout",
        "cache.sources.s.hard_timeout",
        "cache.sources.s.throttle",
        "cache.sources.s.retroactive_ttl",
        "cache.sources.s.stale_on",
        "cache.sources.s.cancel_abandoned",
        "cache.notify.webhook",
        "cache.notify.secret",
        "cache.notify.command",
        "cache.changes_log",
    ];
    assert_eq!(paths, expected);
    assert_eq!(from(&loaded, "cache.sqlite.busy_timeout").0, "5s");
    assert_eq!(from(&loaded, "cache.sources.s.max_body").0, "64MiB");
    assert_eq!(from(&loaded, "cache.prefetch.nearby_radius_miles").0, "50");
    assert_eq!(from(&loaded, "cache.redis.password").0, "null");
    assert_eq!(from(&loaded, "cache.defaults.refresh_ahead").0, "off");
    assert_eq!(
        from(&loaded, "cache.defaults.stale_on").0,
        "network, timeout, rate_limited, server_error"
    );
    assert_eq!(from(&loaded, "cache.sources.s.stale_on").0, "null", "as the defaults");
}

#[test]
fn files_are_read_from_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("larder.yaml");
    fs::write(&path, "\u{feff}cache:\r\n  memory:\r\n    size_mb: 7\r\n").expect("written");
    let loaded = CacheConfig::loader().file(&path).load().expect("valid");
    assert_eq!(loaded.config.memory.size_mb, 7);
}

#[test]
fn the_sources_for_public_apis_load() {
    let keys = ["CENSUS_API_KEY", "BLS_API_KEY", "AQS_EMAIL", "AQS_KEY", "BEA_API_KEY"];
    let loaded = CacheConfig::loader()
        .file(shipped("sources.example.yaml"))
        .env(keys.map(|key| (key, "hush")))
        .load()
        .expect("shipped");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.sources.len(), 7);
    let url = loaded.config.sources["fema_disasters"].url.as_deref().expect("it has one");
    assert!(url.contains("?$filter="), "{url}");
}
