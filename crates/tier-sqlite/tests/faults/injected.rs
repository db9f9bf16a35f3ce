//! System calls that fail, or at which the process is killed, as strace brings it about; and too few
//! descriptors.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use cache_core::{Key, Tier};
use tier_sqlite::SqliteTier;

use crate::{
    child::{Place, given_file, set_mode, skip},
    formats::{PRESENT, at, fixture, has_all},
    support::{
        NOW, asides, assert_no_panics, beside, clear, entry, key, make, open, plain, pragma, right,
        works_again,
    },
};

/// Whether strace is there, and may trace its own child.
fn has_strace() -> bool {
    let quiet = Stdio::null;
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "true"]).stdin(quiet()).stdout(quiet()).stderr(quiet());
    let works = strace.status().is_ok_and(|status| status.success());
    if !works {
        skip("strace is not there, or may not trace");
    }
    works
}

#[tokio::test]
#[ignore = "another test runs it under strace"]
async fn child_brings_a_file_to_the_present_format() {
    let Some(path) = given_file() else { return };
    let tier = at(&path, NOW);
    tier.remove(&Key::new("none")).await.unwrap();
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_process_killed_while_it_brings_a_file_to_the_present_format_loses_nothing() {
    if !has_strace() {
        return;
    }
    let place = Place::new();
    let path = place.file();
    let mut kills = Vec::new();
    for calls in ["pwrite64", "fdatasync,fsync", "ftruncate", "rename,renameat,renameat2", "unlink"]
    {
        // strace counts the calls of each thread by itself; one thread does it all.
        let mut killed = 0;
        loop {
            fs::copy(fixture(1), &path).unwrap();
            set_mode(&path, 0o600);
            let what = format!("signal=KILL:when={}", killed + 1);
            let ended = place.run_injected(
                calls,
                &what,
                "injected::child_brings_a_file_to_the_present_format",
            );
            let what = format!("killed at {calls} {}", killed + 1);
            let tier = at(&path, NOW);
            has_all(&tier, &what).await;
            tier.remove(&Key::new("none")).await.unwrap();
            has_all(&tier, &what).await;
            tier.close().await.unwrap();
            assert_eq!(pragma(&plain(&path), "user_version"), PRESENT, "{what}");
            assert_eq!(asides(&path), Vec::<PathBuf>::new(), "{what}");
            let backup = beside(&path, ".format-1.backup");
            assert_eq!(pragma(&plain(&backup), "user_version"), 1, "{what}");
            clear(&path);
            fs::remove_file(backup).unwrap();
            if ended {
                break;
            }
            killed += 1;
        }
        kills.push(killed);
    }
    assert!(kills[0] > 20 && kills[1] > 0, "{kills:?}");
    assert_no_panics();
}

#[tokio::test]
#[ignore = "another test runs it under strace"]
async fn child_goes_on_though_calls_fail() {
    let Some(path) = given_file() else { return };
    let tier = open(&path);
    let (mut stored, mut failed) = (Vec::new(), 0);
    for n in 100..200 {
        match tier.put(&key(n), &entry(n)).await {
            Ok(outcome) => {
                assert!(outcome.is_stored(), "{outcome:?}");
                stored.push(n);
            }
            Err(_) => failed += 1,
        }
        // One that cannot be read now is not a wrong one, nor one that is damaged.
        for n in stored.iter().rev().take(5).copied() {
            match tier.get(&key(n)).await {
                Ok(found) => assert_eq!(found, Some(entry(n)), "{n}"),
                Err(_) => failed += 1,
            }
        }
    }
    println!("{failed} failed");
    works_again(&tier, 500).await;
    assert_eq!(tier.corrupt_rows(), 0);
    tier.close().await.unwrap();
    assert_eq!(asides(&path), Vec::<PathBuf>::new(), "a call that failed is no damage");
    assert_no_panics();
}

#[tokio::test]
async fn calls_that_fail_now_and_then_cost_neither_the_file_nor_a_value() {
    if !has_strace() {
        return;
    }
    let place = Place::new();
    let path = place.file();
    for (calls, what) in [
        ("pwrite64", "error=EIO:when=40"),
        ("pwrite64", "error=EIO:when=30+50"),
        ("pwrite64", "error=ENOSPC:when=30+50"),
        ("fdatasync,fsync", "error=EIO:when=1+2"),
        ("pread64", "error=EIO:when=40+40"),
        ("ftruncate", "error=EIO:when=1"),
    ] {
        make(&path, 0..30).await;
        assert!(place.run_injected(calls, what, "injected::child_goes_on_though_calls_fail"));
        let tier = open(&path);
        assert_eq!(right(&tier, 0..30).await, 30, "{calls}:{what}");
        tier.close().await.unwrap();
        let sound: String =
            plain(&path).pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok", "{calls}:{what}");
        clear(&path);
    }
}

#[tokio::test]
#[ignore = "another test runs it with few descriptors"]
async fn child_runs_out_of_descriptors() {
    let Some(path) = given_file() else { return };
    make(&path, 0..30).await;
    let tier = open(&path);
    assert_eq!(right(&tier, 0..30).await, 30);
    let (mut taken, mut failed) = (Vec::new(), 0);
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // One that is open, and one that is not.
    let late: SqliteTier = open(&path);
    for n in 100..120 {
        for tier in [&tier, &late] {
            failed += u32::from(tier.put(&key(n), &entry(n)).await.is_err());
            match tier.get(&key(n - 100)).await {
                Ok(found) => assert_eq!(found, Some(entry(n - 100)), "{n}"),
                Err(_) => failed += 1,
            }
        }
    }
    assert!(failed > 0, "{} descriptors were no more than enough", taken.len());
    drop(taken);
    for (n, tier) in [(500, &tier), (501, &late)] {
        works_again(tier, n).await;
        assert_eq!(right(tier, 0..30).await, 30);
    }
    tier.close().await.unwrap();
    late.close().await.unwrap();
    assert_eq!(asides(&path), Vec::<PathBuf>::new());
    assert_no_panics();
}

#[tokio::test]
async fn too_few_descriptors_cost_no_more_than_what_was_not_stored_meanwhile() {
    Place::new().run_with_descriptors(64, "injected::child_runs_out_of_descriptors");
}
