//! The gazetteer: which markets exist, and which one a text means.

mod index;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, io,
    sync::LazyLock,
};

use crate::{
    market::{Coordinates, Market, MarketRecord},
    names::{Printable, canonical},
};

/// The embedded markets: name, source and licence are in `NOTICE`.
const US_MARKETS: &str = include_str!("../data/us_markets.csv");

/// A set of markets, looked up by code, title, slug or city.
#[derive(Debug)]
pub struct Gazetteer {
    /// Sorted by code.
    markets: Vec<Market>,
    /// From the canonical form of every accepted name to a place in `markets`.
    by_name: BTreeMap<String, usize>,
}

impl Gazetteer {
    /// The metropolitan and micropolitan areas of the United States.
    pub fn us() -> &'static Self {
        static US: LazyLock<Gazetteer> = LazyLock::new(us_from_embedded);
        &US
    }

    /// Reads markets from CSV with the columns `cbsa`, `title`, `kind`, `lat`, `lon`, `anchor_city`
    /// and `anchor_pop`, in any order; only `anchor_pop` may be empty.
    pub fn from_csv(reader: impl io::Read) -> Result<Self, GazetteerError> {
        let mut markets = BTreeMap::new();
        for record in csv::Reader::from_reader(reader).into_deserialize::<MarketRecord>() {
            let record = record.map_err(GazetteerError::Csv)?;
            let cbsa = record.cbsa;
            let market = Market::try_from(record)
                .map_err(|reason| GazetteerError::Market { cbsa, reason })?;
            match markets.entry(cbsa) {
                Entry::Vacant(vacant) => vacant.insert(market),
                Entry::Occupied(_) => return Err(GazetteerError::Duplicate { cbsa }),
            };
        }
        let mut markets: Vec<Market> = markets.into_values().collect();
        index::make_slugs_unique(&mut markets);
        let by_name = index::names(&markets);
        Ok(Self { markets, by_name })
    }

    /// All markets, sorted by code.
    pub fn markets(&self) -> &[Market] {
        &self.markets
    }

    /// The market with this code.
    pub fn get(&self, cbsa: u32) -> Option<&Market> {
        let place = self.markets.binary_search_by_key(&cbsa, Market::cbsa).ok()?;
        self.markets.get(place)
    }

    /// Finds the market that `text` means.
    ///
    /// Accepts a code (`14500`, `cbsa:14500`), a title or its slug, and any principal city with any
    /// of the market's states (`Boulder, CO`, `boulder co`, `boulder-co`). Case, accents and
    /// punctuation do not matter, nor does `St.` for `Saint`. Where two markets share a city, the
    /// one named after it wins, then the one with the larger anchor city.
    pub fn resolve(&self, text: &str) -> Result<&Market, UnknownMarket> {
        self.find(text).ok_or_else(|| UnknownMarket {
            given: text.trim().to_owned(),
            nearest: self.nearest(text),
        })
    }

    /// As [`Self::resolve`], without the search for names like it, which costs a thousand times more.
    pub(crate) fn find(&self, text: &str) -> Option<&Market> {
        let text = text.trim();
        match code_in(text) {
            Some(cbsa) => self.get(cbsa),
            None => self.by_name.get(&canonical(text)).and_then(|&place| self.markets.get(place)),
        }
    }

    /// The markets within `radius` miles of `market`, nearest first and without itself.
    pub fn near(&self, market: &Market, radius: f64) -> Vec<(&Market, f64)> {
        let mut near = self.around(market.coordinates(), radius);
        near.retain(|(other, _)| other.cbsa() != market.cbsa());
        near
    }

    /// The markets within `radius` miles of a place, nearest first.
    pub fn around(&self, place: Coordinates, radius: f64) -> Vec<(&Market, f64)> {
        let mut near: Vec<_> = self
            .markets
            .iter()
            .map(|other| (other, place.distance_miles(other.coordinates())))
            .filter(|&(_, miles)| miles <= radius)
            .collect();
        near.sort_by(|(a, a_miles), (b, b_miles)| {
            a_miles.total_cmp(b_miles).then(a.cbsa().cmp(&b.cbsa()))
        });
        near
    }

    /// The markets whose names look most like `text`, as a message shows them.
    fn nearest(&self, text: &str) -> Vec<String> {
        const SHOWN: usize = 3;
        // No name is longer; comparing costs the product of the two lengths.
        const COMPARED_CHARS: usize = 64;
        let wanted: String = canonical(text).chars().take(COMPARED_CHARS).collect();
        // Every accepted name counts, so that a misspelt suburb finds its metropolis.
        let mut likeness: BTreeMap<usize, f64> = BTreeMap::new();
        for (name, &place) in &self.by_name {
            let alike = strsim::jaro_winkler(&wanted, name);
            likeness.entry(place).and_modify(|best| *best = best.max(alike)).or_insert(alike);
        }
        let mut best: Vec<_> = likeness.into_iter().filter(|&(_, alike)| alike > 0.0).collect();
        best.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        best.into_iter()
            .filter_map(|(place, _)| self.markets.get(place))
            .take(SHOWN)
            .map(|market| format!("{market} ({})", market.slug()))
            .collect()
    }
}

/// No market goes by this text; says which look like it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownMarket {
    /// The text as it was given, trimmed; escape it before printing, as `Display` does.
    pub given: String,
    /// Up to three markets with similar names, each as `Boulder, CO (boulder-co)`.
    pub nearest: Vec<String>,
}

impl fmt::Display for UnknownMarket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { given, nearest } = self;
        write!(f, "unknown market `{}`", Printable(given))?;
        if !nearest.is_empty() {
            write!(f, "; nearest: {}", nearest.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownMarket {}

/// Why a gazetteer's file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GazetteerError {
    /// It could not be read, or a row does not have the form of a market.
    #[error("the gazetteer is not the CSV it should be")]
    Csv(#[source] csv::Error),
    /// A row of the right form says something that cannot be.
    #[error("market {cbsa} of the gazetteer is wrong: {reason}")]
    Market {
        /// The market's code.
        cbsa: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two rows have one code.
    #[error("market {cbsa} is in the gazetteer twice")]
    Duplicate {
        /// The code.
        cbsa: u32,
    },
}

#[expect(clippy::expect_used, reason = "the embedded file is checked by a test")]
fn us_from_embedded() -> Gazetteer {
    Gazetteer::from_csv(US_MARKETS.as_bytes()).expect("the embedded markets are sound")
}

/// The code in `14500` or `cbsa:14500`.
fn code_in(text: &str) -> Option<u32> {
    let digits = match text.split_once(':') {
        Some((prefix, digits)) if prefix.trim().eq_ignore_ascii_case("cbsa") => digits.trim(),
        Some(_) => return None,
        None => text,
    };
    // `parse` alone would accept a sign.
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::names::fold;

    fn code(text: &str) -> u32 {
        Gazetteer::us().resolve(text).map_or_else(|err| panic!("{err}"), Market::cbsa)
    }

    #[test]
    fn the_embedded_file_is_sound() {
        let parsed = Gazetteer::from_csv(US_MARKETS.as_bytes()).expect("sound");
        assert_eq!(parsed.markets().len(), 938);
        let slugs: BTreeSet<&str> = parsed.markets().iter().map(Market::slug).collect();
        assert_eq!(slugs.len(), 938, "slugs are unique");
    }

    #[test]
    fn every_market_answers_to_its_code_title_and_slugs() {
        for market in Gazetteer::us().markets() {
            let cbsa = market.cbsa();
            let names = [
                cbsa.to_string(),
                format!("cbsa:{cbsa}"),
                market.title().to_owned(),
                fold(market.title()),
                market.slug().to_owned(),
                market.name(),
            ];
            for name in names {
                assert_eq!(code(&name), cbsa, "{name}");
            }
        }
    }

    #[test]
    fn slugs_are_fit_for_urls() {
        for slug in Gazetteer::us().markets().iter().map(Market::slug) {
            let plain = slug.bytes().all(|b| b == b'-' || b.is_ascii_lowercase());
            assert!(plain && !slug.contains("--"), "{slug}");
        }
    }

    #[test]
    fn a_city_is_found_however_it_is_written() {
        for text in ["Boulder, CO", "boulder, co", "Boulder CO", "boulder-co", " BOULDER ,CO "] {
            assert_eq!(code(text), 14_500, "{text}");
        }
        for text in ["14500", " 14500 ", "cbsa:14500", "CBSA: 14500"] {
            assert_eq!(code(text), 14_500, "{text}");
        }
    }

    #[test]
    fn spelling_variants_are_one_name() {
        assert_eq!(code("Canon City, CO"), code("Cañon City, CO"));
        assert_eq!(code("Saint Louis, MO"), code("St. Louis, IL"));
        assert_eq!(code("St Paul, MN"), code("Minneapolis, MN"));
        assert_eq!(code("Coeur d’Alene, ID"), code("coeur-dalene-id"));
        assert_eq!(code("Mt. Vernon, WA"), code("Mount Vernon, WA"));
        assert_eq!(code("Washington, D.C."), 47_900);
    }

    #[test]
    fn principal_cities_and_old_titles_find_their_metropolis() {
        for (text, cbsa) in [
            ("Denver-Aurora-Lakewood, CO", 19_740),
            ("denver-aurora-lakewood-co", 19_740),
            ("Lakewood, CO", 19_740),
            ("Newark, NJ", 35_620),
            ("New York City, NY", 35_620),
            ("Boise, ID", 14_260),
            ("Louisville, KY", 31_140),
            ("Wilkes-Barre, PA", 42_540),
            ("Murfreesboro, TN", 34_980),
            ("Winston-Salem, NC", 49_180),
        ] {
            assert_eq!(code(text), cbsa, "{text}");
        }
    }

    #[test]
    fn a_shared_city_means_the_market_named_after_it() {
        assert_eq!(code("Ashland, OH"), 11_740, "not Huntington-Ashland, WV-KY-OH");
        assert_eq!(code("Warren, PA"), 47_620, "not Youngstown-Warren-Boardman, OH-PA");
    }

    #[test]
    fn unknown_markets_name_their_nearest() {
        let err = Gazetteer::us().resolve("Bolder, CO").unwrap_err();
        assert_eq!(err.nearest.len(), 3);
        assert!(
            err.to_string()
                .starts_with("unknown market `Bolder, CO`; nearest: Boulder, CO (boulder-co), "),
            "{err}"
        );
        let suburb = Gazetteer::us().resolve("Lakewod, CO").unwrap_err();
        assert!(suburb.to_string().contains("Denver, CO (denver-co)"), "{suburb}");
    }

    #[test]
    fn texts_that_mean_nothing_are_unknown() {
        for text in ["", ",", "CO", "Boulder", "99999", "+14500", "cbsa:", "zip:14500", "東京"] {
            assert!(Gazetteer::us().resolve(text).is_err(), "{text}");
        }
        assert!(Gazetteer::us().resolve(&"9".repeat(100_000)).is_err());
    }

    #[test]
    fn unknown_markets_print_no_control_characters() {
        let err = Gazetteer::us().resolve("Bo\u{1b}[31mlder").unwrap_err();
        assert!(err.to_string().starts_with("unknown market `Bo\\u{1b}[31mlder`"), "{err}");
    }

    #[test]
    fn distances_match_the_map() {
        let us = Gazetteer::us();
        let boulder = us.resolve("Boulder, CO").unwrap();
        for (name, miles) in
            [("Denver, CO", 24.4), ("Fort Collins, CO", 40.6), ("Greeley, CO", 40.9)]
        {
            let actual = crate::distance_miles(boulder, us.resolve(name).unwrap());
            assert!((actual - miles).abs() < 0.05, "{name}: {actual}");
        }
    }

    #[test]
    fn near_is_sorted_and_leaves_out_the_market_itself() {
        let us = Gazetteer::us();
        let boulder = us.resolve("Boulder, CO").unwrap();
        let names = |radius| -> Vec<String> {
            us.near(boulder, radius).into_iter().map(|(market, _)| market.name()).collect()
        };
        assert_eq!(names(41.0), ["Denver, CO", "Fort Collins, CO", "Greeley, CO"]);
        assert_eq!(names(40.7), ["Denver, CO", "Fort Collins, CO"]);
        assert_eq!(names(f64::NAN), [""; 0]);
        assert_eq!(names(f64::INFINITY).len(), 937);
    }

    #[test]
    fn bad_files_are_refused_not_fatal() {
        let header = "cbsa,title,kind,lat,lon,anchor_city,anchor_pop\n";
        let row = "14500,\"Boulder, CO\",Metro,40.0,-105.2,Boulder,\n";
        assert!(Gazetteer::from_csv(format!("{header}{row}").as_bytes()).is_ok());
        let twice = Gazetteer::from_csv(format!("{header}{row}{row}").as_bytes());
        assert!(matches!(twice, Err(GazetteerError::Duplicate { cbsa: 14_500 })));
        let nowhere = format!("{header}{row}").replace("40.0", "400");
        let nowhere = Gazetteer::from_csv(nowhere.as_bytes()).unwrap_err();
        assert!(matches!(nowhere, GazetteerError::Market { cbsa: 14_500, .. }), "{nowhere}");
        for rows in ["x", "14500,Boulder, CO,Metro,1,1,Boulder,1\n", "\u{0},,,,,,\n"] {
            let err = Gazetteer::from_csv(format!("{header}{rows}").as_bytes());
            assert!(matches!(err, Err(GazetteerError::Csv(_))), "{rows:?}");
        }
        assert!(Gazetteer::from_csv(&[0xff, 0xfe, b'\n', 0xff][..]).is_err());
    }
}
