//! Files that the tier cannot use: answers go on, and the file stays as it is.

use super::*;

/// Something where the file should be, that the tier must leave as it is.
struct Obstacle {
    name: &'static str,
    make: fn(&Path),
}

const OBSTACLES: [Obstacle; 4] = [
    Obstacle {
        name: "garbage",
        make: |path| fs::write(path, "Dear diary, ".repeat(1_000)).unwrap(),
    },
    Obstacle { name: "a short text", make: |path| fs::write(path, "no").unwrap() },
    Obstacle {
        name: "a directory",
        make: |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("keep"), "me").unwrap();
        },
    },
    Obstacle {
        name: "another program's database",
        make: |path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection
                .execute_batch(
                    "CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT);
                     INSERT INTO entries (key) VALUES ('precious');",
                )
                .unwrap();
        },
    },
];

/// Every file below `dir`, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for found in fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_file_that_is_not_ours_costs_the_tier_only_and_is_left_as_it_is() {
    for Obstacle { name, make } in OBSTACLES {
        let bench = Bench::new();
        make(&bench.path());
        let dir = bench.path().parent().unwrap().to_owned();
        let before = files(&dir);
        let cache = bench.cache();

        let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
        assert_eq!(
            (hit.value().as_ref(), hit.served_by()),
            (&b"v"[..], ServedBy::Origin),
            "{name}"
        );
        let hit = within(cache.get_or_load(&key("a:1"), never())).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("memory"), "{name}");
        assert!(within(cache.get(&key("a:2"))).await.unwrap().is_none(), "{name}");

        let outcome = within(cache.set(&key("a:3"), "w", SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"], "{name}");
        let [("memory", PutReport::Done(PutOutcome::Stored)), ("sqlite", PutReport::Failed(why))] =
            &outcome.tiers[..]
        else {
            panic!("{name}: {:?}", outcome.tiers)
        };
        assert_eq!(why.kind(), ErrorKind::Unusable, "{name}");

        let removed = within(cache.invalidate(&key("a:3"))).await.unwrap();
        assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", None)], "{name}");
        assert!(stats_of(&cache, "sqlite").errors > 0, "{name}");
        assert_eq!(stats_of(&cache, "memory").errors, 0, "{name}");
        close(cache).await;
        assert!(files(&dir) == before, "{name}: the directory is no longer what it was");
    }
}

#[tokio::test]
async fn in_strict_mode_a_tiers_error_is_the_callers() {
    for Obstacle { name, make } in OBSTACLES {
        let bench = Bench::new();
        make(&bench.path());
        let dir = bench.path().parent().unwrap().to_owned();
        let before = files(&dir);
        let cache = bench.builder().strict(true).build().unwrap();
        let a = key("a:1");
        let told = [
            within(cache.get(&a)).await.map(drop),
            within(cache.get_or_load(&a, never())).await.map(drop),
            within(cache.set(&a, "v", SetOptions::default())).await.map(drop),
            within(cache.invalidate(&a)).await.map(drop),
            within(cache.purge(&Filter::all())).await.map(drop),
            within(cache.list_keys(10)).await.map(drop),
            within(cache.clear_expired()).await.map(drop),
        ];
        for (n, told) in told.into_iter().enumerate() {
            let Err(Error::Tier(error)) = told else { panic!("{name}, call {n}: {told:?}") };
            assert_eq!(error.tier(), "sqlite", "{name}, call {n}");
        }
        assert!(files(&dir) == before, "{name}: the directory is no longer what it was");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_without_permission_costs_the_tier_only() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    fs::write(bench.path(), "").unwrap();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(bench.path()).is_ok() {
        // Root may read everything.
        return;
    }
    let cache = bench.cache();
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.value(), "v");
    let outcome = within(cache.set(&key("a:3"), "w", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"]);
    assert!(stats_of(&cache, "sqlite").errors > 0);
}

#[tokio::test]
async fn a_tier_whose_obstacle_is_gone_is_used_again_after_the_cool_down() {
    for Obstacle { name, make } in OBSTACLES {
        let bench = Bench::new();
        let path = bench.path();
        make(&path);
        let cache = bench.cache();
        for n in 0..10 {
            within(cache.get_or_load(&key(&format!("a:{n}")), bring("v"))).await.unwrap();
        }
        until(|| stats_of(&cache, "sqlite").skipped > 0).await;
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }

        let before = stats_of(&cache, "sqlite");
        within(cache.get(&key("b:0"))).await.unwrap();
        let after = stats_of(&cache, "sqlite");
        // What the loads before store behind their callers is skipped, too.
        assert_eq!(after.errors, before.errors, "{name}");
        assert!(after.skipped > before.skipped, "{name}");

        forward(&bench, 5);
        within(cache.set(&key("b:1"), "w", SetOptions::default())).await.unwrap();
        close(cache).await;
        let restarted = bench.cache();
        let hit = within(restarted.get(&key("b:1"))).await.unwrap().unwrap();
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"w"[..], ServedBy::Tier("sqlite")));
        assert_eq!(stats_of(&restarted, "sqlite").errors, 0, "{name}");
    }
}

#[tokio::test]
async fn a_directory_that_is_missing_at_start_and_cannot_be_made_is_used_once_it_can() {
    let bench = Bench::new();
    let blocked = bench.path();
    // A file where a directory should be made.
    fs::write(&blocked, "in the way").unwrap();
    let clock = Arc::<tier_testkit::ManualClock>::clone(&bench.clock);
    let options = larder::tiers::SqliteOptions::new(blocked.join("deep/cache.db")).clock(clock);
    let tier = larder::tiers::SqliteTier::new(options).unwrap();
    let cache = bench.bare().tier(tier).build().unwrap();
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Origin);
    assert_eq!(fs::read(&blocked).unwrap(), b"in the way");

    fs::remove_file(&blocked).unwrap();
    // Two failures only: the breaker is closed, and nothing need be waited for.
    let outcome = within(cache.set(&key("a:2"), "w", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["sqlite"]);
    let hit = within(cache.get_or_load(&key("a:2"), never())).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
}
