//! Each setting and what it does.

use larder::config::JobConfig;

use super::*;

#[test]
fn every_setting_has_its_effect() {
    let loaded = CacheConfig::loader()
        .yaml(
            r#"
cache:
  chain: [redis, memory]
  memory: {enable: true, size_mb: 64, compress: true}
  sqlite: {enable: false, path: /tmp/x.db, busy_timeout: 250ms, readers: 4,
    max_size: 20MiB, poll_interval: 1s}
  redis: {enable: true, host: "::1", port: 6380, db: 3, password: 12345, ttl_default: never}
  compression: {enable: false, algorithm: zstd, threshold_kb: 0, level: 19, dictionaries: manual}
  prefetch: {enabled: false, nearby_radius_miles: 12.5, max_parallel_requests: 9}
  monitoring: {log_cache_hits: true, alert_on_low_hit_rate: 0.25, alert_on_high_latency_ms: 1.5}
  defaults: {ttl: 1h30m}
  ttl_policies: {a: 30, b: 0.5, c: never, d: 2h}
  graceful_mode: false
  offline: true
  ledger: calls.db
  max_value_size: 1MiB
  sources:
    census:
      url: https://api.census.gov/data/{year}?for={cbsa}
      params: {year: 2022, get: NAME}
      query: {key: 0012}
      headers: {User-Agent: larder}
      json: '{"id": "{cbsa}"}'
      form: {a: b}
      auth: {header: X-Key, query: key, field: id, value: hush}
      response:
        statuses: [200, 206]
        content_types: application/json, text/*
        must_exist: [/Results]
        must_not_exist: [/remark]
        must_equal: {/status: OK}
        empty_is_absent: /rows
        drop: [/Header, /n]
      status_ttl: {404: 10m}
      respect_cache_control: true
      redirect_hosts: [a.example, b.example]
      allow_private: true
      version_from: {header: X-Edition, pointer: /edition}
      probe: {url: 'https://h/p', header: X-Edition, pointer: /edition, check_every: 1h}
      range:
        from: start
        to: end
        step: Month
        chunk: 12
        chunks_per_call: 5
        format: '%Y'
        open_ttl: 1d
        rows: /rows
        date: [/year, /month]
        key: /id
      batch: {param: cbsa, max: 10, separator: ';', rows: /rows, member: id}
      cost_per_call: 0.5
      critical: true
      changes: {pointers: [/data], ignore: [/took, /at]}
      timeout: 1m
      max_body: 1GiB
      rate_limit: 500/m
      burst: 3
      concurrency: 2
      quota: 1000/h
      quota_reserve: 10%
      retry: {attempts: 5, base: 100ms, max: 3s, budget: 20s}
      ttl: 365d
      compression: {enable: true, algorithm: zlib, threshold_kb: 4, level: 9, dictionaries: off}
"#,
            "larder.yaml",
        )
        .load()
        .expect("valid");
    let mut expected = CacheConfig::default();
    expected.chain = Some(vec![TierKind::Redis, TierKind::Memory]);
    expected.memory.size_mb = 64;
    expected.memory.compress = true;
    expected.sqlite.enable = false;
    expected.sqlite.path = "/tmp/x.db".into();
    expected.sqlite.busy_timeout = Duration::from_millis(250);
    expected.sqlite.max_size = 20 << 20;
    expected.sqlite.poll_interval = Duration::from_secs(1);
    expected.sqlite.readers = 4;
    expected.redis.enable = true;
    expected.redis.host = "::1".into();
    expected.redis.port = 6380;
    expected.redis.db = 3;
    expected.redis.password = Some(Secret::new("12345"));
    expected.redis.ttl_default = Ttl::Never;
    expected.compression.enable = false;
    expected.compression.algorithm = Some(Algorithm::Zstd);
    expected.compression.threshold_kb = 0;
    expected.compression.level = Some(19);
    expected.compression.dictionaries = DictionaryUse::Manual;
    expected.prefetch.enabled = false;
    expected.prefetch.nearby_radius_miles = 12.5;
    expected.prefetch.max_parallel_requests = 9;
    expected.monitoring.log_cache_hits = true;
    expected.monitoring.alert_on_low_hit_rate = Some(0.25);
    expected.monitoring.alert_on_high_latency_ms = Some(1.5);
    expected.defaults.ttl = Ttl::After(Duration::from_mins(90));
    expected.ttl_policies = [
        ("a".into(), Ttl::days(30)),
        ("b".into(), Ttl::After(Duration::from_secs(12 * HOUR))),
        ("c".into(), Ttl::Never),
        ("d".into(), Ttl::After(Duration::from_secs(2 * HOUR))),
    ]
    .into();
    expected.graceful_mode = false;
    expected.offline = true;
    expected.ledger = Some("calls.db".into());
    expected.max_value_size = 1 << 20;
    let mut census = SourceConfig::default();
    census.url = Some("https://api.census.gov/data/{year}?for={cbsa}".into());
    census.params = [("get", "NAME"), ("year", "2022")].map(|(k, v)| (k.into(), v.into())).into();
    census.query = [("key".into(), Secret::new("0012"))].into();
    census.headers = [("User-Agent".into(), Secret::new("larder"))].into();
    census.json = Some(Secret::new(r#"{"id": "{cbsa}"}"#));
    census.form = [("a".into(), Secret::new("b"))].into();
    census.auth.header = Some("X-Key".into());
    census.auth.query = Some("key".into());
    census.auth.field = Some("id".into());
    census.auth.value = Some(Secret::new("hush"));
    census.response.statuses = vec![Status::new(200), Status::new(206)];
    census.response.content_types = vec!["application/json".into(), "text/*".into()];
    census.response.must_exist = vec!["/Results".into()];
    census.response.must_not_exist = vec!["/remark".into()];
    census.response.drop = vec!["/Header".into(), "/n".into()];
    census.redirect_hosts = vec!["a.example".into(), "b.example".into()];
    let month: larder::config::RangeStep = serde_json::from_str("\"month\"").unwrap();
    census.range.step = Some(month);
    (census.range.from, census.range.to) = ("start".into(), "end".into());
    (census.range.chunk, census.range.chunks_per_call) = (12, 5);
    census.range.format = Some("%Y".into());
    census.range.open_ttl = Some(Duration::from_hours(24));
    census.range.rows = "/rows".into();
    census.range.date = vec!["/year".into(), "/month".into()];
    census.range.key = vec!["/id".into()];
    census.response.must_equal = [("/status".into(), "OK".into())].into();
    census.response.empty_is_absent = Some("/rows".into());
    census.status_ttl = [(Status::new(404), Ttl::After(Duration::from_mins(10)))].into();
    census.respect_cache_control = true;
    census.allow_private = true;
    census.version_from.header = Some("X-Edition".into());
    census.version_from.pointer = Some("/edition".into());
    census.probe.url = Some("https://h/p".into());
    census.probe.header = Some("X-Edition".into());
    census.probe.pointer = Some("/edition".into());
    census.probe.check_every = Duration::from_hours(1);
    census.batch.param = Some("cbsa".into());
    census.batch.max = 10;
    census.batch.separator = ";".into();
    census.batch.rows = "/rows".into();
    census.batch.member = Some("id".into());
    census.cost_per_call = Some(0.5);
    census.critical = true;
    census.changes.pointers = vec!["/data".into()];
    census.changes.ignore = vec!["/took".into(), "/at".into()];
    census.timeout = Duration::from_mins(1);
    census.max_body = 1 << 30;
    census.rate_limit = Some(RateLimit::new(500, Duration::from_mins(1)));
    census.burst = 3;
    census.concurrency = Some(2);
    census.quota = Some(RateLimit::new(1_000, Duration::from_secs(HOUR)));
    census.quota_reserve = 0.1;
    census.retry.attempts = 5;
    census.retry.base = Duration::from_millis(100);
    census.retry.max = Duration::from_secs(3);
    census.retry.budget = Duration::from_secs(20);
    census.ttl = Some(Ttl::days(365));
    census.compression.enable = Some(true);
    census.compression.algorithm = Some(Algorithm::Zlib);
    census.compression.threshold_kb = Some(4);
    census.compression.level = Some(9);
    census.compression.dictionaries = Some(DictionaryUse::Off);
    expected.sources = [("census".into(), census)].into();
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.config.tiers(), [TierKind::Redis, TierKind::Memory]);
    loaded.config.validate().expect("what loads is valid");
}

#[test]
fn the_environment_reaches_every_kind_of_setting() {
    let config = CacheConfig::loader()
        .yaml("cache: {sources: {Census: {url: 'https://a.b/'}}, ttl_policies: {BLS: 1d}}", "f")
        .env([
            ("LARDER_CACHE__CHAIN", "sqlite, memory"),
            ("LARDER_CACHE__MEMORY__ENABLE", "True"),
            ("Larder_Cache__Memory__Size_Mb", "5"),
            ("LARDER_CACHE__SQLITE__BUSY_TIMEOUT", "1s"),
            ("LARDER_CACHE__REDIS__PASSWORD", "0012345"),
            ("LARDER_CACHE__MONITORING__ALERT_ON_LOW_HIT_RATE", "0.5"),
            ("LARDER_CACHE__TTL_POLICIES__BLS", "2"),
            ("LARDER_CACHE__SOURCES__CENSUS__RATE_LIMIT", "5/s"),
            ("LARDER_CACHE__SOURCES__BLS__THROTTLE", "1m"),
            ("LARDER_CACHE__TTL_POLICIES__CENSUS", "3d"),
            ("LARDER_CACHE__SOURCES__CENSUS__QUERY__KEY", "${NOT_A_REFERENCE}"),
            ("LARDER_CACHE__SOURCES__NEW__MAX_BODY", "1KB"),
            ("LARDER_CONFIG", "elsewhere.yaml"),
            ("LARDER_LOG", "debug"),
            ("OTHER__THING", "x"),
        ])
        .load()
        .expect("valid")
        .config;
    assert_eq!(config.tiers(), [TierKind::Sqlite, TierKind::Memory]);
    assert_eq!(config.memory.size_mb, 5);
    assert_eq!(config.sqlite.busy_timeout, Duration::from_secs(1));
    assert_eq!(config.redis.password, Some(Secret::new("0012345")), "the text, not a number");
    assert_eq!(config.monitoring.alert_on_low_hit_rate, Some(0.5));
    assert_eq!(config.ttl_for("BLS"), Ttl::days(2), "the file's spelling, and days");
    // A source is spelled in one way in both maps.
    assert_eq!(config.policy_for("BLS").throttle, Duration::from_mins(1));
    assert_eq!(config.ttl_for("Census"), Ttl::days(3));
    let census = &config.sources["Census"];
    assert_eq!(census.rate_limit, Some(RateLimit::new(5, Duration::from_secs(1))));
    assert_eq!(census.query["key"].expose(), "${NOT_A_REFERENCE}");
    assert_eq!(config.sources["new"].max_body, 1000);
}

#[test]
fn a_switch_has_two_names_in_every_section_and_layer() {
    for section in ["memory", "sqlite", "redis", "compression", "prefetch"] {
        for name in ["enable", "enabled"] {
            for value in [true, false] {
                let upper = format!("LARDER_CACHE__{section}__{name}").to_uppercase();
                let loaders = [
                    CacheConfig::loader()
                        .yaml(cache(&[&format!("{section}: {{{name}: {value}}}")]), "f"),
                    CacheConfig::loader().env([(upper, value.to_string())]),
                    CacheConfig::loader().set(format!("cache.{section}.{name}"), value.to_string()),
                ];
                for loader in loaders {
                    let config = loader.load().expect(section).config;
                    let read = match section {
                        "memory" => config.memory.enable,
                        "sqlite" => config.sqlite.enable,
                        "redis" => config.redis.enable,
                        "compression" => config.compression.enable,
                        _ => config.prefetch.enabled,
                    };
                    assert_eq!(read, value, "{section}.{name}");
                }
            }
        }
    }
    let config = CacheConfig::loader()
        .yaml("cache: {memory: {enabled: false}}", "f")
        .env([("LARDER_CACHE__MEMORY__ENABLE", "true")])
        .load();
    assert!(config.expect("one name in each layer").config.memory.enable);
}

#[test]
fn a_source_changes_what_it_says_of_compression() {
    let config = good(&[
        "compression: {algorithm: zstd, level: 19, threshold_kb: 1}",
        "sources: {other: {compression: {algorithm: zlib}}, same: {compression: {threshold_kb: 2}}, \
         off: {compression: {enable: false}}, silent: {}}",
    ]);
    let other = config.compression_for("other");
    assert_eq!(
        (other.algorithm, other.level),
        (Some(Algorithm::Zlib), None),
        "zstd's level is not"
    );
    assert_eq!(other.threshold_kb, 1);
    let same = config.compression_for("same");
    assert_eq!((same.algorithm, same.level), (Some(Algorithm::Zstd), Some(19)));
    assert_eq!(same.threshold_kb, 2);
    assert!(!config.compression_for("off").enable);
    for name in ["silent", "unknown"] {
        assert_eq!(config.compression_for(name), config.compression);
    }
}

#[test]
fn the_ttl_of_a_source_is_the_nearest_one() {
    let config = good(&[
        "defaults: {ttl: 1d}",
        "ttl_policies: {both: 2d, policy: 3d}",
        "sources: {both: {ttl: never}, own: {ttl: 4d}, silent: {}}",
    ]);
    assert_eq!(config.ttl_for("both"), Ttl::Never);
    assert_eq!(config.ttl_for("policy"), Ttl::days(3));
    assert_eq!(config.ttl_for("own"), Ttl::days(4));
    assert_eq!(config.ttl_for("silent"), Ttl::days(1));
    assert_eq!(config.ttl_for("unknown"), Ttl::days(1));
}

#[test]
fn the_chain_is_the_enabled_tiers_unless_given() {
    assert_eq!(good(&["redis: {enable: true}"]).tiers(), TierKind::ALL);
    assert_eq!(good(&["memory: {enable: false}"]).tiers(), [TierKind::Sqlite]);
    assert_eq!(good(&["chain: [sqlite]"]).tiers(), [TierKind::Sqlite]);
    assert_eq!(good(&["chain: sqlite,memory"]).tiers(), [TierKind::Sqlite, TierKind::Memory]);
    assert!(good(&["memory: {enable: false}", "sqlite: {enable: false}"]).tiers().is_empty());
}

#[test]
fn a_source_without_settings_is_a_source() {
    let config = good(&["sources:", "  bare:"]);
    assert_eq!(config.sources["bare"], SourceConfig::default());
}

#[test]
fn anchors_and_merges_may_be_used() {
    let config =
        good(&["sources:", "  a: &a {timeout: 5s, max_body: 1MiB}", "  b: {<<: *a, timeout: 6s}"]);
    assert_eq!(config.sources["b"].timeout, Duration::from_secs(6));
    assert_eq!(config.sources["b"].max_body, 1 << 20);
}

#[test]
fn jobs_are_a_list_of_named_items_or_by_name() {
    let parse = |yaml: &str| {
        let loaded = CacheConfig::loader().yaml(yaml, "larder.yaml").load();
        loaded.map(|loaded| loaded.config.jobs).map_err(|error| error.to_string())
    };
    let mut weekly = JobConfig::default();
    weekly.cron = Some("0 3 * * SUN".into());
    weekly.time_zone = Some("America/Denver".into());
    weekly.jitter = Duration::from_mins(10);
    weekly.markets = Some("markets.csv".into());
    weekly.market = vec!["boulder-co".into(), "Denver, CO".into()];
    weekly.all_metros = true;
    weekly.nearby_miles = Some(60.0);
    weekly.sources = vec!["a".into(), "b".into()];
    weekly.refresh = true;
    weekly.max_age = Some(Duration::from_hours(7 * 24));
    let settings = "cron: '0 3 * * SUN', time_zone: America/Denver, jitter: 10m, \
                    markets: markets.csv, market: [boulder-co, \"Denver, CO\"], all_metros: true, \
                    nearby_miles: 60, sources: 'a, b', refresh: true, max_age: 7d";
    let expected: std::collections::BTreeMap<_, _> = [("weekly".to_owned(), weekly)].into();
    for written in [
        format!("cache:\n  jobs:\n    - {{name: weekly, {settings}}}\n"),
        format!("cache:\n  jobs:\n    - {{{settings}, name: weekly}}\n"),
        format!("cache:\n  jobs:\n    weekly: {{{settings}}}\n"),
    ] {
        assert_eq!(parse(&written), Ok(expected.clone()), "{written}");
    }
    for (written, said) in [
        ("cache:\n  jobs:\n    - {cron: x}\n", "larder.yaml:3:7: `cache.jobs`"),
        ("cache:\n  jobs:\n    - weekly\n", "each item of this list needs a `name`"),
        ("cache:\n  jobs:\n    - {name: a}\n    - {name: a}\n", "larder.yaml:4"),
        ("cache:\n  jobs:\n    - {name: a, corn: x}\n", "did you mean `cron`"),
    ] {
        let error = parse(written).unwrap_err();
        assert!(error.contains(said), "{written}: {error}");
    }
}
