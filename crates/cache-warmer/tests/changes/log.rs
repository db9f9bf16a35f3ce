//! The log of changes, with several processes, torn lines and no room.

use std::{
    env, fs,
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use cache_warmer::changes::{Change, ChangeLog, ChangeLogError};
use larder::Timestamp;
use tempfile::TempDir;

use crate::{change, full_change};

/// The file that a process of its own appends to, and the name it has there.
const FILE: &str = "LARDER_CHANGES_FILE";
const NAME: &str = "LARDER_CHANGES_NAME";
/// How many lines such a process appends.
const LINES: usize = 200;
const BEGINNING: Timestamp = Timestamp::from_millis(0);

fn log_in(dir: &TempDir) -> ChangeLog {
    ChangeLog::at(dir.path().join("changes.jsonl"))
}

/// Starts an ignored test of this binary in a process of its own.
fn child(test: &str, log: &ChangeLog, name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(FILE, log.path())
        .env(NAME, name)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn given_log() -> Option<(ChangeLog, String)> {
    Some((ChangeLog::at(env::var_os(FILE)?), env::var(NAME).ok()?))
}

fn append_raw(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn keys(log: &ChangeLog) -> (Vec<String>, u64) {
    let list = log.since(BEGINNING).unwrap();
    (list.changes.into_iter().map(|change| change.key).collect(), list.skipped)
}

#[test]
fn what_is_appended_is_listed_from_an_instant_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = ChangeLog::at(dir.path().join("new/directory/changes.jsonl"));
    assert_eq!(log.since(BEGINNING).unwrap().changes, []);
    assert!(!dir.path().join("new").exists(), "reading makes nothing");
    // Not in the order in which they were found.
    for at in [3, 1, 2] {
        log.append(&change(at, "k")).unwrap();
    }
    log.append(&full_change()).unwrap();
    let since = |at| log.since(Timestamp::from_millis(at)).unwrap();
    let at: Vec<_> = since(2).changes.iter().map(|change| change.at.as_millis()).collect();
    assert_eq!(at, [2, 3, 1_700_000_000_123]);
    assert_eq!(since(4).changes, [full_change()]);
    assert_eq!((since(i64::MAX).changes.len(), since(0).skipped), (0, 0));
}

#[cfg(unix)]
#[test]
fn files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let log = ChangeLog::at(dir.path().join("own/changes.jsonl")).max_bytes(1);
    log.append(&change(1, "a")).unwrap();
    log.append(&change(2, "b")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let own = dir.path().join("own");
    assert_eq!(mode(&own), 0o700);
    let mut modes: Vec<_> = fs::read_dir(&own)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), mode(&file.path())))
        .collect();
    modes.sort();
    let wanted = ["changes.jsonl", "changes.jsonl.1", "changes.jsonl.lock"];
    assert_eq!(modes, wanted.map(|name| (name.to_owned(), 0o600)));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_appends() {
    let Some((log, name)) = given_log() else { return };
    let log = log.max_bytes(2 << 20);
    File::create(log.path().with_file_name(&name)).unwrap();
    for line in 0..LINES {
        let mut change = change(line.try_into().unwrap(), &format!("{name}-{line}"));
        // From short lines to those that take several pages.
        change.new_version = Some("x".repeat(line * 37));
        log.append(&change).unwrap();
    }
}

/// Lets several processes append at once, and reads all the while.
fn append_from_processes(log: &ChangeLog, dir: &TempDir) -> Vec<Change> {
    let names = ["one", "two", "three", "four"];
    // Keeps them waiting until all are there.
    let gate = File::create(dir.path().join("changes.jsonl.lock")).unwrap();
    gate.lock().unwrap();
    let start = |name: &&str| child("log::child_appends", log, name).spawn().unwrap();
    let mut children: Vec<Child> = names.iter().map(start).collect();
    let began = Instant::now();
    while !names.iter().all(|name| dir.path().join(name).exists()) {
        assert!(began.elapsed() < Duration::from_secs(20), "the processes do not start");
        thread::sleep(Duration::from_millis(1));
    }
    gate.unlock().unwrap();
    let mut seen = 0;
    loop {
        let is_done = children.iter_mut().all(|child| child.try_wait().unwrap().is_some());
        let list = log.since(BEGINNING).unwrap();
        assert_eq!(list.skipped, 0, "a line is whole when it can be read");
        assert!(list.changes.len() >= seen, "what has been there is there");
        seen = list.changes.len();
        if is_done {
            assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
            return list.changes;
        }
    }
}

#[test]
fn processes_that_append_at_once_mix_no_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    // Half of what they write: the file is put aside once, or twice.
    let changes = append_from_processes(&log, &dir);
    assert!(dir.path().join("changes.jsonl.1").exists(), "it was put aside meanwhile");
    let mut keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
    keys.sort();
    let mut wanted: Vec<_> = ["one", "two", "three", "four"]
        .iter()
        .flat_map(|name| (0..LINES).map(move |line| format!("{name}-{line}")))
        .collect();
    wanted.sort();
    assert_eq!(keys, wanted);
    for change in &changes {
        let line = usize::try_from(change.at.as_millis()).unwrap();
        assert_eq!(change.new_version.as_ref().unwrap().len(), line * 37);
    }
}

#[test]
fn a_file_that_has_become_too_large_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let length = serde_json::to_vec(&change(0, "0")).unwrap().len() as u64 + 1;
    let log = log_in(&dir).max_bytes(3 * length);
    let size = |name: &str| fs::metadata(dir.path().join(name)).map(|file| file.len()).ok();
    for at in 0..3 {
        log.append(&change(at, &at.to_string())).unwrap();
    }
    assert_eq!(size("changes.jsonl"), Some(3 * length));
    assert_eq!(size("changes.jsonl.1"), None);
    log.append(&change(3, "3")).unwrap();
    assert_eq!(size("changes.jsonl"), Some(length));
    assert_eq!(size("changes.jsonl.1"), Some(3 * length));
    assert_eq!(keys(&log).0, ["0", "1", "2", "3"]);
    for at in 4..8 {
        log.append(&change(at, &at.to_string())).unwrap();
    }
    assert_eq!(keys(&log).0, ["3", "4", "5", "6", "7"], "the oldest have gone");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_torn_line_takes_no_other_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    log.append(&change(1, "a")).unwrap();
    let whole = serde_json::to_vec(&change(2, "torn")).unwrap();
    append_raw(log.path(), &whole[..whole.len() / 2]);
    assert_eq!(keys(&log), (vec!["a".into()], 1));
    log.append(&change(3, "b")).unwrap();
    assert_eq!(keys(&log), (vec!["a".into(), "b".into()], 1));
    // One that lacks its end only is none the less whole.
    append_raw(log.path(), &whole);
    log.append(&change(4, "c")).unwrap();
    assert_eq!(keys(&log), (vec!["a".into(), "torn".into(), "b".into(), "c".into()], 1));
}

#[test]
fn foreign_lines_are_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    log.append(&change(1, "a")).unwrap();
    let newer = String::from_utf8(serde_json::to_vec(&change(1, "newer")).unwrap()).unwrap();
    let newer = newer.replace("larder.change/1", "larder.change/2");
    append_raw(log.path(), format!("{newer}\n{{}}\n\u{0}\u{0}\n").as_bytes());
    append_raw(log.path(), b"not \xff UTF-8\n");
    append_raw(log.path(), &vec![b' '; 3 << 20]);
    log.append(&change(2, "b")).unwrap();
    assert_eq!(keys(&log), (vec!["a".into(), "b".into()], 5));
}

#[test]
fn a_change_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let mut large = change(1, "a");
    large.new_version = Some("x".repeat(1 << 20));
    let refusal = log.append(&large).unwrap_err();
    assert!(refusal.to_string().contains("`rents`"), "{refusal}");
    assert!(!log.path().exists());
}

#[test]
fn a_process_that_holds_the_lock_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir).patience(Duration::from_millis(30));
    log.append(&change(1, "a")).unwrap();
    let held = File::open(dir.path().join("changes.jsonl.lock")).unwrap();
    held.lock().unwrap();
    let refusal = log.append(&change(2, "b")).unwrap_err();
    assert!(matches!(refusal, ChangeLogError::Busy { .. }), "{refusal}");
    assert!(refusal.to_string().contains("changes.jsonl.lock"), "{refusal}");
    assert!(log.since(BEGINNING).is_err());
    held.unlock().unwrap();
    log.append(&change(3, "c")).unwrap();
    assert_eq!(keys(&log).0, ["a", "c"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let refusal = ChangeLog::at(dir.path().join("file/changes")).append(&change(1, "a"));
    let refusal = refusal.unwrap_err().to_string();
    assert!(refusal.contains("file/changes.lock cannot be opened"), "{refusal}");
    fs::create_dir(dir.path().join("directory")).unwrap();
    let refusal = ChangeLog::at(dir.path().join("directory")).append(&change(1, "a")).unwrap_err();
    assert!(refusal.to_string().contains("directory cannot be opened"), "{refusal}");
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_appends_until_there_is_no_room() {
    let Some((log, name)) = given_log() else { return };
    let error = (0..).find_map(|at| log.append(&change(at, &name)).err()).unwrap();
    assert!(matches!(error, ChangeLogError::Io { doing: "written", .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn where_there_is_no_room_nothing_torn_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    let test = child("log::child_appends_until_there_is_no_room", &log, "k");
    let mut command = Command::new("sh");
    // A signal would end the process, unless it is ignored by who starts it.
    let script = r#"trap "" XFSZ; ulimit -f 4; exec "$@""#;
    command.args(["-c", script, "sh"]).arg(test.get_program()).args(test.get_args());
    command.envs(test.get_envs().map(|(name, value)| (name, value.unwrap())));
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let (kept, skipped) = keys(&log);
    assert!(!kept.is_empty());
    assert_eq!(skipped, 0);
    assert!(fs::read(log.path()).unwrap().ends_with(b"}\n"));
}

#[tokio::test]
async fn async_code_appends_without_blocking_even_if_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_in(&dir);
    log.append_async(&change(1, "a")).await.unwrap();
    let held = File::open(dir.path().join("changes.jsonl.lock")).unwrap();
    held.lock().unwrap();
    let given_up = change(2, "b");
    let append = log.append_async(&given_up);
    assert!(tokio::time::timeout(Duration::from_millis(20), append).await.is_err());
    held.unlock().unwrap();
    let began = Instant::now();
    while keys(&log).0 != ["a", "b"] {
        assert!(began.elapsed() < Duration::from_secs(5), "it is never appended");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
