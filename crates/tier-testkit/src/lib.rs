//! For people who write Larder tiers: the promises of [`cache_core::Tier`] as tests, and a clock
//! that moves when told to.
//!
//! ```
//! # async fn example<T: cache_core::Tier>(make: impl AsyncFn(std::sync::Arc<tier_testkit::ManualClock>) -> T) {
//! tier_testkit::conformance(make).await;
//! # }
//! ```

mod clock;
mod conformance;
mod origin;

pub use clock::ManualClock;
pub use conformance::conformance;
pub use origin::CountingOrigin;
