//! What the chain is built with; what becomes of it there is tested with whole chains.

use larder::{CacheBuilder, Policy};

use super::*;

/// The builder as it prints itself.
fn built(config: &CacheConfig) -> String {
    format!("{:?}", CacheBuilder::from_config(config).expect("a chain"))
}

#[test]
fn the_chain_is_built_with_the_policies_of_its_sources() {
    let config = good(&[
        "defaults: {jitter: 10%, stale_if_error: 1h}",
        "ttl_policies: {named: 3d}",
        "sources: {own: {url: 'https://a.b/', refresh_ahead: 0.5, version: v2}, silent: {}}",
    ]);
    let text = built(&config);
    assert_ne!(config.defaults.policy(), Policy::default());
    let default = format!("default: {:?}", config.defaults.policy());
    assert!(text.contains(&default), "{default}\n{text}");
    for source in ["named", "own", "silent"] {
        let policy = format!("{source:?}: {:?}", config.policy_for(source));
        assert!(text.contains(&policy), "{policy}\n{text}");
    }
}

#[test]
fn the_chain_is_built_with_the_options_of_its_tiers() {
    let config = good(&[
        "memory: {required: true, max_ttl: 5m}",
        "sqlite: {read_only: true, max_ttl: 1d}",
        "read_timeout: 1s",
        "breaker: {failures: 2}",
    ]);
    let text = built(&config);
    for kind in [TierKind::Memory, TierKind::Sqlite] {
        let options = format!("{:?}", config.tier_options(kind));
        assert_eq!(text.matches(&options).count(), 1, "{options}\n{text}");
    }
}

#[test]
fn the_chain_is_built_offline_if_asked_for() {
    for (lines, offline) in
        [(&[][..], false), (&["offline: false"], false), (&["offline: true"], true)]
    {
        let config = good(lines);
        assert_eq!(config.offline, offline);
        let text = built(&config);
        assert!(text.contains(&format!("offline: {offline}")), "{lines:?}: {text}");
    }
    let env = CacheConfig::loader().env([("LARDER_CACHE__OFFLINE", "true")]).load().expect("valid");
    assert!(env.config.offline);
}
