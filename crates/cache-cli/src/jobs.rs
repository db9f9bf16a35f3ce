//! `larder jobs`: what runs when, and how it went last.

use cache_warmer::{Job, LastRun, NextRun};
use larder::{Escaped, Timestamp};
use serde_json::json;

use crate::{
    args::{Format, Global},
    context::Context,
    daemon,
    exit::{Exit, Failure},
    output, table,
    warm::CLOSE_WITHIN,
};

pub(crate) async fn run(global: &Global) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let scheduler = daemon::scheduler(&context, &cache)?;
    let next = scheduler.next_runs().await;
    _ = cache.close(CLOSE_WITHIN).await;
    let next = next?;
    let jobs: Vec<(&Job, NextRun)> = scheduler.jobs().iter().zip(next).collect();
    match global.format {
        Format::Json => {
            let jobs: Vec<_> = jobs.iter().map(|(job, next)| document(job, next)).collect();
            output::print_json(&json!({"schema": "larder.jobs/1", "jobs": jobs}))?;
        }
        Format::Table => {
            let config = &context.loaded.config.jobs;
            let headings = ["JOB", "CRON", "TIME ZONE", "NEXT", "LAST", "RESULT", "WHAT"];
            let rows: Vec<Vec<String>> = jobs
                .iter()
                .map(|(job, next)| {
                    let what = config.get(job.name()).map(daemon::described).unwrap_or_default();
                    let part = |name| what.get(name).cloned().unwrap_or_default();
                    let what = format!("{} · {}", part("sources"), part("markets"));
                    let last = next.last.as_ref();
                    vec![
                        Escaped(job.name()).to_string(),
                        job.schedule().cron().to_owned(),
                        job.schedule().time_zone().to_owned(),
                        shown(next.begins),
                        last.map_or_else(|| "never".to_owned(), |last| shown(last.began)),
                        last.map_or_else(String::new, result),
                        Escaped(&what).to_string(),
                    ]
                })
                .collect();
            output::print(&table::render(&headings, &rows))?;
        }
    }
    Ok(Exit::Done)
}

fn document(job: &Job, next: &NextRun) -> serde_json::Value {
    let last = next.last.as_ref().map(|last| {
        json!({
            "due": rfc3339(last.due),
            "began": rfc3339(last.began),
            "ended": rfc3339(last.ended),
            "succeeded": last.succeeded,
            "note": last.note,
        })
    });
    json!({
        "job": job.name(),
        "cron": job.schedule().cron(),
        "time_zone": job.schedule().time_zone(),
        "due": rfc3339(next.due),
        "begins": rfc3339(next.begins),
        "last": last,
    })
}

fn result(last: &LastRun) -> String {
    let took = table::age(last.ended.saturating_since(last.began));
    if last.succeeded { format!("done in {took}") } else { format!("failed after {took}") }
}

fn rfc3339(at: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.as_millis()).ok().map(|at| at.to_string())
}

/// In the time zone of whoever looks.
fn shown(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(at) => {
            at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M %Z").to_string()
        }
        Err(_never) => "never".to_owned(),
    }
}
