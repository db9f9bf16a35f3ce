//! Chance that repeats itself.

/// `splitmix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014; the
/// constants are those of Vigna's public-domain `splitmix64.c`).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The dice of the `n`th of several things under one seed, whatever the others throw.
    pub(crate) const fn stream(seed: u64, n: u64) -> Self {
        Self::new(Self::new(seed).throw() ^ Self::new(!n).throw())
    }

    pub(crate) const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`, which must not be 0.
    pub(crate) const fn below(&mut self, limit: usize) -> usize {
        (self.throw() % limit as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub(crate) const fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[test]
fn it_is_splitmix64() {
    // The first outputs of the reference for seed 1234567.
    let mut dice = Dice::new(1_234_567);
    let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
    assert_eq!([dice.throw(), dice.throw()], expected);
}
