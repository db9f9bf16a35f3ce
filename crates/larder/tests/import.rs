//! A cache of the Python manager is imported into another store.

#![cfg(all(feature = "sqlite", feature = "memory"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::PathBuf, time::Duration};

use larder::{
    Cache, Key,
    import::{ImportError, ImportOptions},
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};
use tempfile::TempDir;

fn legacy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../python-cache/tests/fixtures/legacy.db")
}

fn cache(dir: &TempDir) -> Cache {
    let tier = SqliteTier::new(SqliteOptions::new(dir.path().join("cache.db"))).unwrap();
    Cache::builder().tier(MemoryTier::new(1 << 24)).tier(tier).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_live_entry_is_imported_once_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(&dir);
    let before = fs::read(legacy()).unwrap();
    let foreseen = cache.import_python(legacy(), ImportOptions::dry_run()).await.unwrap();
    let report = cache.import_python(legacy(), ImportOptions::default()).await.unwrap();
    assert_eq!(foreseen, report);
    assert_eq!((report.rows, report.imported, report.expired), (23, 16, 1));
    assert_eq!((report.unreadable, report.superseded, report.too_large), (6, 0, 0));
    assert!((report.kept_as_pickle, report.bytes) == (2, 502), "{report:?}");
    let why = &report.examples.iter().find(|(key, _)| key == "hostile:os.system").unwrap().1;
    assert!(why.contains("posix.system"), "{why}");
    assert_eq!(fs::read(legacy()).unwrap(), before);

    let census = cache.get_as::<serde_json::Value>(&Key::new("census:acs:2020")).await.unwrap();
    assert!(census.unwrap().is_object());
    let hostile = cache.get(&Key::new("hostile:os.system")).await.unwrap().unwrap();
    assert_eq!(hostile.entry().content_type(), Some("application/python-pickle"));

    let again = cache.import_python(legacy(), ImportOptions::default()).await.unwrap();
    assert_eq!((again.imported, again.superseded), (0, 16));
    cache.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_later_here_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(&dir);
    let (set, gone) = (Key::new("census:acs:2020"), Key::new("never"));
    cache.set(&set, "set", larder::SetOptions::default()).await.unwrap();
    cache.invalidate(&gone).await.unwrap();
    for options in [ImportOptions::dry_run(), ImportOptions::default()] {
        let report = cache.import_python(legacy(), options).await.unwrap();
        assert_eq!((report.imported, report.superseded, report.barred), (14, 1, 1));
    }
    assert_eq!(cache.get(&set).await.unwrap().unwrap().value(), "set");
    assert!(cache.get(&gone).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let memory = Cache::builder().tier(MemoryTier::new(1 << 24)).build().unwrap();
    let refused = memory.import_python(legacy(), ImportOptions::default()).await;
    assert!(matches!(refused, Err(ImportError::NoTier)), "{refused:?}");
    let cache = cache(&dir);
    let missing = dir.path().join("missing.db");
    for path in [missing.as_path(), dir.path(), std::path::Path::new(file!())] {
        let refused = cache.import_python(path, ImportOptions::default()).await;
        assert!(matches!(refused, Err(ImportError::File(_))), "{refused:?}");
    }
    assert!(!missing.exists());
    cache.close(Duration::from_secs(10)).await;
    let refused = cache.import_python(legacy(), ImportOptions::default()).await;
    assert!(matches!(refused, Err(ImportError::Chain(larder::Error::Closed))), "{refused:?}");
}
