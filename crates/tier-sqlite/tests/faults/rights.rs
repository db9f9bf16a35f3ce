//! Files and directories that may not be written, or not even read.

use std::{fs, path::Path, time::Duration};

use cache_core::{ErrorKind, Tier};
use tier_sqlite::SqliteTier;

use crate::{
    child::{Place, given_file, set_mode},
    support::{
        asides, assert_no_panics, beside, entry, fill, key, make, open, options, right, told,
        works, works_again,
    },
};

const ROWS: u64 = 30;

/// Modes of the file and of its directory.
const MODES: [(u32, u32); 3] = [(0o444, 0o700), (0o600, 0o555), (0o444, 0o555)];

fn modes(path: &Path, (file, dir): (u32, u32)) {
    for suffix in ["", "-wal", "-shm"] {
        if beside(path, suffix).exists() {
            set_mode(&beside(path, suffix), file);
        }
    }
    set_mode(path.parent().unwrap(), dir);
}

/// Reads go on, writes are refused, and after all is as before nothing is left of it.
async fn reads_go_on(tier: &SqliteTier, path: &Path, refused: bool, what: &str) {
    for n in 1_000..1_003 {
        assert_eq!(right(tier, 0..ROWS).await, 30, "{what}");
        let put = tier.put(&key(n), &entry(n)).await;
        assert_eq!(put.is_err(), refused, "{what}");
        if let Err(error) = put {
            assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {:?}", told(&error));
        }
    }
    modes(path, (0o600, 0o700));
    works_again(tier, 500).await;
    assert_eq!(right(tier, 0..ROWS).await, 30, "{what}");
}

#[tokio::test]
#[ignore = "another test runs it without root's rights"]
async fn child_opens_what_it_may_not_write() {
    let Some(path) = given_file() else { return };
    for mode in MODES {
        let what = format!("{:o} in {:o}", mode.0, mode.1);
        make(&path, 0..ROWS).await;
        modes(&path, mode);
        let tier = open(&path);
        reads_go_on(&tier, &path, true, &what).await;
        tier.close().await.unwrap();
        crate::support::clear(&path);
    }
    assert_no_panics();
}

#[tokio::test]
async fn what_may_not_be_written_is_read_and_used_again_once_it_may() {
    Place::new().run_without_rights("rights::child_opens_what_it_may_not_write");
}

#[tokio::test]
#[ignore = "another test runs it without root's rights"]
async fn child_opens_a_log_it_may_not_write() {
    let Some(path) = given_file() else { return };
    let crashed = path.with_file_name("crashed.db");
    for mode in MODES {
        let what = format!("{:o} in {:o}", mode.0, mode.1);
        make(&path, 0..10).await;
        let tier = open(&path);
        fill(&tier, 10..ROWS).await;
        // As after a crash, and while another process has it open.
        for suffix in ["", "-wal", "-shm"] {
            fs::copy(beside(&path, suffix), beside(&crashed, suffix)).unwrap();
        }
        modes(&path, mode);
        // With a log that is there already the directory need not be written.
        let refused = mode.0 == 0o444;
        let other = open(&path);
        reads_go_on(&other, &path, refused, &what).await;
        other.close().await.unwrap();
        tier.close().await.unwrap();

        modes(&crashed, mode);
        let tier = open(&crashed);
        reads_go_on(&tier, &crashed, refused, &format!("crashed, {what}")).await;
        tier.close().await.unwrap();
        crate::support::clear(&path);
        crate::support::clear(&crashed);
    }
    assert_no_panics();
}

#[tokio::test]
async fn what_may_not_be_written_is_read_with_its_log() {
    Place::new().run_without_rights("rights::child_opens_a_log_it_may_not_write");
}

#[tokio::test]
#[ignore = "another test runs it without root's rights"]
async fn child_loses_its_rights() {
    let Some(path) = given_file() else { return };
    for mode in [(0o444, 0o700), (0o444, 0o555)] {
        let tier = open(&path);
        fill(&tier, 0..ROWS).await;
        // Who has a file open may go on; who opens it may not.
        modes(&path, mode);
        assert_eq!(right(&tier, 0..ROWS).await, 30);
        works(&tier, 500).await.unwrap();
        modes(&path, (0o600, 0o700));
        works(&tier, 501).await.unwrap();
        tier.close().await.unwrap();
        crate::support::clear(&path);
    }
    assert_no_panics();
}

#[tokio::test]
async fn rights_that_are_lost_while_the_file_is_open_change_nothing() {
    Place::new().run_without_rights("rights::child_loses_its_rights");
}

#[tokio::test]
#[ignore = "another test runs it without root's rights"]
async fn child_may_not_even_read() {
    let Some(path) = given_file() else { return };
    make(&path, 0..ROWS).await;
    for mode in [(0o000, 0o700), (0o600, 0o000), (0o200, 0o700)] {
        modes(&path, mode);
        let tier = SqliteTier::new(options(&path).busy_timeout(Duration::from_millis(50))).unwrap();
        for _ in 0..2 {
            for error in [
                tier.get(&key(1)).await.unwrap_err(),
                tier.put(&key(1_000), &entry(1_000)).await.unwrap_err(),
            ] {
                assert_ne!(error.kind(), ErrorKind::Internal, "{:?}", told(&error));
                let (_, cause) = told(&error);
                assert!(cause.contains("cache.db"), "{cause}");
            }
        }
        set_mode(path.parent().unwrap(), 0o700);
        modes(&path, (0o600, 0o700));
        assert_eq!(right(&tier, 0..ROWS).await, 30);
        works(&tier, 500).await.unwrap();
        tier.remove(&key(500)).await.unwrap();
        tier.close().await.unwrap();
    }
    assert!(asides(&path).is_empty());
    assert_no_panics();
}

#[tokio::test]
async fn what_may_not_be_read_is_an_error_until_it_may() {
    Place::new().run_without_rights("rights::child_may_not_even_read");
}
