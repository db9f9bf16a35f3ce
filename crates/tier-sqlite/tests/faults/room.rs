//! No room: on the disk, or for the file.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use cache_core::{Entry, ErrorKind, Stamp, Tier, Timestamp};
use tempfile::TempDir;
use tier_sqlite::SqliteTier;

use crate::{
    child::{Place, given_file, is_root, skip},
    support::{
        NOW, asides, assert_no_panics, entry, fill, key, make, open, options, right, told, until,
        works, works_again,
    },
};

const ROWS: u64 = 30;

/// A small disk in memory, gone when it is dropped.
struct Disk(TempDir);

impl Disk {
    fn of(bytes: u64) -> Option<Self> {
        if !is_root() {
            skip("a file system is mounted by root only");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        if !mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            skip(&format!("no file system can be mounted: {mounted:?}"));
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut ballast = File::create(&path).unwrap();
        for len in [65_536, 4_096, 1] {
            while ballast.write_all(&vec![0; len]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that fails has files open.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).output();
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

/// A later entry for `key(n)`, of noise.
fn later(n: u64, len: usize) -> Entry {
    let mut dice = tier_testkit::Dice::new(n);
    let noise: Vec<u8> = (0..len).map(|_| dice.throw().to_le_bytes()[0]).collect();
    Entry::builder(noise, Stamp::at(Timestamp::from_millis(NOW + 10))).build()
}

/// Puts large values until one is refused for want of room.
async fn put_until_refused(tier: &SqliteTier, from: u64) {
    for n in from..from + 400 {
        if let Err(error) = tier.put(&key(n), &later(n, 50_000)).await {
            assert_eq!(error.kind(), ErrorKind::Refused, "{:?}", told(&error));
            return;
        }
    }
    panic!("all found room");
}

#[tokio::test]
async fn on_a_full_disk_reads_go_on_and_writes_begin_again_when_there_is_room() {
    let Some(disk) = Disk::of(4 << 20) else { return };
    let path = disk.path().join("cache.db");
    let tier = open(&path);
    fill(&tier, 0..ROWS).await;
    for round in 0..3 {
        let ballast = disk.fill();
        put_until_refused(&tier, 10_000 * (round + 1)).await;
        for n in 0..5 {
            let put = tier.put(&key(n), &later(n, 300_000)).await;
            let error = put.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{:?}", told(&error));
        }
        // What could be deleted may have been, to make room; what is there is right.
        right(&tier, 0..ROWS).await;
        fs::remove_file(ballast).unwrap();
        works_again(&tier, 500 + round).await;
        assert_eq!(right(&tier, [500 + round]).await, 1);
    }
    tier.close().await.unwrap();
    let tier = open(&path);
    assert_eq!(right(&tier, [502]).await, 1);
    tier.close().await.unwrap();
    assert_eq!(asides(&path), Vec::<PathBuf>::new(), "a full disk damages nothing");
    assert_no_panics();
}

#[tokio::test]
async fn a_file_on_a_disk_that_is_full_already_is_read() {
    let Some(disk) = Disk::of(4 << 20) else { return };
    let path = disk.path().join("cache.db");
    make(&path, 0..ROWS).await;
    let ballast = disk.fill();
    let tier = open(&path);
    assert_eq!(right(&tier, 0..ROWS).await, 30, "without room for a log or its index");
    let error = tier.put(&key(500), &later(500, 300_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{:?}", told(&error));
    right(&tier, 0..ROWS).await;
    fs::remove_file(ballast).unwrap();
    works_again(&tier, 501).await;
    tier.close().await.unwrap();
    assert_no_panics();
}

#[tokio::test]
async fn a_new_file_on_a_full_disk_is_made_when_there_is_room() {
    let Some(disk) = Disk::of(1 << 20) else { return };
    let ballast = disk.fill();
    let path = disk.path().join("cache.db");
    let tier = open(&path);
    for _ in 0..3 {
        let error = tier.put(&key(1), &entry(1)).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Refused | ErrorKind::Unavailable),
            "{:?}",
            told(&error)
        );
    }
    fs::remove_file(ballast).unwrap();
    works_again(&tier, 500).await;
    tier.close().await.unwrap();
    assert_eq!(asides(&path), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn on_a_small_disk_the_bound_is_kept_before_the_disk_is_full() {
    let Some(disk) = Disk::of(8 << 20) else { return };
    let path = disk.path().join("cache.db");
    // As far as the options go, there is room for a gigabyte.
    let tier = open(&path);
    for n in 1_000..1_400 {
        let put = tier.put(&key(n), &later(n, 50_000)).await;
        assert!(put.unwrap_or_else(|error| panic!("{n}: {:?}", told(&error))).is_stored());
    }
    let last = tier.get(&key(1_399)).await.unwrap();
    assert_eq!(last, Some(later(1_399, 50_000)));
    tier.close().await.unwrap();
    assert_no_panics();
}

const LIMIT: u64 = 1_000_000;

#[tokio::test]
#[ignore = "another test runs it with a limit"]
async fn child_meets_a_limit_of_file_sizes() {
    let Some(path) = given_file() else { return };
    let tier = SqliteTier::new(options(&path)).unwrap();
    assert_eq!(right(&tier, 0..ROWS).await, 30);
    put_until_refused(&tier, 10_000).await;
    for n in 0..5 {
        let error = tier.put(&key(n), &later(n, 500_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{:?}", told(&error));
        right(&tier, 0..ROWS).await;
    }
    until("the limit is lifted, and all is as before", async || {
        let id = std::process::id().to_string();
        let lifted = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &id]).output();
        assert!(lifted.unwrap().status.success());
        works(&tier, 500).await.is_ok()
    })
    .await;
    tier.close().await.unwrap();
    assert_eq!(asides(&path), Vec::<PathBuf>::new());
    assert_no_panics();
}

#[tokio::test]
async fn a_limit_of_file_sizes_is_a_full_disk() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return skip("there is no prlimit");
    }
    let place = Place::new();
    make(&place.file(), 0..ROWS).await;
    place.run_with_file_limit(LIMIT, "room::child_meets_a_limit_of_file_sizes");
}
