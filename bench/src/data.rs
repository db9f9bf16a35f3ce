//! Keys and values like those of the Census API.

use std::fmt::Write;

use bytes::Bytes;
use larder::Key;

/// A generator of numbers that only have to differ: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    /// From 0 up to 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A key of 47 bytes.
pub(crate) fn key(n: usize) -> String {
    format!("census:acs5:cbsa={:05}&year=2022&vars=B01001_{:02}", n / 100, n % 100)
}

pub(crate) fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|n| Key::new(key(n))).collect()
}

/// The order in which keys are asked for: `distinct` of `count`, at random.
pub(crate) fn order(count: usize, distinct: usize) -> Vec<usize> {
    let mut dice = Dice::new(7);
    let asked: Vec<usize> = (0..distinct).map(|_| dice.below(count)).collect();
    (0..8_192).map(|_| asked[dice.below(distinct)]).collect()
}

/// A table of the Census API, as JSON of about `size` bytes; each seed gives another one.
pub(crate) fn table(size: usize, seed: u64) -> Bytes {
    let mut dice = Dice::new(seed);
    let mut text = String::from(r#"[["NAME","B01001_001E","B19013_001E","B25077_001E","cbsa"]"#);
    while text.len() < size {
        // Incomes and prices are spread by orders of magnitude.
        let mut amount =
            |from: f64, to: f64| (from * (to / from).powf(dice.share())).max(0.0).round() as u64;
        let (people, income, price) = (amount(2e3, 2e7), amount(2e4, 2e5), amount(5e4, 2e6));
        let cbsa = amount(1e4, 5e4);
        let _infallible =
            write!(text, r#",["Metro Area {cbsa}, CO","{people}","{income}","{price}","{cbsa}"]"#);
    }
    text.push(']');
    Bytes::from(text.into_bytes())
}

/// Markets as a gazetteer names them: a number, and a title in quotes.
const MARKETS: &str = include_str!("../../crates/cache-warmer/data/us_markets.csv");

/// An answer of the Census API about some of the markets there are, of about `size` bytes.
pub(crate) fn markets(size: usize, seed: u64) -> Bytes {
    let markets: Vec<(&str, &str)> = MARKETS
        .lines()
        .filter_map(|line| line.split_once(",\""))
        .filter_map(|(cbsa, rest)| Some((cbsa, rest.split_once('"')?.0)))
        .collect();
    let mut dice = Dice::new(seed);
    let mut text = String::from(
        r#"[["NAME","B01001_001E","B19013_001E","B25077_001E","metropolitan statistical area/micropolitan statistical area"]"#,
    );
    while text.len() < size {
        let (cbsa, title) = markets[dice.below(markets.len())];
        let mut amount =
            |from: f64, to: f64| (from * (to / from).powf(dice.share())).round() as u64;
        let (people, income, price) = (amount(2e3, 2e7), amount(2e4, 2e5), amount(5e4, 2e6));
        let _infallible =
            write!(text, r#",["{title} Metro Area","{people}","{income}","{price}","{cbsa}"]"#);
    }
    text.push(']');
    Bytes::from(text.into_bytes())
}

/// Bytes that cannot be compressed.
pub(crate) fn noise(size: usize, seed: u64) -> Bytes {
    let mut dice = Dice::new(seed);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(size);
    Bytes::from(bytes)
}
