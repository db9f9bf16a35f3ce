//! The suite finds each flaw, and says which promise it breaks.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

mod flawed;

use std::panic::AssertUnwindSafe;

use flawed::{Flaw, FlawedTier};
use futures_util::FutureExt as _;
use tier_testkit::conformance;

const UNCHANGED: &str = "get returns what was put, unchanged";
const FIELDS: &str = "get returns every field as it was put";
const LIFETIME: &str = "stale is returned, dead is not";
const LAST: &str = "the entry loaded last stays";
const FORGOTTEN: &str = "nothing loaded before a barrier is stored or served";
const EXPIRED: &str = "what was loaded before a barrier that expires it is returned, stale";
const UNTOUCHED: &str = "a barrier leaves alone what it does not cover";
const SCAN: &str = "scan finds what matches, in the order of keys";

const FLAWS: [(Flaw, &str); 53] = [
    (Flaw::LosesTags, UNCHANGED),
    (Flaw::LosesEmptyTexts, "an empty text is not none"),
    (Flaw::LosesAbsent, FIELDS),
    (Flaw::LosesOwnLifetime, FIELDS),
    (Flaw::LosesExpired, FIELDS),
    (Flaw::LosesLoadedAt, FIELDS),
    (Flaw::ServesDead, LIFETIME),
    (Flaw::HidesStale, LIFETIME),
    (Flaw::LastWriteWins, LAST),
    (Flaw::EqualStampReplaces, "the entry loaded last stays: equal stamp"),
    (Flaw::EqualStampNeverReplaces, "an equal stamp replaces what is dead"),
    (Flaw::OlderReplacesTheDead, "an older load never replaces a newer one, dead or not"),
    (Flaw::CaseInsensitiveKeys, "keys are kept apart"),
    (Flaw::StoresUnstorableKeys, "a key that cannot be stored is refused"),
    (Flaw::RemoveSaysNothing, "remove tells that there was one"),
    (Flaw::RemoveIsABarrier, "a removal is no barrier"),
    (Flaw::FailsOnAMiss, "get: a healthy tier does not fail"),
    (Flaw::SortsBatches, "get_many answers in the order of its keys"),
    (Flaw::ReversesOutcomes, "put_many tells each outcome, in order"),
    (Flaw::RemovesOnlyTheFirst, "remove_many counts what went"),
    (Flaw::BatchesSkipBarriers, "batches obey barriers as single calls do"),
    (Flaw::ForgetsBarriers, FORGOTTEN),
    (Flaw::RemembersOnlyTheLast, "whichever of two barriers comes first"),
    (Flaw::LateBarrierReplaces, "what a barrier forgets is never served"),
    (Flaw::OneEffectPerSelector, "in the same state in whatever order"),
    (Flaw::BarsEverythingSelected, "a barrier that is set again changes nothing"),
    (Flaw::ExcludesTheInstant, "what a barrier forgets is never served"),
    (Flaw::IgnoresExpire, "bar tells how many entries it made stale"),
    (Flaw::ExpireForgets, EXPIRED),
    (Flaw::ExpireCutsLimits, EXPIRED),
    (Flaw::ExpireOnlyWhatIsThere, EXPIRED),
    (Flaw::ExpireAfterForgetRevives, "whichever of two barriers comes first"),
    (Flaw::PutAgainRefreshes, "an expired entry is not made fresh by putting it again"),
    (Flaw::CountsAgain, "a barrier that is set again changes nothing"),
    (Flaw::PrefixByCharacters, UNTOUCHED),
    (Flaw::PrefixTagIgnoresTheTag, UNTOUCHED),
    (Flaw::AnyVersionIsNone, "what a barrier forgets is never served"),
    (Flaw::OtherVersionOfAnySource, UNTOUCHED),
    (Flaw::TagsAddUp, "an entry has the tags of its latest write only"),
    (Flaw::ComparesTooEarly, "of puts at the same time the latest load stays"),
    (Flaw::JudgesTooEarly, "a barrier covers puts that are under way with it"),
    (Flaw::WritesInTwoSteps, "a dropped put leaves each entry wholly written or untouched"),
    (Flaw::BarsInTwoSteps, "a dropped bar leaves each entry wholly written or untouched"),
    (Flaw::SyncSideServesDead, "both sides of a tier agree"),
    (Flaw::ScansByCharacters, SCAN),
    (Flaw::ScansUnsorted, SCAN),
    (Flaw::ScansWithoutAfter, "scan goes on after a key, up to a limit"),
    (Flaw::SummariesAreFresh, "a summary says whether the entry was made stale"),
    (Flaw::UsageCountsWrites, "usage counts what is stored, by source"),
    (Flaw::RemovesTheLiving, "remove_dead removes the dead, and only them"),
    (Flaw::StampsOfEntriesOnly, "no stamp in the tier exceeds its latest"),
    (Flaw::PanicsWhenClosed, "a closed tier answers or fails, it does not panic"),
    (Flaw::ReturnsAnythingWhenClosed, "a closed tier returns what was put, or nothing"),
];

/// What the suite says about a tier with this flaw.
async fn verdict(flaw: Flaw) -> Result<(), String> {
    let suite = conformance(async |clock| FlawedTier::new(flaw, clock));
    let result = AssertUnwindSafe(suite).catch_unwind().await;
    result.map_err(|panic| match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or_default().to_owned(),
    })
}

#[tokio::test]
async fn a_sound_tier_passes() {
    assert_eq!(verdict(Flaw::None).await, Ok(()));
}

#[tokio::test]
async fn every_flaw_is_found_and_its_promise_named() {
    let mut wrong = Vec::new();
    for (flaw, promise) in FLAWS {
        let found = verdict(flaw).await.err();
        let named = |message: &String| {
            let (_, said) = message.split_once("promise broken: ").unwrap_or_default();
            said.contains(promise)
        };
        if !found.as_ref().is_some_and(named) {
            wrong.push(format!("{flaw:?}: not {promise:?} but {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
