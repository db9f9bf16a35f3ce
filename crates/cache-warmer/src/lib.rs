//! Warms Larder caches: markets x sources, in parallel and within limits.
//!
//! This crate plans and paces; it prints nothing and knows no terminal.

pub mod changes;
mod gazetteer;
mod market;
mod markets_csv;
mod names;
mod nearby;
mod prefetch;
mod schedule;
mod task;
mod warmer;

pub use crate::{
    gazetteer::{Gazetteer, GazetteerError, UnknownMarket},
    market::{Coordinates, Market, MarketKind, bearing_degrees, distance_miles},
    markets_csv::{MarketList, MarketRow, MarketsError, MarketsProblem, read_markets},
    nearby::{add_nearby, row_coordinates},
    prefetch::Prefetch,
    schedule::{Job, LastRun, NextRun, Round, Schedule, ScheduleError, Scheduler, WallClock},
    task::{Task, market_request, market_tag},
    warmer::{
        Event, Forecast, SourceForecast, SourceSummary, Summary, TaskOutcome, Warmer, Warming,
        Watch,
    },
};
