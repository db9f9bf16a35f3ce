//! `larder warm --dry-run`: what a run would take.

use cache_warmer::{Forecast, MarketList, SourceForecast, Warmer};
use larder::{Chained, Escaped, config::CacheConfig};
use serde_json::{Value, json};

use crate::{
    args::{Format, Global},
    exit::{Exit, Failure},
    output, table,
};

pub(super) async fn tell(
    global: &Global,
    warmer: &Warmer,
    config: &CacheConfig,
    list: &MarketList,
) -> Result<Exit, Failure> {
    let forecast = warmer.forecast().await.map_err(Failure::from)?;
    match global.format {
        Format::Json => output::print_json(&document(&forecast, config, list))?,
        Format::Table => {
            for (task, error) in &forecast.impossible {
                let (source, market) = (Escaped(&task.source), &task.market);
                output::remark(&format!("cannot ask: {source} · {market}: {}\n", Chained(error)));
            }
            output::print(&for_people(&forecast, config))?;
        }
    }
    let is_whole = forecast.impossible.is_empty() && list.unknown.is_empty();
    Ok(if is_whole { Exit::Done } else { Exit::PartlyDone })
}

/// What the calls to a source cost, in whatever `cost_per_call` is counted in.
fn cost(source: &SourceForecast, config: &CacheConfig) -> Option<f64> {
    let per_call = config.sources.get(&source.source)?.cost_per_call?;
    Some(per_call * source.calls as f64)
}

/// What all of them cost; `None` where nothing is said to cost anything.
fn total_cost(forecast: &Forecast, config: &CacheConfig) -> Option<f64> {
    let costs: Vec<f64> = forecast.sources.iter().filter_map(|one| cost(one, config)).collect();
    (!costs.is_empty()).then(|| costs.iter().sum())
}

fn document(forecast: &Forecast, config: &CacheConfig, list: &MarketList) -> Value {
    let source = |one: &SourceForecast| {
        let quota = one.quota.map(|quota| {
            json!({
                "used": quota.used,
                "allowed": quota.allowed,
                "window_seconds": quota.window.as_secs_f64(),
                "beyond": one.beyond_quota(),
            })
        });
        json!({
            "source": one.source,
            "planned": one.planned,
            "fresh": one.fresh,
            "calls": one.calls,
            "seconds": one.paced.map(|paced| paced.as_secs_f64()),
            "quota": quota,
            "cost": cost(one, config),
        })
    };
    let impossible: Vec<Value> = forecast
        .impossible
        .iter()
        .map(|(task, error)| {
            json!({
                "source": task.source,
                "market": task.market,
                "error": Chained(error).to_string(),
            })
        })
        .collect();
    json!({
        "schema": "larder.warm.forecast/1",
        "calls": forecast.calls(),
        "seconds": forecast.paced().as_secs_f64(),
        "cost": total_cost(forecast, config),
        "sources": forecast.sources.iter().map(source).collect::<Vec<_>>(),
        "impossible": impossible,
        "unknown_markets": super::unknown(list),
    })
}

fn for_people(forecast: &Forecast, config: &CacheConfig) -> String {
    let headings = ["SOURCE", ">PLANNED", ">FRESH", ">CALLS", ">TIME", ">QUOTA", ">COST"];
    let rows: Vec<Vec<String>> = forecast
        .sources
        .iter()
        .map(|one| {
            let none = || "-".to_owned();
            let quota = one.quota.map_or_else(none, |quota| {
                format!("{} + {} of {}", quota.used, one.calls, quota.allowed)
            });
            vec![
                Escaped(&one.source).to_string(),
                table::count(one.planned as u64),
                table::count(one.fresh as u64),
                table::count(one.calls as u64),
                one.paced.map_or_else(none, table::age),
                quota,
                cost(one, config).map_or_else(none, |cost| format!("{cost:.2}")),
            ]
        })
        .collect();
    let mut text = table::render(&headings, &rows) + "\n";
    let beyond = forecast.sources.iter().filter(|one| one.beyond_quota() > 0).map(|one| {
        let when = one.quota.and_then(|quota| quota.resets_in).map_or_else(String::new, |resets| {
            format!("; it lets the next one through in {}", table::age(resets))
        });
        let (source, beyond) = (Escaped(&one.source), one.beyond_quota());
        format!("{source}: {beyond} calls are more than its quota has left{when}\n")
    });
    text.extend(beyond);
    let cost = total_cost(forecast, config).map(|cost| format!(", at a cost of {cost:.2}"));
    let paced = forecast.paced();
    let time = if paced.is_zero() {
        String::new()
    } else {
        format!(", {} or more by the rates of their sources", table::age(paced))
    };
    let calls = forecast.calls();
    text + &format!("{calls} calls{time}{}; nothing was fetched\n", cost.unwrap_or_default())
}
