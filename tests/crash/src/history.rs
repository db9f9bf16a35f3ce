//! What may be in a file after what its writers said, and whether that is what is there.
//!
//! Of operations that overlapped either may be the later one; of others, the one that began after
//! the other had returned is. What had not returned may have been done, as a whole, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    lines::Work,
    names::{Id, Name},
};

/// What is stored under a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Who set what is there.
    pub(crate) value: Option<Id>,
    pub(crate) stale: bool,
}

/// What is in a file.
pub(crate) type States = BTreeMap<Name, State>;

/// An operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: Id,
    pub(crate) work: Work,
    pub(crate) began: u64,
    /// When it had returned or its process was dead, whichever came first.
    pub(crate) ended: u64,
    /// Whether it has returned, and of each key that it set, whether it was stored.
    pub(crate) returned: Option<Vec<bool>>,
}

/// What a look into a file came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judged {
    /// Keys that could be in one state only.
    pub(crate) decided: usize,
    /// Operations that had not returned and were done nevertheless.
    pub(crate) done: BTreeSet<Id>,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
}

/// Something that gave a key its value, or none.
struct Claim<'a> {
    value: Option<Id>,
    began: u64,
    ended: u64,
    sure: bool,
    stored: bool,
    by: Option<&'a Operation>,
}

/// Compares what is `seen` with what was there `before` and the operations since.
pub(crate) fn judge(before: &States, operations: &[Operation], seen: &States) -> Judged {
    let mut done = BTreeSet::new();
    // What only one operation can have done says that it was done, all of it.
    loop {
        let judged = judge_once(before, operations, seen, &done);
        if judged.done.len() == done.len() || !judged.wrong.is_empty() {
            return judged;
        }
        done = judged.done;
    }
}

fn judge_once(
    before: &States,
    operations: &[Operation],
    seen: &States,
    done: &BTreeSet<Id>,
) -> Judged {
    let mut judged = Judged { done: done.clone(), ..Judged::default() };
    for name in Name::all() {
        let was = before.get(&name).copied().unwrap_or_default();
        let is = seen.get(&name).copied().unwrap_or_default();
        let sure =
            |operation: &Operation| operation.returned.is_some() || done.contains(&operation.id);
        let mut claims = vec![Claim {
            value: was.value,
            began: 0,
            ended: 0,
            sure: true,
            stored: true,
            by: None,
        }];
        let mut expiries = Vec::new();
        for by in operations {
            let (value, stored) = match &by.work {
                Work::Set(names) => {
                    let Some(place) = names.iter().position(|set| *set == name) else { continue };
                    let stored = by.returned.as_ref().and_then(|stored| stored.get(place));
                    (Some(by.id), stored.copied().unwrap_or(true))
                }
                Work::Forget(scope) if scope.covers(name) => (None, true),
                Work::Expire(scope) if scope.covers(name) => {
                    expiries.push(by);
                    continue;
                }
                Work::Forget(_) | Work::Expire(_) => continue,
            };
            let (began, ended) = (by.began, by.ended);
            claims.push(Claim { value, began, ended, sure: sure(by), stored, by: Some(by) });
        }
        let latest = claims.iter().filter(|claim| claim.sure).map(|claim| claim.began).max();
        let latest = latest.unwrap_or(0);
        let possible: Vec<&Claim<'_>> =
            claims.iter().filter(|claim| claim.stored && claim.ended >= latest).collect();
        let values: BTreeSet<Option<Id>> = possible.iter().map(|claim| claim.value).collect();
        judged.decided += usize::from(values.len() == 1);
        let fitting: Vec<&&Claim<'_>> =
            possible.iter().filter(|claim| claim.value == is.value).collect();
        match fitting.as_slice() {
            [] => judged.wrong.push(wrong_value(name, is, &claims, &values)),
            [Claim { sure: false, by: Some(by), .. }] => {
                judged.done.insert(by.id);
            }
            _ => {}
        }
        // A value is set once: there is one claim for it.
        let Some(claim) = fitting.first().filter(|claim| claim.value.is_some()) else { continue };
        let stale_before = claim.by.is_none() && was.stale;
        let after = |by: &&Operation| by.ended >= claim.began;
        let must = expiries.iter().copied().filter(|by| sure(by) && by.began > claim.ended);
        let may: Vec<&Operation> = expiries.iter().copied().filter(after).collect();
        if is.stale && !stale_before {
            match may.as_slice() {
                [] => judged.wrong.push(format!("{name} is stale, and nothing made it so")),
                [by] => _ = judged.done.insert(by.id),
                _ => {}
            }
        } else if !is.stale && (stale_before || must.clone().next().is_some()) {
            let by: Vec<String> = must.map(|by| by.id.to_string()).collect();
            let by = if stale_before { "before".to_owned() } else { by.join(", ") };
            judged.wrong.push(format!("{name} is fresh, though it was expired by {by}: undone"));
        }
    }
    // Those that returned need no proof.
    judged.done.retain(|id| operations.iter().any(|by| by.id == *id && by.returned.is_none()));
    judged
}

fn wrong_value(
    name: Name,
    is: State,
    claims: &[Claim<'_>],
    values: &BTreeSet<Option<Id>>,
) -> String {
    let shown = |value: &Option<Id>| value.map_or("nothing".to_owned(), |id| format!("value {id}"));
    let claimed = claims.iter().find(|claim| claim.value == is.value);
    let removed_after = |claim: &Claim<'_>| {
        let later = |other: &Claim<'_>| other.sure && other.began > claim.ended;
        claims.iter().any(|other| other.value.is_none() && later(other))
    };
    let what = match claimed {
        _ if is.value.is_none() => "an acknowledged write is lost",
        None => "it is nobody's",
        Some(claim) if !claim.stored => "it was said not to be stored",
        Some(claim) if removed_after(claim) => "an acknowledged removal is undone",
        Some(_) => "an acknowledged write is lost, an older one is there",
    };
    let possible: Vec<String> = values.iter().map(shown).collect();
    let mut text = format!(
        "{name} has {}: {what}; it should have {}",
        shown(&is.value),
        possible.join(" or ")
    );
    for claim in claims.iter().rev().take(6).rev() {
        let by = claim.by.map_or("before".to_owned(), |by| by.id.to_string());
        let (began, ended) = (claim.began / 1_000, claim.ended / 1_000);
        let end = if claim.sure { "returned" } else { "killed" };
        // Writing to a text does not fail.
        _ = write!(text, "\n      {by}: {}, {began} to {ended} us, {end}", shown(&claim.value));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Scope;

    const A: Name = Name { source: 0, number: 0 };
    /// Of the same group.
    const B: Name = Name { source: 0, number: 4 };

    fn id(number: u32) -> Id {
        Id { life: 0, number }
    }

    fn operation(number: u32, work: Work, began: u64, ended: u64) -> Operation {
        let stored =
            if let Work::Set(names) = &work { vec![true; names.len()] } else { Vec::new() };
        Operation { id: id(number), work, began, ended, returned: Some(stored) }
    }

    fn killed(number: u32, work: Work, began: u64) -> Operation {
        Operation { returned: None, ..operation(number, work, began, u64::MAX) }
    }

    fn set(names: &[Name]) -> Work {
        Work::Set(names.to_vec())
    }

    fn seen(states: &[(Name, u32, bool)]) -> States {
        let state = |number, stale| State { value: Some(id(number)), stale };
        states.iter().map(|&(name, number, stale)| (name, state(number, stale))).collect()
    }

    fn judged(operations: &[Operation], states: &[(Name, u32, bool)]) -> Judged {
        judge(&States::new(), operations, &seen(states))
    }

    fn wrong(operations: &[Operation], states: &[(Name, u32, bool)]) -> String {
        judged(operations, states).wrong.join("\n")
    }

    #[test]
    fn a_write_that_returned_is_there_and_no_older_one() {
        let both = [operation(1, set(&[A]), 1, 2), operation(2, set(&[A]), 3, 4)];
        assert_eq!(wrong(&both, &[(A, 2, false)]), "");
        assert!(wrong(&both, &[(A, 1, false)]).contains("an older one is there"));
        assert!(wrong(&both, &[]).contains("write is lost"));
        assert!(wrong(&both, &[(A, 9, false)]).contains("nobody's"));
    }

    #[test]
    fn of_writes_that_overlap_either_may_be_there_but_one_is() {
        let both = [operation(1, set(&[A]), 1, 4), operation(2, set(&[A]), 3, 5)];
        assert_eq!(wrong(&both, &[(A, 1, false)]) + &wrong(&both, &[(A, 2, false)]), "");
        assert!(wrong(&both, &[]).contains("lost"));
        let mut outdone = both;
        outdone[1].returned = Some(vec![false]);
        assert!(wrong(&outdone, &[(A, 2, false)]).contains("not to be stored"));
    }

    #[test]
    fn what_was_removed_stays_away_until_it_is_set_again() {
        let purge = Work::Forget(A.group());
        let gone = [operation(1, set(&[A]), 1, 2), operation(2, purge.clone(), 3, 4)];
        assert_eq!(wrong(&gone, &[]), "");
        assert!(wrong(&gone, &[(A, 1, false)]).contains("removal is undone"));
        let again = [gone[0].clone(), gone[1].clone(), killed(3, set(&[A]), 5)];
        assert_eq!(wrong(&again, &[]) + &wrong(&again, &[(A, 3, false)]), "");
        let other =
            [operation(1, set(&[A]), 1, 2), operation(2, Work::Forget(Scope::Source(1)), 3, 4)];
        assert!(wrong(&other, &[]).contains("lost"));
    }

    #[test]
    fn what_did_not_return_was_done_as_a_whole_or_not() {
        let batch = [operation(1, set(&[B]), 1, 2), killed(2, set(&[A, B]), 3)];
        assert_eq!(wrong(&batch, &[(B, 1, false)]), "");
        let whole = judged(&batch, &[(A, 2, false), (B, 2, false)]);
        assert!(whole.wrong.is_empty() && whole.done.contains(&id(2)));
        assert!(wrong(&batch, &[(A, 2, false), (B, 1, false)]).contains("an older one"));
        let purge = [operation(1, set(&[A, B]), 1, 2), killed(2, Work::Forget(A.group()), 3)];
        assert_eq!(wrong(&purge, &[]) + &wrong(&purge, &[(A, 1, false), (B, 1, false)]), "");
        assert!(wrong(&purge, &[(B, 1, false)]).contains("removal is undone"));
    }

    #[test]
    fn what_was_expired_is_stale_until_it_is_set_again() {
        let expire = Work::Expire(Scope::Key(A));
        let stale = [operation(1, set(&[A]), 1, 2), operation(2, expire.clone(), 3, 4)];
        assert_eq!(wrong(&stale, &[(A, 1, true)]), "");
        assert!(wrong(&stale, &[(A, 1, false)]).contains("undone"));
        let maybe = [operation(1, set(&[A]), 1, 2), killed(2, expire, 3)];
        assert_eq!(wrong(&maybe, &[(A, 1, true)]) + &wrong(&maybe, &[(A, 1, false)]), "");
        assert!(wrong(&maybe[..1], &[(A, 1, true)]).contains("nothing made it so"));
        let before = seen(&[(A, 1, true)]);
        assert!(judge(&before, &[], &before).wrong.is_empty());
        assert!(!judge(&before, &[], &seen(&[(A, 1, false)])).wrong.is_empty());
        let again = [operation(2, set(&[A]), 3, 4)];
        assert!(judge(&before, &again, &seen(&[(A, 2, false)])).wrong.is_empty());
    }
}
