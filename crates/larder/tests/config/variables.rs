//! `${VAR}` in a file.

use super::*;

fn with(yaml: &str, vars: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    CacheConfig::loader().yaml(yaml, "larder.yaml").env(vars.iter().copied()).load()
}

#[test]
fn they_fill_scalars_of_every_type() {
    let yaml = cache(&[
        "memory: {size_mb: \"${MB}\", enable: \"${ON:-true}\"}",
        "redis: {enable: true, host: \"${H}.local\", password: \"$${not}\"}",
        "defaults: {ttl: \"${TTL:-2d}\"}",
        "chain: [\"${FIRST}\"]",
    ]);
    let vars = [("MB", "77"), ("H", "cache"), ("TTL", ""), ("FIRST", "memory")];
    let loaded = with(&yaml, &vars).expect("valid");
    assert_eq!(loaded.config.memory.size_mb, 77);
    assert_eq!(loaded.config.redis.host, "cache.local");
    assert_eq!(loaded.config.redis.password, Some("${not}".into()));
    assert_eq!(loaded.config.defaults.ttl, Ttl::days(2), "empty counts as unset");
    assert_eq!(loaded.config.tiers(), [TierKind::Memory]);
    for path in ["cache.memory.size_mb", "cache.redis.host", "cache.chain"] {
        assert_eq!(from(&loaded, path).0, "***", "{path}");
    }
    assert_eq!(from(&loaded, "cache.defaults.ttl").0, "2d", "no variable's value is in it");
}

#[test]
fn they_cannot_add_structure() {
    let yaml = cache(&["redis: {enable: true, password: \"${P}\"}", "defaults: {ttl: 1d}"]);
    let huge = "x".repeat(1 << 20);
    for text in
        ["x\nadmin: true", "*a", "!!python/object x", "${OTHER}", "{a: 1}", "~", huge.as_str()]
    {
        let loaded = with(&yaml, &[("P", text), ("OTHER", "no")]).expect(text);
        assert_eq!(loaded.config.redis.password.as_ref().map(Secret::expose), Some(text));
    }
}

#[test]
fn a_missing_one_is_an_error_only_where_it_is_needed() {
    let needed = cache(&["redis: {enable: true, password: \"${P}\"}"]);
    let error = with(&needed, &[]).expect_err("needed");
    assert_eq!(
        error.to_string(),
        "larder.yaml:2:35: `cache.redis.password`: the environment variable P is not set; \
         export P, or write ${P:-default}"
    );
    assert!(with(&needed, &[("P", "")]).is_ok(), "empty is a value");

    let told = cache(&["redis: {enable: true, password: \"${P:?ask the admin}\"}"]);
    let error = with(&told, &[("P", "")]).expect_err("empty").to_string();
    assert!(error.contains("P is not set (ask the admin)"), "{error}");

    let off = cache(&["redis: {password: \"${P}\"}"]);
    assert!(with(&off, &[]).is_ok(), "redis is disabled by default");
    let on = [("LARDER_CACHE__REDIS__ENABLED", "true")];
    assert!(with(&off, &on).is_err(), "a stronger layer enables it");
    let off = [("LARDER_CACHE__REDIS__ENABLED", "false")];
    assert!(with(&needed, &off).is_ok(), "a stronger layer disables it");
    let given = [("LARDER_CACHE__REDIS__PASSWORD", "p")];
    assert!(with(&needed, &given).is_ok(), "a stronger layer gives it");

    let switch = cache(&["redis: {enable: \"${ON}\"}"]);
    assert!(with(&switch, &[]).is_err(), "the switch itself is needed");
    let memory = cache(&["memory: {size_mb: \"${MB}\"}"]);
    assert!(with(&memory, &[]).is_err(), "memory is enabled by default");
    assert!(with(&cache(&["defaults: {ttl: \"${T}\"}"]), &[]).is_err());
}

#[test]
fn malformed_references_say_where() {
    let error = load(&cache(&["redis: {password: \"${P\"}"])).expect_err("not closed");
    assert_eq!((error.line(), error.column()), (Some(2), Some(21)), "{error}");
    assert!(error.to_string().contains("not closed"), "{error}");
}
