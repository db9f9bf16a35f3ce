//! No secret is ever shown.

use super::*;

const CANARY: &str = "c4n4ry";

fn clear(what: &str, text: &str) {
    assert!(!text.contains(CANARY), "{what} shows the secret: {text}");
}

/// The path of every setting there is.
fn paths() -> Vec<String> {
    let maps = "{a: {params: {p: 1}, query: {q: 1}, headers: {h: 1}}}";
    let loaded = load(&cache(&[&format!("sources: {maps}"), "ttl_policies: {a: 1}"]));
    loaded.expect("valid").settings.into_iter().map(|setting| setting.path).collect()
}

fn nested(path: &str, value: &str) -> String {
    let mut yaml = String::new();
    for (depth, part) in path.split('.').enumerate() {
        write!(yaml, "\n{}{part}:", "  ".repeat(depth)).expect("a string");
    }
    yaml + " " + value + "\n"
}

fn shown(loaded: &Result<Loaded, ConfigError>) -> String {
    match loaded {
        Ok(loaded) => format!("{:?} {:?}", loaded.settings, loaded.warnings),
        Err(error) => format!("{error} {error:?} {error:#?}"),
    }
}

#[test]
fn what_came_from_a_variable_is_never_shown() {
    let paths = paths();
    assert!(paths.len() > 30, "{paths:?}");
    for path in &paths {
        for value in ["\"${V}\"", "\"x${V}y\"", "[\"${V}\"]", "{k: \"${V}\"}"] {
            for secret in [CANARY.to_owned(), format!("htp://u:{CANARY}@h"), format!("-1 {CANARY}")]
            {
                let loaded = CacheConfig::loader()
                    .yaml(nested(path, value), "f")
                    .yaml("cache: {redis: {enable: true}}", "g")
                    .env([("V", secret)])
                    .load();
                clear(path, &shown(&loaded));
            }
        }
    }
}

#[test]
fn secret_settings_are_never_shown_from_any_layer() {
    for path in [
        "cache.redis.password",
        "cache.sources.a.query.q",
        "cache.sources.a.headers.h",
        "cache.sources.a.params.api_key",
    ] {
        let variable = format!("LARDER_{}", path.replace('.', "__").to_uppercase());
        for loader in [
            CacheConfig::loader().yaml(nested(path, CANARY), "f"),
            CacheConfig::loader().yaml(nested(path, &format!("[{CANARY}]")), "f"),
            CacheConfig::loader().yaml(nested(path, &format!("{{k: {CANARY}}}")), "f"),
            CacheConfig::loader().yaml(nested(path, &format!("\"${{{CANARY}\"")), "f"),
            CacheConfig::loader().yaml(nested(path, &format!("\"{CANARY}\\nx\"")), "f"),
            CacheConfig::loader().env([(variable, CANARY)]),
            CacheConfig::loader().set(path, CANARY),
        ] {
            clear(path, &format!("{loader:?}").replace("f\"", ""));
            let loaded = loader.load();
            clear(path, &shown(&loaded));
            if let Ok(loaded) = loaded {
                clear(path, &format!("{loaded:?}"));
                clear(path, &serde_json::to_string(&loaded.config).expect("plain data"));
                assert_eq!(from(&loaded, path).0, "***");
            }
        }
    }
}

#[test]
fn urls_are_shown_without_their_secrets() {
    for url in [
        format!("https://me:{CANARY}@host/{{x}}?a=1"),
        format!("https://host/?api_key={CANARY}&a=1"),
        format!("ftp://me:{CANARY}@host/"),
        format!("me:{CANARY}@host"),
        format!("https://host/{{{CANARY} "),
    ] {
        let yaml = format!("cache: {{sources: {{a: {{url: '{url}'}}}}}}");
        let loaded = load(&yaml);
        clear(&url, &shown(&loaded));
        if let Ok(loaded) = loaded {
            clear(&url, &format!("{loaded:?}"));
            assert!(loaded.config.sources["a"].url.as_ref().is_some_and(|it| it.contains(CANARY)));
            assert!(from(&loaded, "cache.sources.a.url").0.starts_with("https://host/"));
        }
    }
    let host = format!("cache: {{redis: {{host: 'redis://u:{CANARY}@h'}}}}");
    clear("host", &shown(&load(&host)));
}

#[test]
fn broken_yaml_around_a_secret_does_not_show_it() {
    for yaml in [
        format!("cache:\n  redis:\n    password: \"{CANARY}\n"),
        format!("cache:\n  redis:\n    password: {CANARY}: x\n"),
        format!("cache:\n  redis:\n    password: [{CANARY}\n"),
        format!("cache:\n  redis:\n    password: *{CANARY}\n"),
        format!("cache:\n  redis:\n    password: !{CANARY} x\n"),
        format!("cache:\n  redis:\n    password: !!int {CANARY}\n"),
        format!("cache:\n  redis:\n    password: \"\\q{CANARY}\"\n"),
        format!("cache:\n  redis:\n    password: '{CANARY}' x\n"),
        format!("cache:\n  redis:\n    password: @{CANARY}\n"),
        format!("cache: {{redis: {{password:{CANARY}}}}}"),
        format!("cache: {{redis: {{password:{CANARY}, password:{CANARY}}}}}"),
        format!("cache: {{sources: {{a: {{query: {{key:{CANARY}}}}}}}}}"),
        format!("cache: {{sources: {{a: {{headers: {{X-Key={CANARY}}}}}}}}}"),
        format!("cache: password={CANARY}"),
        format!("cache:\n  redis:\n    password: !!binary {CANARY}\n"),
        format!("cache:\n  redis:\n    password: {CANARY}\n   port: 1\n"),
    ] {
        let loaded = load(&yaml);
        assert!(loaded.is_err(), "{yaml}");
        clear(&yaml, &shown(&loaded));
    }
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_loader_panic(text in "(?s).{0,200}", words in "(cache|memory|[:{}\\[\\]&*!|>'\"#,$%-]|\n| |a|1){0,60}") {
            prop_assert!(load(&text).is_ok() || load(&text).is_err());
            prop_assert!(load(&words).is_ok() || load(&words).is_err());
        }

        #[test]
        fn a_password_of_any_characters_arrives_whole_and_unseen(secret in "(?s).{12,40}") {
            let loaded = CacheConfig::loader()
                .yaml("cache: {redis: {enable: true, password: \"${P}\"}}", "f")
                .env([("P", secret.as_str())])
                .load()
                .expect("any text is a password");
            prop_assert_eq!(loaded.config.redis.password.as_ref().map(Secret::expose), Some(secret.as_str()));
            let printed = format!("{loaded:?}");
            prop_assert!(!printed.contains(&secret));
        }
    }
}
