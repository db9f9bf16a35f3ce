//! Settings that load, and together do less, or something else, than they seem to.
//!
//! It is said when the configuration is checked; nothing is logged for it at run time.

use std::{collections::BTreeSet, time::Duration};

use crate::{Policy, Ttl};

use super::{
    error::clean,
    layer::Layers,
    model::CacheConfig,
    place::Place,
    schema,
    settings::{Setting, Warning},
    values::TierKind,
};

/// Sources named in one line; of more, only the number.
const NAMED: usize = 4;

/// One line for each cause and place; `settings` are those of `config`, with secrets masked.
pub(super) fn advice(config: &CacheConfig, layers: &Layers, settings: &[Setting]) -> Vec<Warning> {
    let advisor = Advisor::new(config, layers, settings);
    let mut found = advisor.tiers();
    for subject in &advisor.subjects {
        found.extend(advisor.in_policy(subject));
        found.extend(advisor.around_policy(subject));
    }
    found.extend(advisor.without_effect());
    // What many sources have from the defaults is told once, there.
    let mut lines: Vec<Finding<'_>> = Vec::new();
    for one in found {
        let same = |line: &&mut Finding<'_>| line.path == one.path && line.message == one.message;
        match lines.iter_mut().find(same) {
            Some(line) => line.of.extend(one.of),
            None => lines.push(one),
        }
    }
    // In the order of the settings.
    lines.sort_by_cached_key(|line| advisor.setting(&line.path).map_or(usize::MAX, |(at, _)| at));
    let warnings = lines.into_iter().map(|line| Warning {
        setting: schema::dotted(&line.path),
        message: format!("{}{}", line.message, line.whose()),
        from: layers.get(&line.path).map_or(&Place::Nowhere, |item| item.place()).into(),
    });
    warnings.collect()
}

struct Finding<'a> {
    path: Vec<String>,
    message: String,
    /// Where it was found: at sources, and at the defaults, which have no name; nothing if it is
    /// about no policy.
    of: Vec<Option<&'a str>>,
}

impl<'a> Finding<'a> {
    fn new(path: Vec<String>, message: impl Into<String>, of: Option<&'a str>) -> Self {
        Self { path, message: message.into(), of: vec![of] }
    }

    /// Whom it is about, unless the name of the setting says it.
    fn whose(&self) -> String {
        let names: Vec<&str> = self.of.iter().copied().flatten().collect();
        let defaults = names.len() < self.of.len();
        match self.path.get(1).map(String::as_str) {
            Some("sources" | "ttl_policies") => return String::new(),
            Some("defaults") if defaults => return String::new(),
            _ if self.of.is_empty() => return String::new(),
            _ => {}
        }
        let shown: Vec<String> = names.iter().take(NAMED).map(|name| clean(name)).collect();
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let sources = match names.len() {
            0 => None,
            1 => Some(format!("source {}", shown.join(""))),
            _ => Some(format!("sources {}{more}", shown.join(", "))),
        };
        let parts = defaults.then(|| "the defaults".to_owned()).into_iter().chain(sources);
        format!(" ({})", parts.collect::<Vec<_>>().join(", "))
    }
}

/// What has a policy: a source, or the defaults.
struct Subject<'a> {
    name: Option<&'a str>,
    policy: Policy,
}

struct Advisor<'a> {
    config: &'a CacheConfig,
    layers: &'a Layers,
    settings: &'a [Setting],
    /// The defaults first.
    subjects: Vec<Subject<'a>>,
}

type Idle = fn(&Policy) -> bool;

/// Settings that may have no effect, how that is seen, and why.
const WITHOUT_EFFECT: [(&str, Idle, &str); 5] = [
    ("jitter", |it| endless(it) && it.jitter > 0.0, NEVER),
    ("stale_while_revalidate", |it| endless(it) && !it.stale_while_revalidate.is_zero(), NEVER),
    ("stale_if_error", |it| endless(it) && !it.stale_if_error.is_zero(), NEVER),
    ("refresh_ahead", |it| endless(it) && it.refresh_ahead.is_some(), NEVER),
    (
        "soft_timeout",
        |it| it.soft_timeout.is_some() && it.stale_if_error.is_zero(),
        "has no effect without `stale_if_error`, which says what may be served instead",
    ),
];

const NEVER: &str = "has no effect with `ttl: never`";

/// Whether nothing expires: that there is none is stored too only if `negative_ttl` says so.
fn endless(policy: &Policy) -> bool {
    policy.ttl == Ttl::Never && policy.negative_ttl.is_zero()
}

impl<'a> Advisor<'a> {
    fn new(config: &'a CacheConfig, layers: &'a Layers, settings: &'a [Setting]) -> Self {
        let sources = config.sources.keys().chain(config.ttl_policies.keys());
        let sources: BTreeSet<&str> = sources.map(String::as_str).collect();
        let defaults = Subject { name: None, policy: config.defaults.policy() };
        let sources = sources
            .into_iter()
            .map(|name| Subject { name: Some(name), policy: config.policy_for(name) });
        let subjects = [defaults].into_iter().chain(sources).collect();
        Self { config, layers, settings, subjects }
    }

    fn tiers(&self) -> Vec<Finding<'a>> {
        let mut found = Vec::new();
        let chain = self.config.tiers();
        for kind in TierKind::ALL {
            let options = self.config.tier_options(kind);
            let path = |setting| owned(&["cache", kind.name(), setting]);
            if !chain.contains(&kind) {
                if options.required {
                    let message = format!("has no effect: {kind} is not in the chain");
                    found.push(Finding { path: path("required"), message, of: Vec::new() });
                }
                continue;
            }
            let Some(limit) = options.max_ttl else { continue };
            let idle = |subject: &Subject<'_>| life(&subject.policy).is_some_and(|it| it < limit);
            for subject in &self.subjects {
                let own = ["ttl", "stale_while_revalidate", "stale_if_error"]
                    .iter()
                    .any(|key| self.written(subject.name, key).is_some());
                let inherited = subject.name.is_some() && !own && idle(&self.subjects[0]);
                if idle(subject) && !inherited {
                    let message = "has no effect on entries that live for less";
                    found.push(Finding::new(path("max_ttl"), message, subject.name));
                }
            }
        }
        found
    }

    /// Two settings of a policy that do not go together.
    fn in_policy(&self, subject: &Subject<'a>) -> Vec<Finding<'a>> {
        let Subject { name, policy } = subject;
        let show = |key| self.shown(*name, key);
        let find = |keys: &[&str], message| Finding::new(self.blamed(*name, keys), message, *name);
        let mut found = Vec::new();
        let stale = policy.stale_if_error;
        if !stale.is_zero() && stale < policy.throttle && !endless(policy) {
            let message = format!(
                "{} is shorter than {}: a stale value is dead before its load is tried again",
                show("stale_if_error"),
                show("throttle")
            );
            found.push(find(&["stale_if_error", "throttle"], message));
        }
        if let (Some(soft), Some(hard)) = (policy.soft_timeout, policy.hard_timeout)
            && soft >= hard
        {
            let (soft, hard) = (show("soft_timeout"), show("hard_timeout"));
            let message = format!("{soft} has no effect: it is not shorter than {hard}");
            found.push(find(&["soft_timeout", "hard_timeout"], message));
        }
        if let Ttl::For(ttl) = policy.ttl
            && policy.negative_ttl > ttl
        {
            let message = format!(
                "{} is longer than {}: that there is none is believed for longer than a value",
                show("negative_ttl"),
                show("ttl")
            );
            found.push(find(&["negative_ttl", "ttl"], message));
        }
        found
    }

    /// A policy that does not go with its source or with the chain.
    fn around_policy(&self, subject: &Subject<'a>) -> Vec<Finding<'a>> {
        let Subject { name, policy } = subject;
        let Some(source) = name.and_then(|name| self.config.sources.get(name)) else {
            return Vec::new();
        };
        let find = |keys: &[&str], message| Finding::new(self.blamed(*name, keys), message, *name);
        let mut found = Vec::new();
        if policy.hard_timeout.is_some_and(|hard| hard < source.timeout) && source.url.is_some() {
            let message = format!(
                "{} is shorter than {}: callers give up before the request does",
                self.shown(*name, "hard_timeout"),
                self.shown(*name, "timeout")
            );
            found.push(find(&["hard_timeout", "timeout"], message));
        }
        let shared = self.config.tiers().into_iter().find(|kind| *kind != TierKind::Memory);
        if let Some(shared) = shared
            && policy.refresh_ahead.is_some()
            && source.rate_limit.is_some()
        {
            let message = format!(
                "each process refreshes for itself, and all of them spend one quota, that of \
                 `rate_limit`; leave it off where processes share the {shared} tier"
            );
            found.push(find(&["refresh_ahead"], message));
        }
        found
    }

    /// Settings that are written, and do nothing for anybody who has them.
    fn without_effect(&self) -> Vec<Finding<'a>> {
        let mut found = Vec::new();
        for (key, idle, why) in WITHOUT_EFFECT {
            for subject in &self.subjects {
                let Some(path) = self.written(subject.name, key) else { continue };
                // A default does something if it does so for one of those who have it.
                let mut heirs = self.subjects.iter().filter(|heir| {
                    subject.name.is_none() && self.written(heir.name, key).is_none()
                });
                if idle(&subject.policy) && heirs.all(|heir| idle(&heir.policy)) {
                    found.push(Finding::new(path, why, subject.name));
                }
            }
        }
        found
    }

    /// Where a setting is written at the source, or in the defaults if there is no name.
    fn written(&self, name: Option<&str>, key: &str) -> Option<Vec<String>> {
        let places = match name {
            None => vec![owned(&["cache", "defaults", key])],
            Some(name) if key == "ttl" => {
                vec![
                    owned(&["cache", "sources", name, key]),
                    owned(&["cache", "ttl_policies", name]),
                ]
            }
            Some(name) => vec![owned(&["cache", "sources", name, key])],
        };
        places.into_iter().find(|path| self.layers.get(path).is_some())
    }

    /// The place to look at: the first of the settings that is written, nearest to the source.
    fn blamed(&self, name: Option<&str>, keys: &[&str]) -> Vec<String> {
        let at = |name| keys.iter().find_map(|key| self.written(name, key));
        at(name).or_else(|| at(None)).unwrap_or_else(|| owned(&["cache", "defaults", keys[0]]))
    }

    /// A setting and the value that counts for the source.
    fn shown(&self, name: Option<&str>, key: &str) -> String {
        let path = match name {
            // It has a default, but none that can be changed.
            Some(name) if key == "timeout" => owned(&["cache", "sources", name, key]),
            _ => self.blamed(name, &[key]),
        };
        let value = self.setting(&path).map_or("?", |(_, setting)| &setting.value);
        format!("`{key}` ({value})")
    }

    fn setting(&self, path: &[String]) -> Option<(usize, &'a Setting)> {
        let path = schema::dotted(path);
        self.settings.iter().enumerate().find(|(_, setting)| setting.path == path)
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|&part| part.to_owned()).collect()
}

/// For how long a tier keeps an entry; `None` if it keeps none, or for ever.
fn life(policy: &Policy) -> Option<Duration> {
    match policy.ttl {
        Ttl::Never => None,
        Ttl::For(ttl) if ttl.is_zero() => None,
        Ttl::For(ttl) => {
            Some(ttl.saturating_add(policy.stale_while_revalidate.max(policy.stale_if_error)))
        }
    }
}
