//! For people who write [Larder](https://github.com/larder-cache/larder) tiers, and for those who
//! test what is built on them.
//!
//! A tier implements [`cache_core::Tier`], whose documentation lists what it promises. [`conformance`]
//! checks the promises one by one; when it panics, the message says which one is broken. It needs
//! no particular async runtime:
//!
//! ```
//! use tier_testkit::conformance;
//! # // Stands for the tier of whoever reads this.
//! # mod my_tier {
//! #     pub use tier_memory::MemoryTier as MyTier;
//! # }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! // In a test; each tier is to be empty, and to read time from the clock it is given.
//! conformance(async |clock| my_tier::MyTier::with_clock(16 << 20, clock)).await;
//! # });
//! ```
//!
//! `examples/third_party_tier.rs` is a whole tier in under a hundred lines that passes.
//!
//! What a tier does when what it stands on fails, nobody but its author can provoke. What is built
//! on it can be tried with a [`ChaosTier`], which fails as it is told to, and in the same way each
//! time:
//!
//! ```
//! use cache_core::{Entry, Key, Stamp, Tier};
//! use tier_memory::MemoryTier;
//! use tier_testkit::{Call, ChaosTier, Fault, Faults};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let tier = ChaosTier::new("flaky", MemoryTier::new(1 << 20), 7);
//! let chaos = tier.chaos();
//! let (key, entry) = (Key::new("census:a"), Entry::builder("v", Stamp::ZERO).build());
//!
//! chaos.next(Call::Put, Fault::Lost);
//! assert!(tier.put(&key, &entry).await?.is_stored(), "it says so");
//! assert_eq!(tier.get(&key).await?, None);
//!
//! chaos.set(Faults::none().everywhere(Fault::Error, 0.1).on(Call::Get, Fault::Delay, 0.5));
//! chaos.down(true);
//! assert!(tier.get(&key).await.is_err());
//!
//! chaos.heal();
//! assert_eq!(tier.get(&key).await?, None);
//! assert_eq!((chaos.calls(Call::Get), chaos.faults(Fault::Error)), (3, 1));
//! # Ok::<(), cache_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! Beside these there are a [`ManualClock`], which stands still until a test moves it, and a
//! [`CountingOrigin`], which counts what it is asked and answers as it is told, and [`Dice`], whose throws follow
//! from a seed.

mod chaos;
mod clock;
mod conformance;
mod dice;
mod origin;

pub use chaos::{Call, Chaos, ChaosTier, Fault, Faults};
pub use clock::ManualClock;
pub use conformance::conformance;
pub use dice::Dice;
pub use origin::CountingOrigin;
