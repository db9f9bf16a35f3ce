//! Configuration: found, shown, and refused with one message that says what to write.

use crate::harness::Place;

#[test]
fn a_bad_configuration_ends_with_code_3_and_one_message_that_says_where_and_what_to_write() {
    let cases = [
        ("cache:\n  memory: {size_bm: 4}\n", "larder.yaml:2:12", "did you mean `size_mb`?"),
        ("cache:\n  defaults: {ttl: 30 dayz}\n", "larder.yaml:2:19", "30d"),
        ("cache:\n  memory:\n    size_mb: -4\n", "larder.yaml:3:14", "cache.memory.size_mb"),
        (
            "cache:\n  redis: {enable: true, password: \"${NO_SUCH}\"}\n",
            "larder.yaml:2:",
            "${NO_SUCH:-",
        ),
        ("cache:\n  memory: {size_mb: 4\n", "larder.yaml:", "YAML"),
        ("cache:\n  chain: [memory, tape]\n", "larder.yaml:2:", "sqlite"),
        ("cache:\n  redis: {enable: true}\n", "larder.yaml:2", "Redis"),
        ("cache:\n  sqlite: {path: ~/x.db}\n", "larder.yaml:2:18", "${HOME}"),
        ("cache:\n  sources:\n    a: {url: \"ftp://h/{cbsa}\"}\n", "larder.yaml:3:", "http"),
    ];
    for (text, place_in_file, help) in cases {
        let place = Place::new();
        place.write("larder.yaml", text);
        let commands: [&[&str]; 4] = [
            &["config", "check"],
            &["get", "a", "-m", "boulder-co"],
            &["warm", "-m", "boulder-co", "-s", "a"],
            &["stats"],
        ];
        for command in &commands {
            let run = place.larder(command).expect(3);
            let said = run.stderr();
            assert!(said.starts_with("error: "), "{said}");
            assert_eq!(said.matches("error").count(), 1, "one message: {said}");
            assert!(said.contains(place_in_file) && said.contains(help), "{text}: {said}");
            assert_eq!(run.stdout(), "");
        }
        assert!(!place.path(".cache").exists(), "nothing was created");
    }
}

#[test]
fn errors_are_json_when_json_is_asked_for() {
    let place = Place::new();
    place.write("larder.yaml", "cache: {memory: {size_bm: 4}}\n");
    let run = place.larder(&["config", "check", "--format", "json"]).expect(3);
    let error: serde_json::Value = serde_json::from_str(&run.stderr()).unwrap();
    assert_eq!(
        (&error["schema"], &error["code"]),
        (&"larder.error/1".into(), &"configuration".into())
    );
}

#[test]
fn show_tells_every_value_and_where_it_came_from_and_no_secret() {
    let place = Place::new();
    place.write(
        "other.yaml",
        "cache:\n  memory: {size_mb: 7}\n  redis: {password: \"${PASS}\"}\n  sources:\n    a:\n      \
         url: https://user:hunter2@api.example/{cbsa}?key=hunter2\n      \
         headers: {X-Key: \"hunter2\"}\n      query: {token: \"${PASS}\"}\n",
    );
    for format in ["table", "json"] {
        let mut show = place.command(&["config", "show", "--config", "other.yaml", "-F", format]);
        let run = show
            .env("PASS", "hunter2")
            .env("LARDER_CACHE__SQLITE__READERS", "3")
            .output()
            .map(crate::harness::Run)
            .unwrap()
            .expect(0);
        assert!(!run.said().contains("hunter2"), "{}", run.said());
        if format == "table" {
            let line = |setting: &str| {
                let text = run.stdout();
                let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                words.clone().find(|words| words[0] == setting).unwrap().join(" ")
            };
            assert_eq!(line("cache.memory.size_mb"), "cache.memory.size_mb 7 other.yaml:2");
            assert_eq!(line("cache.chain"), "cache.chain memory, sqlite default");
            assert!(line("cache.sqlite.readers").ends_with("LARDER_CACHE__SQLITE__READERS"));
            assert!(line("cache.redis.password").contains("***"), "{}", run.stdout());
        } else {
            let all = run.json();
            let all = all["settings"].as_array().unwrap();
            let one = all.iter().find(|one| one["setting"] == "cache.memory.size_mb").unwrap();
            assert_eq!((&one["value"], &one["from"]), (&"7".into(), &"other.yaml:2".into()));
        }
    }
}

#[test]
fn a_configuration_is_found_in_the_order_that_help_tells() {
    let place = Place::new();
    let size = |extra: &[(&str, &str)]| {
        let mut show = place.command(&["config", "show", "-F", "json"]);
        let run = crate::harness::Run(show.envs(extra.iter().copied()).output().unwrap()).expect(0);
        let all = run.json();
        let all = all["settings"].as_array().unwrap();
        let one = all.iter().find(|one| one["setting"] == "cache.memory.size_mb").unwrap();
        one["value"].as_str().unwrap().parse::<u32>().unwrap()
    };
    let text = |size: u32| format!("cache: {{memory: {{size_mb: {size}}}}}\n");
    assert_eq!(size(&[]), 256);
    let files = [
        ".config/larder/larder.yaml",
        "config/cache_config.yaml",
        "config/larder.yaml",
        "larder.yaml",
    ];
    for (n, file) in (1..).zip(files) {
        place.write(file, &text(n));
        assert_eq!(size(&[]), n, "{file}");
    }
    place.write("named.yaml", &text(9));
    assert_eq!(size(&[("LARDER_CONFIG", "named.yaml")]), 9);
    assert_eq!(size(&[("LARDER_CONFIG", "")]), 4, "empty is as good as unset");
    assert_eq!(size(&[("LARDER_CACHE__MEMORY__SIZE_MB", "10")]), 10);
    let missing = place.larder(&["config", "show", "--config", "nowhere.yaml"]).expect(3);
    assert!(missing.stderr().contains("nowhere.yaml"), "{}", missing.stderr());
}

#[test]
fn the_existing_section_and_its_settings_without_effect_are_accepted_and_told() {
    let place = Place::new();
    let text = include_str!("../../../../config/cache_config.yaml");
    place.write("config/cache_config.yaml", text);
    let check = place.larder(&["config", "check"]).expect(0);
    assert!(check.stdout().contains("ok (chain: memory -> sqlite -> origin"), "{}", check.said());
    assert!(check.stderr().contains("alert_on_low_hit_rate"), "{}", check.stderr());
}

#[test]
fn offline_is_a_flag_of_every_command_that_goes_before_file_and_environment() {
    let place = Place::new();
    place.write("larder.yaml", "cache: {offline: false}\n");
    let offline = |args: &[&str]| {
        let mut show = place.command(args);
        let run = show.env("LARDER_CACHE__OFFLINE", "false").output().unwrap();
        let text = crate::harness::Run(run).expect(0).stdout();
        let line = text.lines().find(|line| line.starts_with("cache.offline ")).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(offline(&["config", "show"]), "cache.offline false LARDER_CACHE__OFFLINE");
    for args in [&["--offline", "config", "show"], &["config", "show", "--offline"]] {
        assert_eq!(offline(args), "cache.offline true command line");
    }
    let show = place.larder(&["config", "show", "--offline", "-F", "json"]).expect(0).json();
    let all = show["settings"].as_array().unwrap();
    let one = all.iter().find(|one| one["setting"] == "cache.offline").unwrap();
    assert_eq!((&one["value"], &one["from"]), (&"true".into(), &"command line".into()));
    let demo = place.larder(&["demo", "--offline"]).expect(2);
    assert!(demo.stderr().contains("leave `--offline` out"), "{}", demo.said());
    assert!(!place.path("larder-demo").exists(), "nothing was created");
}

#[test]
fn what_does_not_go_together_is_told_by_the_check_and_by_nothing_else() {
    let place = Place::new();
    place.write(
        "larder.yaml",
        "cache:\n  sqlite: {path: cache.db}\n  defaults:\n    soft_timeout: 2s\n  sources:\n    \
         a: {allow_private: true, url: \"http://127.0.0.1:1/{cbsa}\"}\n    b: {allow_private: true, url: \"http://127.0.0.1:1/{cbsa}\"}\n",
    );
    let advice = "larder.yaml:4: `cache.defaults.soft_timeout`: has no effect without \
                  `stale_if_error`, which says what may be served instead";
    let check = place.larder(&["config", "check"]).expect(0);
    assert_eq!(check.stderr(), format!("warning: {advice}\n"));
    assert!(
        check.stdout().contains("larder.yaml: ok (chain: memory -> sqlite"),
        "{}",
        check.said()
    );
    let check = place.larder(&["config", "check", "-F", "json"]).expect(0);
    assert_eq!(check.json()["warnings"], serde_json::json!([advice]));
    assert_eq!(check.stderr(), "");
    for command in [&["get", "a", "-m", "boulder-co"][..], &["stats"], &["config", "show"]] {
        let run = place.larder(command);
        assert!(!run.stderr().contains("soft_timeout"), "{command:?}: {}", run.said());
    }

    let contradiction = "cache:\n  sqlite: {required: true, read_only: true}\n";
    place.write("larder.yaml", contradiction);
    let check = place.larder(&["config", "check"]).expect(3);
    assert!(
        check.stderr().contains("larder.yaml:2:22: `cache.sqlite.required`"),
        "{}",
        check.said()
    );
}

#[test]
fn show_tells_policies_and_options_and_where_they_came_from() {
    let place = Place::new();
    place.write(
        "larder.yaml",
        "cache:\n  defaults:\n    jitter: 10%\n    stale_on: [network, timeout]\n  sources:\n    \
         a: {refresh_ahead: 80%, soft_timeout: off}\n",
    );
    let mut show = place.command(&["config", "show"]);
    let run = show.env("LARDER_CACHE__BREAKER__ERROR_SHARE", "25%").output().unwrap();
    let text = crate::harness::Run(run).expect(0).stdout();
    let line = |setting: &str| {
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words.clone().find(|words| words[0] == setting).unwrap()[1..].join(" ")
    };
    assert_eq!(line("cache.defaults.jitter"), "0.1 larder.yaml:3");
    assert_eq!(line("cache.defaults.stale_on"), "network, timeout larder.yaml:4");
    assert_eq!(line("cache.defaults.hard_timeout"), "5m default");
    assert_eq!(line("cache.defaults.refresh_ahead"), "off default");
    assert_eq!(line("cache.sources.a.refresh_ahead"), "0.8 larder.yaml:6");
    assert_eq!(line("cache.sources.a.soft_timeout"), "off larder.yaml:6");
    assert_eq!(line("cache.sources.a.throttle"), "– default");
    assert_eq!(line("cache.memory.max_ttl"), "off default");
    assert_eq!(line("cache.breaker.error_share"), "0.25 LARDER_CACHE__BREAKER__ERROR_SHARE");
    assert_eq!(line("cache.read_timeout"), "2s default");
}
