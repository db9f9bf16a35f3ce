//! The documents of the demonstration: three per market, from about 1 KB to about 150 KB.
//!
//! They are computed from the gazetteer, so that every run and every machine sees the same bytes.

use bytes::Bytes;
use cache_warmer::{Gazetteer, Market, bearing_degrees, distance_miles};
use serde::Serialize;

/// Markets that a `profile` lists.
const PROFILE_NEAREST: usize = 5;

/// Markets that a `neighbors` document lists.
const NEIGHBORS: usize = 110;

/// Rows and columns of the matrix in a `distances` document.
const MATRIX: usize = 154;

/// A kind of document: one source of the demonstration's origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Document {
    /// About 1 KB: what the gazetteer knows of a market.
    Profile,
    /// About 15 KB: the markets around it.
    Neighbors,
    /// About 150 KB: how far the markets around it are from each other.
    Distances,
}

impl Document {
    /// All kinds, smallest first.
    pub(crate) const ALL: [Self; 3] = [Self::Profile, Self::Neighbors, Self::Distances];

    /// The name of the source.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Neighbors => "neighbors",
            Self::Distances => "distances",
        }
    }

    /// The kind of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|document| document.name() == name)
    }

    /// The document about `market`, as JSON.
    pub(crate) fn render(
        self,
        gazetteer: &Gazetteer,
        market: &Market,
    ) -> serde_json::Result<Bytes> {
        let json = match self {
            Self::Profile => serde_json::to_vec(&Profile::new(gazetteer, market)),
            Self::Neighbors => serde_json::to_vec(&Neighbors::new(gazetteer, market)),
            Self::Distances => serde_json::to_vec(&Distances::new(gazetteer, market)),
        };
        json.map(Bytes::from)
    }
}

// Structs, not maps: their fields keep their order whatever features serde_json is built with.

#[derive(Serialize)]
struct Profile<'g> {
    #[serde(flatten)]
    market: Place<'g>,
    slug: &'g str,
    name: String,
    cities: &'g [String],
    states: &'g [String],
    latitude: f64,
    longitude: f64,
    anchor_city: &'g str,
    anchor_population: Option<u64>,
    population_rank: Option<usize>,
    ranked_markets: usize,
    nearest: Vec<Neighbor<'g>>,
}

#[derive(Serialize)]
struct Neighbors<'g> {
    #[serde(flatten)]
    market: Place<'g>,
    neighbors: Vec<Neighbor<'g>>,
}

#[derive(Serialize)]
struct Distances<'g> {
    #[serde(flatten)]
    market: Place<'g>,
    unit: &'static str,
    /// What rows and columns of `miles` stand for; the market itself is the first.
    markets: Vec<Place<'g>>,
    miles: Vec<Vec<f64>>,
}

#[derive(Serialize)]
struct Place<'g> {
    cbsa: u32,
    title: &'g str,
}

#[derive(Serialize)]
struct Neighbor<'g> {
    cbsa: u32,
    title: &'g str,
    kind: &'static str,
    distance_miles: f64,
    bearing_degrees: f64,
    population: Option<u64>,
}

impl<'g> Profile<'g> {
    fn new(gazetteer: &'g Gazetteer, market: &'g Market) -> Self {
        let populations = || gazetteer.markets().iter().filter_map(Market::anchor_population);
        let population = market.anchor_population();
        Self {
            market: place(market),
            slug: market.slug(),
            name: market.name(),
            cities: market.cities(),
            states: market.states(),
            latitude: market.lat(),
            longitude: market.lon(),
            anchor_city: market.anchor_city(),
            anchor_population: population,
            population_rank: population
                .map(|own| 1 + populations().filter(|&other| other > own).count()),
            ranked_markets: populations().count(),
            nearest: nearest(gazetteer, market, PROFILE_NEAREST),
        }
    }
}

impl<'g> Neighbors<'g> {
    fn new(gazetteer: &'g Gazetteer, market: &'g Market) -> Self {
        Self { market: place(market), neighbors: nearest(gazetteer, market, NEIGHBORS) }
    }
}

impl<'g> Distances<'g> {
    fn new(gazetteer: &'g Gazetteer, market: &'g Market) -> Self {
        let near = gazetteer.near(market, f64::INFINITY).into_iter().map(|(other, _)| other);
        let around: Vec<&Market> = [market].into_iter().chain(near).take(MATRIX).collect();
        let row =
            |from: &&Market| around.iter().map(|to| tenths(distance_miles(from, to))).collect();
        Self {
            market: place(market),
            unit: "miles",
            markets: around.iter().map(|market| place(market)).collect(),
            miles: around.iter().map(row).collect(),
        }
    }
}

fn place(market: &Market) -> Place<'_> {
    Place { cbsa: market.cbsa(), title: market.title() }
}

/// The `count` markets nearest to `market`.
fn nearest<'g>(gazetteer: &'g Gazetteer, market: &Market, count: usize) -> Vec<Neighbor<'g>> {
    let near = gazetteer.near(market, f64::INFINITY).into_iter().take(count);
    near.map(|(other, miles)| Neighbor {
        cbsa: other.cbsa(),
        title: other.title(),
        kind: other.kind().as_str(),
        distance_miles: tenths(miles),
        // A full turn is north again.
        bearing_degrees: tenths(bearing_degrees(market, other)) % 360.0,
        population: other.anchor_population(),
    })
    .collect()
}

/// Rounds to one decimal.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use serde_json::Value;

    use super::*;

    fn render(document: Document, name: &str) -> Bytes {
        let us = Gazetteer::us();
        document.render(us, us.resolve(name).expect("a market")).expect("renders")
    }

    fn value(document: Document, name: &str) -> Value {
        serde_json::from_slice(&render(document, name)).expect("is JSON")
    }

    /// The dense east, the sparse west, and the far corners.
    const MARKETS: [&str; 7] = [
        "Boulder, CO",
        "New York, NY",
        "Los Angeles, CA",
        "Minneapolis, MN",
        "Anchorage, AK",
        "Hilo, HI",
        "San Juan, PR",
    ];

    fn assert_sizes(document: Document, sizes: &RangeInclusive<usize>) {
        for market in MARKETS {
            let len = render(document, market).len();
            assert!(sizes.contains(&len), "{} of {market}: {len} bytes", document.name());
        }
    }

    #[test]
    fn documents_have_three_sizes() {
        assert_sizes(Document::Profile, &(700..=1_400));
        assert_sizes(Document::Neighbors, &(12_000..=18_000));
        assert_sizes(Document::Distances, &(130_000..=170_000));
    }

    #[test]
    fn names_lead_back_to_their_documents() {
        for document in Document::ALL {
            assert_eq!(Document::from_name(document.name()), Some(document));
        }
        assert_eq!(Document::from_name("Profile"), None);
    }

    #[test]
    fn a_profile_says_what_and_where_a_market_is() {
        let profile = value(Document::Profile, "Denver, CO");
        assert_eq!(profile["cbsa"], 19_740);
        assert_eq!(profile["slug"], "denver-co");
        assert_eq!(profile["states"][0], "CO");
        assert_eq!(profile["nearest"].as_array().map(Vec::len), Some(5));
        assert_eq!(profile["nearest"][0]["title"], "Boulder, CO");
        assert_eq!(profile["nearest"][0]["distance_miles"], 24.4);
        assert_eq!(value(Document::Profile, "New York, NY")["population_rank"], 1);
    }

    #[test]
    fn neighbors_come_nearest_first() {
        let document = value(Document::Neighbors, "Boulder, CO");
        let neighbors = document["neighbors"].as_array().expect("a list");
        let miles: Vec<f64> =
            neighbors.iter().filter_map(|n| n["distance_miles"].as_f64()).collect();
        assert_eq!(miles.len(), NEIGHBORS);
        assert!(miles.is_sorted());
        assert_eq!(neighbors[0]["title"], "Denver-Aurora-Lakewood, CO");
        let bearing = neighbors[0]["bearing_degrees"].as_f64().expect("a number");
        assert!((130.0..150.0).contains(&bearing), "Denver lies south-east: {bearing}");
    }

    #[test]
    fn distances_are_a_symmetric_matrix() {
        let document = value(Document::Distances, "Boulder, CO");
        let side = document["markets"].as_array().map(Vec::len);
        assert_eq!(side, Some(MATRIX));
        assert_eq!(document["miles"].as_array().map(Vec::len), side);
        assert_eq!(document["markets"][0]["cbsa"], 14_500);
        assert_eq!(document["miles"][0][0], 0.0);
        assert_eq!(document["miles"][0][1], 24.4);
        assert_eq!(document["miles"][3][70], document["miles"][70][3]);
    }

    #[test]
    fn rendering_twice_gives_the_same_bytes() {
        for document in Document::ALL {
            assert_eq!(render(document, "Boulder, CO"), render(document, "14500"));
        }
        let profile = render(Document::Profile, "Boulder, CO");
        assert!(profile.starts_with(br#"{"cbsa":14500,"title":"Boulder, CO","slug":"boulder-co""#));
    }
}
