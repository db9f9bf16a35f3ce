//! A market: one metropolitan or micropolitan area, and where it lies from another.

use std::{collections::BTreeMap, fmt};

use crate::names::{fold, split_title};

/// Mean radius of the earth, in miles.
const EARTH_RADIUS_MILES: f64 = 3958.8;

/// Size class of a market, by the population of its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarketKind {
    /// A metropolitan area: a core of 50,000 people or more.
    Metro,
    /// A micropolitan area: a core of 10,000 to 50,000 people.
    Micro,
}

impl MarketKind {
    /// `Metro` or `Micro`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metro => "Metro",
            Self::Micro => "Micro",
        }
    }
}

impl fmt::Display for MarketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One core-based statistical area.
///
/// Its coordinates and population are those of its anchor city, not of the whole area.
///
/// Invariant: the title has the form `cities, states`, with one city and one state or more.
#[derive(Debug, Clone, PartialEq)]
pub struct Market {
    cbsa: u32,
    title: String,
    kind: MarketKind,
    lat: f64,
    lon: f64,
    anchor_city: String,
    anchor_population: Option<u64>,
    slug: String,
    cities: Vec<String>,
    states: Vec<String>,
}

/// What a gazetteer's file says of a market.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct MarketRecord {
    pub(crate) cbsa: u32,
    pub(crate) title: String,
    pub(crate) kind: String,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    pub(crate) anchor_city: String,
    pub(crate) anchor_pop: Option<u64>,
}

impl TryFrom<MarketRecord> for Market {
    type Error = &'static str;

    fn try_from(record: MarketRecord) -> Result<Self, Self::Error> {
        let MarketRecord { cbsa, title, kind, lat, lon, anchor_city, anchor_pop } = record;
        if !(10_000..100_000).contains(&cbsa) {
            return Err("the CBSA code must have five digits");
        }
        let kind = match kind.as_str() {
            "Metro" => MarketKind::Metro,
            "Micro" => MarketKind::Micro,
            _ => return Err("the kind must be Metro or Micro"),
        };
        if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
            return Err("the coordinates must be degrees of latitude and longitude");
        }
        let parts = split_title(&title, &anchor_city)
            .ok_or("the title must look like `Denver-Aurora-Lakewood, CO`")?;
        let cities: Vec<String> = parts.cities.into_iter().map(str::to_owned).collect();
        let states: Vec<String> = parts.states.into_iter().map(str::to_owned).collect();
        let mut market = Self {
            cbsa,
            title,
            kind,
            lat,
            lon,
            anchor_city,
            anchor_population: anchor_pop,
            slug: String::new(),
            cities,
            states,
        };
        market.slug = fold(&market.name());
        Ok(market)
    }
}

impl Market {
    /// The five-digit code of the area; it outlives changes of the title.
    pub fn cbsa(&self) -> u32 {
        self.cbsa
    }

    /// The official title, such as `Denver-Aurora-Lakewood, CO`.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Metropolitan or micropolitan.
    pub fn kind(&self) -> MarketKind {
        self.kind
    }

    /// Latitude of the anchor city, in degrees north.
    pub fn lat(&self) -> f64 {
        self.lat
    }

    /// Longitude of the anchor city, in degrees east: negative in the Americas.
    pub fn lon(&self) -> f64 {
        self.lon
    }

    /// Where its anchor city is.
    pub fn coordinates(&self) -> Coordinates {
        Coordinates { lat: self.lat, lon: self.lon }
    }

    /// The city whose coordinates and population stand for the market, as `GeoNames` writes it.
    pub fn anchor_city(&self) -> &str {
        &self.anchor_city
    }

    /// Population of the anchor city.
    pub fn anchor_population(&self) -> Option<u64> {
        self.anchor_population
    }

    /// Short name for URLs and tags, such as `denver-co`; unique in its gazetteer.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// The first city of the title, such as `Denver`.
    pub fn city(&self) -> &str {
        self.cities.first().map_or("", String::as_str)
    }

    /// The principal cities, in the title's order.
    pub fn cities(&self) -> &[String] {
        &self.cities
    }

    /// The first state of the title, such as `CO`.
    pub fn state(&self) -> &str {
        self.states.first().map_or("", String::as_str)
    }

    /// The states it lies in, in the title's order.
    pub fn states(&self) -> &[String] {
        &self.states
    }

    /// First city and first state, such as `Denver, CO`.
    pub fn name(&self) -> String {
        format!("{}, {}", self.city(), self.state())
    }

    /// What a URL template may ask of a market: `cbsa`, `slug`, `name`, `city`, `state`, `lat`, `lon`.
    pub fn params(&self) -> BTreeMap<String, String> {
        [
            ("cbsa", self.cbsa.to_string()),
            ("slug", self.slug.clone()),
            ("name", self.name()),
            ("city", self.city().to_owned()),
            ("state", self.state().to_owned()),
            ("lat", self.lat.to_string()),
            ("lon", self.lon.to_string()),
        ]
        .into_iter()
        .map(|(param, value)| (param.to_owned(), value))
        .collect()
    }

    /// Gives the market another slug; only a gazetteer knows which are taken.
    pub(crate) fn set_slug(&mut self, slug: String) {
        self.slug = slug;
    }
}

impl fmt::Display for Market {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.city(), self.state())
    }
}

/// A place on the earth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinates {
    lat: f64,
    lon: f64,
}

impl Coordinates {
    /// Degrees north, -90 to 90, and degrees east, -180 to 180; `None` for anything else.
    pub fn new(lat: f64, lon: f64) -> Option<Self> {
        let is_place = (-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon);
        is_place.then_some(Self { lat, lon })
    }

    /// Degrees north.
    pub fn lat(self) -> f64 {
        self.lat
    }

    /// Degrees east: negative in the Americas.
    pub fn lon(self) -> f64 {
        self.lon
    }

    /// Great-circle distance in miles, by the haversine formula, on a sphere of the earth's mean radius:
    /// within 0.5 % of that on the ellipsoid.
    pub fn distance_miles(self, to: Self) -> f64 {
        let half_lat = (to.lat - self.lat).to_radians() / 2.0;
        let half_lon = (to.lon - self.lon).to_radians() / 2.0;
        let cosines = self.lat.to_radians().cos() * to.lat.to_radians().cos();
        let h = half_lat.sin().powi(2) + cosines * half_lon.sin().powi(2);
        // Rounding may carry `h` past 1 for antipodes, and the arc sine of that is no number.
        2.0 * EARTH_RADIUS_MILES * h.min(1.0).sqrt().asin()
    }
}

/// Great-circle distance between two markets, in miles: [`Coordinates::distance_miles`].
pub fn distance_miles(a: &Market, b: &Market) -> f64 {
    a.coordinates().distance_miles(b.coordinates())
}

/// Direction in which the great circle leaves `from` for `to`: degrees clockwise from north,
/// from 0 up to but excluding 360.
pub fn bearing_degrees(from: &Market, to: &Market) -> f64 {
    let (lat_from, lat_to) = (from.lat.to_radians(), to.lat.to_radians());
    let turn = (to.lon - from.lon).to_radians();
    let east = turn.sin() * lat_to.cos();
    let north = lat_from.cos() * lat_to.sin() - lat_from.sin() * lat_to.cos() * turn.cos();
    let degrees = east.atan2(north).to_degrees();
    // `rem_euclid` rounds a tiny negative angle to 360 itself.
    if degrees < 0.0 { (degrees + 360.0) % 360.0 } else { degrees }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(title: &str, lat: f64, lon: f64) -> MarketRecord {
        MarketRecord {
            cbsa: 10_000,
            title: title.to_owned(),
            kind: "Metro".to_owned(),
            lat,
            lon,
            anchor_city: title.split(['-', ',']).next().unwrap().to_owned(),
            anchor_pop: None,
        }
    }

    fn at(lat: f64, lon: f64) -> Market {
        record("Somewhere, CO", lat, lon).try_into().unwrap()
    }

    fn assert_close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 0.05, "{actual} is not {expected}");
    }

    #[test]
    fn name_and_slug_come_from_the_first_city_and_state() {
        let market: Market =
            record("Denver-Aurora-Lakewood, CO-WY", 39.7, -104.9).try_into().unwrap();
        assert_eq!(market.name(), "Denver, CO");
        assert_eq!(market.to_string(), market.name());
        assert_eq!(market.slug(), "denver-co");
        assert_eq!(market.states(), ["CO", "WY"]);
    }

    #[test]
    fn params_are_what_templates_use() {
        let params = at(40.5, -105.25).params();
        let pairs: Vec<_> = params.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("cbsa", "10000"),
                ("city", "Somewhere"),
                ("lat", "40.5"),
                ("lon", "-105.25"),
                ("name", "Somewhere, CO"),
                ("slug", "somewhere-co"),
                ("state", "CO"),
            ]
        );
    }

    #[test]
    fn impossible_records_are_refused() {
        let wrong = [
            MarketRecord { cbsa: 9_999, ..record("A, CO", 1.0, 1.0) },
            MarketRecord { cbsa: 100_000, ..record("A, CO", 1.0, 1.0) },
            MarketRecord { kind: "Mega".to_owned(), ..record("A, CO", 1.0, 1.0) },
            record("A, CO", 90.5, 1.0),
            record("A, CO", 1.0, f64::NAN),
            record("A", 1.0, 1.0),
        ];
        for record in wrong {
            let shown = format!("{record:?}");
            assert!(Market::try_from(record).is_err(), "{shown}");
        }
    }

    #[test]
    fn distance_is_zero_at_home_and_half_the_globe_at_the_antipode() {
        assert_close(distance_miles(&at(40.0, -105.0), &at(40.0, -105.0)), 0.0);
        let half = std::f64::consts::PI * EARTH_RADIUS_MILES;
        assert_close(distance_miles(&at(40.0, -105.0), &at(-40.0, 75.0)), half);
    }

    #[test]
    fn bearings_turn_clockwise_from_north() {
        let here = at(0.0, 0.0);
        assert_close(bearing_degrees(&here, &at(1.0, 0.0)), 0.0);
        assert_close(bearing_degrees(&here, &at(0.0, 1.0)), 90.0);
        assert_close(bearing_degrees(&here, &at(-1.0, 0.0)), 180.0);
        assert_close(bearing_degrees(&here, &at(0.0, -1.0)), 270.0);
        assert!(bearing_degrees(&here, &at(1.0, -1e-300)) < 360.0);
    }
}
