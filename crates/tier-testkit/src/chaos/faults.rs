//! Which faults a chaos tier has, and how often.

use cache_core::ErrorKind;

use crate::dice::Dice;

/// What a tier is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// `get` and `get_many`.
    Get,
    /// `put` and `put_many`.
    Put,
    /// `remove` and `remove_many`.
    Remove,
    /// `bar`.
    Bar,
    /// `latest_stamp` of its [`Stamped`](cache_core::Stamped) side.
    Stamp,
    /// Anything of its [`Inspect`](cache_core::Inspect) side.
    Inspect,
    /// `close`.
    Close,
}

impl Call {
    /// Every kind of call.
    pub const ALL: [Self; 7] =
        [Self::Get, Self::Put, Self::Remove, Self::Bar, Self::Stamp, Self::Inspect, Self::Close];
}

/// What may go wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// It takes longer: its future yields to others a number of times. There is no timer in it, so
    /// that any runtime will do, and one whose time is paused.
    Delay,
    /// Its future waits until [`Chaos::heal`](crate::Chaos::heal), and then goes on.
    Hang,
    /// It fails, and nothing was done. A barrier is lost in this way only: never silently, which
    /// no tier may do.
    Error,
    /// It fails, but it was done; of a batch, some of its first entries were.
    /// For writes and `close`.
    Unconfirmed,
    /// A put is acknowledged and forgotten, as by a tier that loses its data; a get finds nothing,
    /// as after an eviction. For these two only.
    Lost,
    /// A put is acknowledged and carried out after some of the writes that come later, or when the
    /// tier is healed. For puts only.
    Late,
}

impl Fault {
    /// Every kind of fault.
    pub const ALL: [Self; 6] =
        [Self::Delay, Self::Hang, Self::Error, Self::Unconfirmed, Self::Lost, Self::Late];

    /// Whether a call of this kind can go wrong in this way.
    pub const fn applies_to(self, call: Call) -> bool {
        match self {
            Self::Delay | Self::Hang | Self::Error => true,
            Self::Unconfirmed => {
                matches!(call, Call::Put | Call::Remove | Call::Bar | Call::Close)
            }
            Self::Lost => matches!(call, Call::Get | Call::Put),
            Self::Late => matches!(call, Call::Put),
        }
    }
}

/// How often each fault strikes each kind of call; by default none ever does.
///
/// ```
/// use tier_testkit::{Call, Fault, Faults};
///
/// let faults = Faults::none()
///     .everywhere(Fault::Error, 0.05)
///     .everywhere(Fault::Delay, 0.5)
///     .on(Call::Put, Fault::Lost, 0.1);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    chances: [[f64; Fault::ALL.len()]; Call::ALL.len()],
    pub(super) error_kind: ErrorKind,
    most_yields: u32,
    most_overtaken: u32,
}

impl Faults {
    /// No faults.
    pub const fn none() -> Self {
        Self {
            chances: [[0.0; Fault::ALL.len()]; Call::ALL.len()],
            error_kind: ErrorKind::Unavailable,
            most_yields: 8,
            most_overtaken: 4,
        }
    }

    /// `fault` strikes calls of this kind with this probability, from 0 to 1.
    ///
    /// # Panics
    /// When it is no probability, or such a call cannot have this fault.
    #[must_use]
    pub fn on(mut self, call: Call, fault: Fault, probability: f64) -> Self {
        assert!((0.0..=1.0).contains(&probability), "{probability} is no probability");
        assert!(fault.applies_to(call), "{fault:?} is no fault of {call:?}");
        self.chances[call as usize][fault as usize] = probability;
        self
    }

    /// `fault` strikes every call that can have it with this probability, from 0 to 1.
    ///
    /// # Panics
    /// When it is no probability.
    #[must_use]
    pub fn everywhere(self, fault: Fault, probability: f64) -> Self {
        let calls = Call::ALL.into_iter().filter(|call| fault.applies_to(*call));
        calls.fold(self, |faults, call| faults.on(call, fault, probability))
    }

    /// Kind of the errors. Default: [`ErrorKind::Unavailable`].
    #[must_use]
    pub fn error_kind(mut self, kind: ErrorKind) -> Self {
        self.error_kind = kind;
        self
    }

    /// A delay yields from once to so many times. Default: 8.
    #[must_use]
    pub fn delay_yields(mut self, most: u32) -> Self {
        self.most_yields = most;
        self
    }

    /// A late put is overtaken by one to so many later writes. Default: 4.
    #[must_use]
    pub fn late_by(mut self, most: u32) -> Self {
        self.most_overtaken = most;
        self
    }

    /// What becomes of a call. Always takes as many numbers, so that a change of one probability
    /// leaves the other faults where they were.
    pub(super) fn draw(&self, call: Call, random: &mut Dice) -> Fate {
        let mut fate = Fate::default();
        for fault in Fault::ALL {
            if random.fraction() < self.chances[call as usize][fault as usize] {
                fate.meets(fault);
            }
        }
        fate.yields = 1 + random.below(self.most_yields.max(1) as usize);
        fate.overtaken_by = 1 + random.below(self.most_overtaken.max(1) as usize);
        fate.chance = random.throw();
        fate
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// What becomes of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    pub(super) delayed: bool,
    pub(super) hangs: bool,
    /// One of the other faults.
    pub(super) end: Option<Fault>,
    pub(super) yields: usize,
    pub(super) overtaken_by: usize,
    /// Decides how much of an unconfirmed batch is done.
    pub(super) chance: u64,
}

impl Fate {
    /// The first of the faults that exclude each other counts.
    pub(super) fn meets(&mut self, fault: Fault) {
        match fault {
            Fault::Delay => self.delayed = true,
            Fault::Hang => self.hangs = true,
            _ => self.end = self.end.or(Some(fault)),
        }
    }

    pub(super) fn faults(&self) -> impl Iterator<Item = Fault> {
        let delay = self.delayed.then_some(Fault::Delay);
        let hang = self.hangs.then_some(Fault::Hang);
        delay.into_iter().chain(hang).chain(self.end)
    }
}
