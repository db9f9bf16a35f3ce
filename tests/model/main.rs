//! Random histories of a chain of failing tiers against a simple model.
//!
//! A history is 40 to 120 steps from one seed: calls of the cache, several under way at a time,
//! clocks that move, tiers that fail. Everything runs on one thread and on paused clocks, so the
//! same seed gives the same history. What must hold is in `checks.rs` and `ending.rs`.
//!
//! `LARDER_MODEL_SEED=7 cargo test -p larder-tests --test model -- --nocapture` plays one history
//! and prints it, without the steps in `LARDER_MODEL_WITHOUT=3,5`, and then with only what it needs
//! to break a rule. `LARDER_MODEL_SEQUENCES` and `LARDER_MODEL_FIRST` say how many there are and
//! the first seed, `LARDER_MODEL_LIST` how many broken rules are listed, `LARDER_MODEL_TWICE` how
//! many are played twice and compared. The long form is `cargo xtask model`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod calls;
mod checks;
mod ending;
mod loader;
mod loads;
mod model;
mod ops;
mod plan;
mod steps;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    str::FromStr,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    model::{Armed, Violation},
    plan::Plan,
    steps::Player,
    world::World,
};

/// How many histories there are where nobody says so.
const SEQUENCES: u64 = 500;

/// What a history came to.
struct Played {
    violation: Option<Violation>,
    log: Vec<String>,
    armed: Armed,
    reads: u64,
}

/// Plays the history of a seed.
fn play(seed: u64, without: &BTreeSet<usize>) -> Played {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let world = runtime.block_on(async {
        let world = World::new(Plan::new(seed));
        let mut player = Player::new(Arc::clone(&world));
        let (task_world, without) = (Arc::clone(&world), without.clone());
        // In a task, so that it takes its turn like all others.
        let history = tokio::spawn(async move {
            player.play(&without).await;
            ending::end(&task_world, &mut player).await;
        });
        history.await.unwrap();
        world
    });
    world.model().over = true;
    drop(runtime);
    let mut model = world.model();
    let reads = world.cache.stats().reads();
    Played {
        violation: model.violation.take(),
        log: std::mem::take(&mut model.log),
        armed: model.counts.armed,
        reads,
    }
}

/// Planned panics are no news.
fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("planned") {
                usual(info);
            }
        }));
    });
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Leaves out as many steps as possible such that the same rule is still broken.
fn shrink(seed: u64, rule: &str) -> BTreeSet<usize> {
    let still = |without: &BTreeSet<usize>| {
        play(seed, without).violation.is_some_and(|violation| violation.rule == rule)
    };
    let mut without = BTreeSet::new();
    for size in [32, 8, 4, 2, 1, 1] {
        let steps: Vec<usize> = (0..Plan::new(seed).steps).rev().collect();
        for some in steps.chunks(size) {
            let more: BTreeSet<usize> = without.iter().chain(some).copied().collect();
            if more.len() > without.len() && still(&more) {
                without = more;
            }
        }
    }
    without
}

/// What there is to say of a broken rule.
fn report(seed: u64, without: &BTreeSet<usize>) -> String {
    // Those who wait for one thing are woken in an order that tokio does not let us choose: one
    // history in some hundred depends on it.
    let mut played = play(seed, without);
    for _ in 0..20 {
        if played.violation.is_some() {
            break;
        }
        played = play(seed, without);
    }
    let Played { violation, log, .. } = played;
    let mut text = format!("seed {seed}\n{}", Plan::new(seed));
    for line in log {
        writeln!(text, "  {line}").unwrap();
    }
    if let Some(Violation { rule, text: how }) = violation {
        writeln!(text, "broken: {rule}\n  {how}").unwrap();
    }
    let without: Vec<String> = without.iter().map(ToString::to_string).collect();
    let without = match without.join(",") {
        none if none.is_empty() => none,
        some => format!("LARDER_MODEL_WITHOUT={some} "),
    };
    writeln!(
        text,
        "again: LARDER_MODEL_SEED={seed} {without}cargo test -p larder-tests --test model -- \
         --nocapture random"
    )
    .unwrap();
    text
}

#[test]
fn random_histories_break_no_rule() {
    silence_planned_panics();
    if let Some(seed) = variable("LARDER_MODEL_SEED") {
        let without: String = variable("LARDER_MODEL_WITHOUT").unwrap_or_default();
        let without = without.split(',').filter_map(|step| step.parse().ok()).collect();
        println!("{}", report(seed, &without));
        if let Some(violation) = play(seed, &without).violation.filter(|_| without.is_empty()) {
            println!("with what is needed:\n{}", report(seed, &shrink(seed, violation.rule)));
        }
        assert_eq!(play(seed, &without).violation, None);
        return;
    }
    let sequences = variable("LARDER_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    let first: u64 = variable("LARDER_MODEL_FIRST").unwrap_or(1);
    println!("LARDER_MODEL_FIRST={first} LARDER_MODEL_SEQUENCES={sequences}");
    let (next, total) = (AtomicU64::new(0), Mutex::new((Armed::default(), 0)));
    let broken: Mutex<BTreeMap<u64, Violation>> = Mutex::default();
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= sequences {
                        return;
                    }
                    let played = play(first.wrapping_add(n), &BTreeSet::new());
                    let mut total = total.lock().unwrap();
                    total.0.add(&played.armed);
                    total.1 += played.reads;
                    if let Some(violation) = played.violation {
                        broken.lock().unwrap().insert(n, violation);
                    }
                }
            });
        }
    });
    let (armed, reads) = total.into_inner().unwrap();
    println!("{sequences} histories, {reads} reads; rules tried: {:?}", armed.each());
    let broken = broken.into_inner().unwrap();
    let mut rules: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (n, violation) in &broken {
        rules.entry(violation.rule).or_insert((0, first.wrapping_add(*n))).0 += 1;
    }
    if let Some((n, violation)) = broken.first_key_value() {
        let seed = first.wrapping_add(*n);
        println!("{}", report(seed, &shrink(seed, violation.rule)));
        for (n, violation) in broken.iter().take(variable("LARDER_MODEL_LIST").unwrap_or(0)) {
            println!("seed {}: {}: {}", first.wrapping_add(*n), violation.rule, violation.text);
        }
        for (rule, (times, seed)) in &rules {
            println!("{times} times, first by seed {seed}: {rule}");
        }
        panic!("{} of {sequences} histories break a rule, first number {}", broken.len(), n + 1);
    }
    if sequences >= SEQUENCES {
        for (rule, times) in armed.each() {
            assert!(times > sequences / 10, "proves nothing: {rule} was tried {times} times");
        }
    }
}

/// The step that a line of a log is of.
fn step(line: &str) -> &str {
    line.split(']').next().unwrap_or_default()
}

#[test]
fn the_same_seed_gives_the_same_history() {
    silence_planned_panics();
    let mut differ = Vec::new();
    for seed in 1..=variable("LARDER_MODEL_TWICE").unwrap_or(40) {
        // Those who wait for one thing are woken in any order: tokio shuffles them.
        let log = || {
            let mut log = play(seed, &BTreeSet::new()).log;
            log.sort_by(|one, other| step(one).cmp(step(other)).then_with(|| one.cmp(other)));
            log
        };
        let (first, second) = (log(), log());
        let lines = first.iter().zip(&second).position(|(one, other)| one != other);
        if let Some(line) = lines {
            let lines = line.saturating_sub(6)..line + 3;
            differ.push((seed, first[lines.clone()].to_vec(), second[lines].to_vec()));
        }
    }
    assert!(differ.is_empty(), "{} seeds: {:#?}", differ.len(), differ.first());
}
