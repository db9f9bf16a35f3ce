//! Distances, and markets near others.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use cache_warmer::{Coordinates, Gazetteer, MarketRow, add_nearby, read_markets};

type Place = (&'static str, f64, f64);

/// Twenty pairs, some of them across the antimeridian or near a pole, and miles between them along the
/// geodesic of WGS 84, by Vincenty's inverse formula (Survey Review 23, 1975).
const KNOWN: [(Place, Place, f64); 20] = [
    (("Boulder", 40.015, -105.2705), ("Denver", 39.7392, -104.9903), 24.2),
    (("Boulder", 40.015, -105.2705), ("Fort Collins", 40.5853, -105.0844), 40.6),
    (("Boulder", 40.015, -105.2705), ("Greeley", 40.4233, -104.7091), 40.9),
    (("New York", 40.7128, -74.006), ("Los Angeles", 34.0522, -118.2437), 2451.0),
    (("Chicago", 41.8781, -87.6298), ("Miami", 25.7617, -80.1918), 1189.1),
    (("Seattle", 47.6062, -122.3321), ("Anchorage", 61.2181, -149.9003), 1437.9),
    (("Los Angeles", 34.0522, -118.2437), ("Honolulu", 21.3069, -157.8583), 2563.1),
    (("New York", 40.7128, -74.006), ("London", 51.5074, -0.1278), 3470.5),
    (("London", 51.5074, -0.1278), ("Tokyo", 35.6762, 139.6503), 5954.1),
    (("Los Angeles", 34.0522, -118.2437), ("Sydney", -33.8688, 151.2093), 7495.7),
    (("Suva", -18.1416, 178.4419), ("Apia", -13.8333, -171.75), 716.2),
    (("Anadyr", 64.7337, 177.5089), ("Nome", 64.5011, -165.4064), 506.7),
    (("Utqiagvik", 71.2906, -156.7886), ("Longyearbyen", 78.2232, 15.6267), 2110.8),
    (("Longyearbyen", 78.2232, 15.6267), ("Alert", 82.5018, -62.3481), 870.5),
    (("Ushuaia", -54.8019, -68.303), ("Sydney", -33.8688, 151.2093), 5891.0),
    (("Quito", -0.1807, -78.4678), ("Singapore", 1.3521, 103.8198), 12268.0),
    (("Tokyo", 35.6762, 139.6503), ("Honolulu", 21.3069, -157.8583), 3864.3),
    (("Miami", 25.7617, -80.1918), ("Quito", -0.1807, -78.4678), 1787.3),
    (("Alert", 82.5018, -62.3481), ("Anchorage", 61.2181, -149.9003), 2035.4),
    (("Denver", 39.7392, -104.9903), ("New York", 40.7128, -74.006), 1631.5),
];

#[test]
fn distances_are_within_half_a_percent_of_the_geodesic() {
    for ((from, lat, lon), (to, to_lat, to_lon), miles) in KNOWN {
        let (one, other) =
            (Coordinates::new(lat, lon).unwrap(), Coordinates::new(to_lat, to_lon).unwrap());
        for found in [one.distance_miles(other), other.distance_miles(one)] {
            let off = (found - miles).abs() / miles;
            assert!(off < 0.005, "{from} to {to}: {found} for {miles}");
        }
    }
    assert_eq!(Coordinates::new(91.0, 0.0), None);
    assert_eq!(Coordinates::new(0.0, f64::NAN), None);
}

fn rows(csv: &str) -> Vec<MarketRow> {
    read_markets(csv.as_bytes(), Gazetteer::us()).unwrap().rows
}

fn names(rows: &[MarketRow]) -> Vec<String> {
    rows.iter().map(|row| row.market.name()).collect()
}

#[test]
fn neighbours_are_added_once_behind_those_that_were_asked_for() {
    let mut rows = rows("market,year\n\"Boulder, CO\",2021\n\"Denver, CO\",2021\n");
    add_nearby(&mut rows, Gazetteer::us(), 60.0).unwrap();
    let names = names(&rows);
    assert_eq!(names[..2], ["Boulder, CO", "Denver, CO"]);
    for name in ["Fort Collins, CO", "Greeley, CO"] {
        assert_eq!(names.iter().filter(|it| *it == name).count(), 1, "{names:?}");
    }
    assert_eq!(names.iter().filter(|it| *it == "Denver, CO").count(), 1);
    assert!(rows[0].extra.contains_key("year") && rows[2].extra.is_empty());
    let miles = |row: &MarketRow| {
        let from = rows[0].market.coordinates().distance_miles(row.market.coordinates());
        from.min(rows[1].market.coordinates().distance_miles(row.market.coordinates()))
    };
    assert!(rows.iter().all(|row| miles(row) <= 60.0));
}

#[test]
fn boulder_has_denver_fort_collins_and_greeley_within_sixty_miles() {
    let mut rows = rows("market\nboulder-co\n");
    add_nearby(&mut rows, Gazetteer::us(), 60.0).unwrap();
    let titles: Vec<&str> = rows.iter().map(|row| row.market.title()).collect();
    for start in ["Denver-Aurora", "Fort Collins", "Greeley"] {
        assert!(titles.iter().any(|title| title.starts_with(start)), "{start}: {titles:?}");
    }
}

#[test]
fn a_row_may_say_where_its_market_is() {
    // Boulder, said to be in Seattle.
    let mut there = rows("market,lat,lon\nboulder-co,47.6,-122.3\n");
    add_nearby(&mut there, Gazetteer::us(), 20.0).unwrap();
    assert!(names(&there).contains(&"Seattle, WA".to_owned()), "{:?}", names(&there));
    for (csv, said) in [
        ("market,lat,lon\nboulder-co,47.6,\n", "line 2: the row has no `lon`"),
        ("market,lon\nboulder-co,1\n", "line 2: the row has no `lat`"),
        ("market,lat,lon\n14500,47.6,180.5\n", "line 2: `47.6` and `180.5` are no coordinates"),
        ("market,lat,lon\n14500,north,1\n", "line 2: `north` and `1` are no coordinates"),
    ] {
        let error = add_nearby(&mut rows(csv), Gazetteer::us(), 20.0).unwrap_err().to_string();
        assert!(error.starts_with(said), "{csv}: {error}");
    }
}
