//! Commands that are told of changes: programs that end well, badly, and not at all.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use cache_warmer::changes::{Change, Command, Notifier, NotifyError, NotifyLimits};

use crate::full_change;

/// A shell script with one argument, the path of a file.
fn script(text: &str, file: &Path) -> Command {
    Command::new("sh", ["-c", text, "sh", file.to_str().unwrap()])
}

async fn notify(command: Command, change: &Change, limit: Duration) -> Result<(), NotifyError> {
    let mut limits = NotifyLimits::default();
    limits.command_timeout = limit;
    let told = Notifier::new().command(command).limits(limits).notify(change).await;
    let [(which, told)] = <[_; 1]>::try_from(told).unwrap();
    assert!(which.starts_with("command "), "{which}");
    told
}

/// Enough for a program that ends by itself.
const AMPLE: Duration = Duration::from_secs(30);

/// A change that fills a pipe several times over.
fn large_change() -> Change {
    let mut change = full_change();
    change.new_version = Some("x".repeat(500_000));
    change
}

/// Waits until no process with this number runs.
fn is_gone(id: &str) -> bool {
    let began = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Whoever is to reap it may be slow.
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        if began.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_command_gets_the_change_on_its_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("got");
    for change in [full_change(), large_change()] {
        notify(script(r#"cat > "$1""#, &file), &change, AMPLE).await.unwrap();
        let got = fs::read_to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&got).unwrap(), change);
        assert_eq!(got.matches('\n').count(), 1, "it is one line");
    }
}

#[tokio::test]
async fn arguments_are_no_shell_words() {
    let dir = tempfile::tempdir().unwrap();
    let strange = dir.path().join("a b; touch $(id) *");
    notify(Command::new("touch", [strange.to_str().unwrap()]), &full_change(), AMPLE)
        .await
        .unwrap();
    assert!(strange.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_command_need_not_read() {
    let none = Vec::<String>::new();
    notify(Command::new("true", none), &large_change(), AMPLE).await.unwrap();
}

#[tokio::test]
async fn a_command_that_fails_is_quoted() {
    let text = r"echo the beginning >&2; head -c 100000 /dev/zero | tr '\0' x >&2
        printf '\033[31mthe end\n' >&2; exit 3";
    let error = notify(script(text, Path::new("canary")), &full_change(), AMPLE).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("`sh` ended with exit status: 3; "), "{said}");
    assert!(said.ends_with("\\u{1b}[31mthe end"), "{said}");
    assert!(!said.contains("the beginning"), "{said}");
    assert!((1_000..1_200).contains(&said.len()), "{said}");
    let silent = notify(script("kill -9 $$", Path::new("x")), &full_change(), AMPLE).await;
    let silent = silent.unwrap_err().to_string();
    assert!(silent.contains("signal: 9") && silent.contains("wrote nothing"), "{silent}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let command = Command::new("no-such-program-of-larder", ["canary-argument"]);
    assert!(!format!("{command:?} {command:#?}").contains("canary"));
    let error = notify(command, &full_change(), AMPLE).await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(said.contains("`no-such-program-of-larder` cannot be started"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

/// Writes down its number and that of a process it has started, and never ends.
const HANGS: &str =
    r#"sleep 600 & echo $$ $! > "$1.part"; mv "$1.part" "$1"; echo waiting >&2; wait"#;

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ids");
    let limit = Duration::from_secs(2);
    let began = Instant::now();
    let error = notify(script(HANGS, &file), &full_change(), limit).await.unwrap_err();
    assert!((2..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let said = error.to_string();
    assert!(said.contains("`sh` was killed after 2s") && said.contains("waiting"), "{said}");
    let ids = fs::read_to_string(&file).unwrap();
    assert_eq!(ids.split_whitespace().count(), 2);
    assert!(ids.split_whitespace().all(is_gone), "{ids}");
}

#[tokio::test]
async fn a_command_is_killed_when_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ids");
    {
        let change = full_change();
        let told = notify(script(HANGS, &file), &change, AMPLE);
        let runs = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            told = told => panic!("it has ended: {told:?}"),
            () = runs => {}
        }
    }
    let ids = fs::read_to_string(&file).unwrap();
    assert!(ids.split_whitespace().all(is_gone), "{ids}");
}

#[tokio::test]
async fn what_a_command_leaves_running_is_not_waited_for() {
    let text = "sleep 15 & echo done >&2; exit 1";
    let began = Instant::now();
    let error = notify(script(text, Path::new("x")), &large_change(), AMPLE).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(error.to_string().ends_with(": done"), "{error}");
}

#[tokio::test]
async fn a_command_may_say_much_before_it_reads() {
    let text = r#"head -c 500000 /dev/zero >&2; cat > "$1""#;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("got");
    notify(script(text, &file), &large_change(), AMPLE).await.unwrap();
    assert!(fs::metadata(&file).unwrap().len() > 500_000);
}
