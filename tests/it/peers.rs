//! Several processes on one file: changes of one reach the memory of the others, and one loads a key
//! at a time.
//!
//! Two chains of one process are as much apart as those of two: they share nothing but the file.
//! Where a process is to be killed, it is a real one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use larder::{
    Cache, Error, Key, Loaded, Selector, ServedBy, SetOptions,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};

use crate::harness::{Bench, bring, close, failure, key, load_gated, never, tag, within};

const SQLITE: ServedBy = ServedBy::Tier("sqlite");

/// Waits until something holds that another chain brings about.
async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn set(cache: &Cache, key: &Key, value: &'static str, tags: &[&str]) {
    let options = tags.iter().fold(SetOptions::default(), |options, name| options.tag(tag(name)));
    within(cache.set(key, value, options)).await.unwrap();
}

/// Two chains on one file, the second with the value of `keys` in its memory.
async fn pair(bench: &Bench, keys: &[Key]) -> (Cache, Cache) {
    let (one, other) = (bench.cache(), bench.cache());
    for key in keys {
        set(&one, key, "old", &["market:boulder-co"]).await;
        assert_eq!(within(other.get(key)).await.unwrap().unwrap().value(), "old");
        assert!(other.peek(key).is_some(), "it is in memory");
    }
    bench.advance(1);
    (one, other)
}

#[tokio::test]
async fn an_invalidation_reaches_the_memory_of_others() {
    let selectors: [(&str, Selector); 4] = [
        ("key", Selector::from(&key("census:a"))),
        ("tag", Selector::Tag(tag("market:boulder-co"))),
        ("source", Selector::source("census")),
        ("all", Selector::All),
    ];
    for (name, selector) in selectors {
        let (bench, key) = (Bench::new(), key("census:a"));
        let (one, other) = pair(&bench, std::slice::from_ref(&key)).await;
        within(one.invalidate(selector)).await.unwrap();
        until(|| other.peek(&key).is_none()).await;
        assert!(within(other.get(&key)).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn an_expiry_reaches_the_memory_of_others() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = pair(&bench, std::slice::from_ref(&key)).await;
    within(one.expire(&key)).await.unwrap();
    until(|| other.peek(&key).is_none()).await;
    let hit = within(other.get_or_load(&key, bring("new"))).await.unwrap();
    assert_eq!(hit.value(), "new", "what is stale is loaded anew");
}

#[tokio::test]
async fn a_replacement_reaches_the_memory_of_others() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = pair(&bench, std::slice::from_ref(&key)).await;
    set(&one, &key, "new", &[]).await;
    until(|| other.peek(&key).is_none_or(|hit| hit.value() == "new")).await;
    assert_eq!(within(other.get(&key)).await.unwrap().unwrap().value(), "new");
}

#[tokio::test]
async fn a_version_that_one_process_puts_in_force_is_in_force_in_the_others() {
    let (bench, old, new) = (Bench::new(), key("census:a"), key("census:b"));
    let (one, other) = pair(&bench, std::slice::from_ref(&old)).await;
    within(one.set_source_version("census", "2022")).await.unwrap();
    until(|| other.source_version("census").as_deref() == Some("2022")).await;
    assert!(other.peek(&old).is_none(), "of no version: no longer fresh");
    bench.advance(1);
    // What the other loads without a word on its version is of this one, and fresh for both.
    let hit = within(other.get_or_load(&new, bring("new"))).await.unwrap();
    assert_eq!(hit.entry().version(), Some("2022"));
    close(other).await;
    assert_eq!(within(one.get(&new)).await.unwrap().unwrap().value(), "new");
}

#[tokio::test]
async fn a_set_that_comes_too_late_leaves_the_later_value_in_the_memory_of_all() {
    let (bench, ahead, key) = (Bench::new(), Bench::new(), key("census:a"));
    // A process whose clock is a second ahead, with its own memory, on the same file.
    ahead.advance(1_000);
    let clock = Arc::clone(&ahead.clock);
    let tier = SqliteTier::new(SqliteOptions::new(bench.path()).clock(Arc::clone(&clock) as _));
    let one = bench.cache();
    let other = Cache::builder().clock(clock).tier(ahead.memory()).tier(tier.unwrap());
    let other = other.build().unwrap();
    set(&one, &key, "first", &[]).await;
    set(&other, &key, "second", &[]).await;
    // Its stamp is later than all that is stored, whatever its clock shows.
    set(&one, &key, "third", &[]).await;
    until(|| other.peek(&key).is_none_or(|hit| hit.value() == "third")).await;
    for cache in [&one, &other] {
        assert_eq!(within(cache.get(&key)).await.unwrap().unwrap().value(), "third");
    }
}

#[tokio::test]
async fn when_the_file_is_replaced_memory_forgets_what_it_had_of_the_old_one() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = pair(&bench, std::slice::from_ref(&key)).await;
    close(one).await;
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{}{suffix}", bench.path().display());
        if std::path::Path::new(&name).exists() {
            std::fs::remove_file(name).unwrap();
        }
    }
    until(|| other.peek(&key).is_none()).await;
    assert!(within(other.get(&key)).await.unwrap().is_none());
    set(&other, &key, "new", &[]).await;
    close(other).await;
    let again = bench.cache();
    assert_eq!(within(again.get(&key)).await.unwrap().unwrap().value(), "new");
}

#[tokio::test]
async fn own_changes_leave_the_own_memory_as_it_is() {
    let (bench, own, signal) = (Bench::new(), key("census:own"), key("census:signal"));
    let (one, other) = pair(&bench, std::slice::from_ref(&signal)).await;
    set(&one, &own, "v", &[]).await;
    set(&other, &own, "v2", &[]).await;
    set(&other, &key("census:later"), "w", &[]).await;
    within(one.invalidate(&signal)).await.unwrap();
    until(|| other.peek(&signal).is_none()).await;
    // What `one` did has been told by now, and what `other` did itself has not.
    assert_eq!(other.peek(&own).unwrap().value(), "v2");
    assert_eq!(other.peek(&key("census:later")).unwrap().value(), "w");
}

#[tokio::test]
async fn a_load_that_another_process_invalidated_is_not_kept_in_memory() {
    let (bench, key, signal) = (Bench::new(), key("census:a"), key("bls:signal"));
    let (one, other) = pair(&bench, std::slice::from_ref(&signal)).await;
    let (gate, caller) = load_gated(&other, &key);
    let begun = gate.begun().await;
    bench.advance(1);
    within(one.invalidate(Selector::source("census"))).await.unwrap();
    within(one.invalidate(&signal)).await.unwrap();
    until(|| other.peek(&signal).is_none()).await;
    begun.bring("from before");
    assert_eq!(within(caller).await.unwrap().unwrap().value(), "from before", "who waited gets it");
    assert!(other.peek(&key).is_none());
    close(other).await;
    assert!(within(one.get(&key)).await.unwrap().is_none());
}

#[tokio::test]
async fn of_two_processes_that_ask_for_a_missing_key_one_loads_it() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = (bench.cache(), bench.cache());
    let (gate, caller) = load_gated(&one, &key);
    let begun = gate.begun().await;
    let waiting = tokio::spawn({
        let (other, key) = (other.clone(), key.clone());
        async move { other.get_or_load(&key, never()).await }
    });
    begun.bring("v");
    let hit = within(waiting).await.unwrap().unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], SQLITE));
    assert_eq!((one.stats().loads, other.stats().loads), (1, 0));
    assert_eq!(other.stats().reads(), 1, "waiting is no read");
    within(caller).await.unwrap().unwrap();
    assert!(other.peek(&key).is_some(), "it is in memory now");
}

#[tokio::test]
async fn when_the_load_of_another_process_fails_this_one_loads() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = (bench.cache(), bench.cache());
    let (gate, caller) = load_gated(&one, &key);
    let begun = gate.begun().await;
    let waiting = tokio::spawn({
        let (other, key) = (other.clone(), key.clone());
        async move { other.get_or_load(&key, bring("own")).await }
    });
    begun.end(Err(failure("down")));
    assert_eq!(within(waiting).await.unwrap().unwrap().value(), "own");
    within(caller).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_load_of_another_process_that_is_out_of_date_is_not_waited_for() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = (bench.cache(), bench.cache());
    let (gate, _caller) = load_gated(&one, &key);
    let _begun = gate.begun().await;
    bench.advance(1);
    within(other.invalidate(&key)).await.unwrap();
    let hit = within(other.get_or_load(&key, bring("new"))).await.unwrap();
    assert_eq!(hit.value(), "new");
}

#[tokio::test]
async fn processes_without_leases_do_not_wait_for_each_other() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let (one, other) = (bench.cache(), bench.builder().lease(Duration::ZERO).build().unwrap());
    let (gate, _caller) = load_gated(&one, &key);
    let _begun = gate.begun().await;
    assert_eq!(within(other.get_or_load(&key, bring("own"))).await.unwrap().value(), "own");
}

#[tokio::test]
async fn a_wait_for_another_process_ends_when_the_callers_time_is_up() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let policy = larder::Policy::default().hard_timeout(Duration::from_millis(300));
    let one = bench.cache();
    let other = bench.builder().default_policy(policy).build().unwrap();
    let (gate, _caller) = load_gated(&one, &key);
    let _begun = gate.begun().await;
    let error = within(other.get_or_load(&key, never())).await.unwrap_err();
    assert!(matches!(error, Error::LoadTimedOut { .. }), "{error}");
}

/// A process of its own that asks for `census:a`, which `child` is.
struct Peer {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(bench: &Bench, origin: &TcpListener) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peers::child", "--ignored", "--nocapture"])
            .env("LARDER_PEER_FILE", bench.path())
            .env("LARDER_PEER_ORIGIN", origin.local_addr().unwrap().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// The rest of its next line that begins with `what`.
    fn says(&mut self, what: &str) -> String {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once(what) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("it ended before it said {what}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// What a [`Peer`] does.
#[tokio::test]
#[ignore = "run by other tests, in a process of its own"]
async fn child() {
    let Ok(file) = std::env::var("LARDER_PEER_FILE") else { return };
    let origin = std::env::var("LARDER_PEER_ORIGIN").unwrap();
    let cache = Cache::builder()
        .tier(MemoryTier::new(1 << 20))
        .tier(SqliteTier::new(SqliteOptions::new(file)).unwrap())
        .lease(Duration::from_millis(800))
        .build()
        .unwrap();
    println!("asks");
    let load = move |_| async move {
        let ask = move || {
            let mut value = String::new();
            TcpStream::connect(&*origin)?.read_to_string(&mut value)?;
            std::io::Result::Ok(value)
        };
        let value = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
        Ok(Loaded::new(value))
    };
    let hit = within(cache.get_or_load(&key("census:a"), load)).await.unwrap();
    println!("got {}", String::from_utf8_lossy(hit.value()));
    close(cache).await;
}

#[tokio::test]
async fn eight_processes_that_ask_for_a_missing_key_cause_one_call_of_its_origin() {
    let bench = Arc::new(Bench::new());
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let test = move || {
        let mut peers: Vec<Peer> = (0..8).map(|_| Peer::start(&bench, &origin)).collect();
        let (mut call, _) = origin.accept().unwrap();
        for peer in &mut peers {
            peer.says("asks");
        }
        // A second call would come before any of them has its answer.
        call.write_all(b"v").unwrap();
        drop(call);
        for peer in &mut peers {
            assert_eq!(peer.says("got "), "v");
        }
        origin.set_nonblocking(true).unwrap();
        assert!(origin.accept().is_err(), "one call for all");
    };
    within(tokio::task::spawn_blocking(test)).await.unwrap();
}

#[tokio::test]
async fn the_lease_of_a_process_that_was_killed_is_taken_over() {
    let bench = Arc::new(Bench::new());
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let test = move || {
        let killed = Peer::start(&bench, &origin);
        let (call, _) = origin.accept().unwrap();
        let mut heir = Peer::start(&bench, &origin);
        heir.says("asks");
        drop(killed);
        drop(call);
        let (mut call, _) = origin.accept().unwrap();
        call.write_all(b"w").unwrap();
        drop(call);
        assert_eq!(heir.says("got "), "w");
    };
    within(tokio::task::spawn_blocking(test)).await.unwrap();
}
