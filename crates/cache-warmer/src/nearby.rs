//! Markets near those that were asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Coordinates, Gazetteer, MarketRow, MarketsError, MarketsProblem};

/// Where the market of a row is: by its columns `lat` and `lon` if it has them, else by the gazetteer.
///
/// # Errors
/// When a row has one of the columns, or they hold no degrees.
pub fn row_coordinates(row: &MarketRow) -> Result<Coordinates, MarketsError> {
    let (lat, lon) = (row.extra.get("lat"), row.extra.get("lon"));
    let (Some(lat), Some(lon)) = (lat, lon) else {
        return match (lat, lon) {
            (None, None) => Ok(row.market.coordinates()),
            (given, _) => {
                let lacks = if given.is_some() { "lon" } else { "lat" };
                Err(MarketsProblem::HalfCoordinates { lacks }.on(row.line))
            }
        };
    };
    let degrees = lat.parse().ok().zip(lon.parse().ok());
    degrees.and_then(|(lat, lon)| Coordinates::new(lat, lon)).ok_or_else(|| {
        MarketsProblem::NoCoordinates { lat: lat.clone(), lon: lon.clone() }.on(row.line)
    })
}

/// Adds the markets within `radius` miles of those in `rows`, each once, behind them and nearest to the
/// first rows first. Columns of a row are its own: those that are added have none.
///
/// # Errors
/// As [`row_coordinates`].
pub fn add_nearby(
    rows: &mut Vec<MarketRow>,
    gazetteer: &Gazetteer,
    radius: f64,
) -> Result<(), MarketsError> {
    let mut known: BTreeSet<u32> = rows.iter().map(|row| row.market.cbsa()).collect();
    let mut added = Vec::new();
    for row in &*rows {
        let near = gazetteer.around(row_coordinates(row)?, radius);
        let fresh = near.into_iter().filter(|(market, _)| known.insert(market.cbsa()));
        added.extend(fresh.map(|(market, _)| MarketRow {
            line: row.line,
            market: market.clone(),
            extra: BTreeMap::new(),
        }));
    }
    rows.append(&mut added);
    Ok(())
}
