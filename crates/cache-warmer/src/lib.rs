//! Warms Larder caches: markets x sources, in parallel and within limits.
//!
//! This crate plans and paces; it prints nothing and knows no terminal.

pub mod changes;
mod gazetteer;
mod market;
mod markets_csv;
mod names;
mod warmer;

pub use crate::{
    gazetteer::{Gazetteer, GazetteerError, UnknownMarket},
    market::{Market, MarketKind, bearing_degrees, distance_miles},
    markets_csv::{MarketList, MarketRow, MarketsError, MarketsProblem, read_markets},
    warmer::{Event, Summary, Task, TaskOutcome, Warmer, market_request, market_tag},
};
