//! `larder daemon` and `larder jobs`.

use std::io::{BufRead, BufReader};

use crate::harness::{Api, Place, Run, signal};

fn configure(place: &Place, api: &Api, jobs: &str) {
    let at = api.address;
    place.write(
        "larder.yaml",
        &format!(
            "cache:\n  sqlite: {{path: cache.db}}\n  sources:\n    a: {{allow_private: true, url: \"http://{at}/a/{{cbsa}}\"}}\n{jobs}"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_when_it_is_due_and_what_is_interrupted_is_done_at_the_next_start() {
    let (place, api) = (Place::new(), Api::start(1).await);
    let jobs = "  jobs:\n    - {name: often, cron: '* * * * *', market: [boulder-co, denver-co], \
                sources: a}\n";
    configure(&place, &api, jobs);
    let mut child = place.spawn(&["daemon"]);
    // The second of its two requests is not answered.
    api.reached(2).await;
    let stderr = BufReader::new(child.stderr.take().unwrap());
    signal(&child, "INT");
    let said = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        for line in stderr.lines() {
            said.push(line.unwrap());
            if said.last().unwrap().starts_with("stopping") {
                break;
            }
        }
        said
    });
    let said = said.await.unwrap();
    assert!(said.iter().any(|line| line.ends_with("often begins")), "{said:?}");
    api.permit(1);
    let run = tokio::task::spawn_blocking(move || Run(child.wait_with_output().unwrap()));
    run.await.unwrap().expect(130);
    assert_eq!(place.stored_of("a"), 2, "what was under way was waited for");

    let told = place.larder(&["jobs", "-F", "json"]).expect(0).json();
    assert_eq!(told["jobs"][0]["job"], "often");
    assert!(told["jobs"][0]["last"].is_null(), "it was not run to its end: {told}");

    // It was missed, and is caught up at once: all is fresh.
    let mut child = place.spawn(&["warm", "--schedule"]);
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let done = tokio::task::spawn_blocking(move || {
        stderr.lines().map_while(Result::ok).find(|line| line.contains("2 of 2"))
    });
    assert!(done.await.unwrap().unwrap().contains("2 already fresh"));
    signal(&child, "INT");
    child.wait().unwrap();
    let told = place.larder(&["jobs", "-F", "json"]).expect(0).json();
    assert_eq!(told["jobs"][0]["last"]["succeeded"], true, "{told}");
    let table = place.larder(&["jobs"]).expect(0);
    assert!(table.stdout().contains("done in"), "{}", table.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_make_no_sense_are_refused_with_their_place() {
    let (place, api) = (Place::new(), Api::start(0).await);
    for (job, said) in [
        ("{name: a, cron: 'often', market: boulder-co, sources: a}", "job `a`: "),
        (
            "{name: a, cron: '0 3 * * *', time_zone: Mars/Base, market: boulder-co, sources: a}",
            "Mars/Base",
        ),
        ("{name: a, cron: '0 3 * * *', market: boulder-co, sources: b}", "unknown source `b`"),
        ("{name: a, cron: '0 3 * * *', market: Bolder, sources: a}", "Bolder"),
        ("{name: a, cron: '0 3 * * *', sources: a}", "it has no market"),
        ("{name: a, market: boulder-co, sources: a}", "`cron` is missing"),
        ("{name: a, cron: '0 3 * * *', market: boulder-co}", "`sources` is missing"),
    ] {
        configure(&place, &api, &format!("  jobs:\n    - {job}\n"));
        let run = place.larder(&["daemon"]).expect(2);
        assert!(run.stderr().contains(said), "{job}: {}", run.stderr());
        assert!(run.stderr().contains("larder.yaml:6"), "{job}: {}", run.stderr());
    }
    configure(&place, &api, "  jobs:\n    - {cron: '0 3 * * *', market: boulder-co, sources: a}\n");
    let run = place.larder(&["jobs"]).expect(3);
    assert!(run.stderr().contains("larder.yaml:6") && run.stderr().contains("a `name`"));
    configure(&place, &api, "");
    let run = place.larder(&["daemon"]).expect(2);
    assert!(run.stderr().contains("`cache.jobs`"), "{}", run.stderr());
    // By name, as everything else.
    configure(
        &place,
        &api,
        "  jobs:\n    weekly: {cron: '0 3 * * SUN', time_zone: America/Denver, all_metros: true, sources: a}\n",
    );
    let told = place.larder(&["jobs", "-F", "json"]).expect(0).json();
    let job = &told["jobs"][0];
    assert_eq!((&job["job"], &job["time_zone"]), (&"weekly".into(), &"America/Denver".into()));
}
