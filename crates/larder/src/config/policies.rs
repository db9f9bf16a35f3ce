//! `cache.defaults` and `cache.sources`: what holds for the values of a source, and where they
//! come from.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Failures, Policy, PolicyPatch};

use super::{
    compression::SourceCompressionConfig,
    forms,
    http::{
        AuthConfig, BatchConfig, ProbeConfig, ResponseConfig, Status, VersionFromConfig, write_list,
    },
    jobs::ChangesConfig,
    origin::RetryConfig,
    range::RangeConfig,
    redact::{self, Params, redact_url},
    text,
    values::{RateLimit, Secret, Ttl},
};

const MIB: u64 = 1 << 20;

/// Writes each setting of a policy once: in `cache.defaults` it has a value, in a source, whose
/// own settings follow them here, it may be missing. No nested struct with `serde(flatten)`: its
/// errors would not name the setting.
macro_rules! policies {
    (
        policy { $( $(#[doc = $doc:literal])+ $name:ident: $type:ty, )+ }
        source { $( $(#[$meta:meta])+ $own:ident: $own_type:ty = $value:expr, )+ }
    ) => {
        /// `cache.defaults`: what holds for a source that says nothing itself.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[non_exhaustive]
        pub struct DefaultsConfig {
            $(
                $(#[doc = $doc])+
                #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
                pub $name: $type,
            )+
        }

        impl DefaultsConfig {
            /// The policy it describes.
            pub fn policy(&self) -> Policy {
                let mut policy = Policy::default();
                $( policy.$name = self.$name.into(); )+
                policy
            }
        }

        impl Default for DefaultsConfig {
            fn default() -> Self {
                let policy = Policy::default();
                Self { $( $name: policy.$name.into(), )+ }
            }
        }

        /// One source under `cache.sources`. Printing it hides secrets, so what is printed does
        /// not load.
        #[derive(Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[non_exhaustive]
        pub struct SourceConfig {
            $( $(#[$meta])+ pub $own: $own_type, )+
            $(
                $(#[doc = $doc])+
                #[doc = ""]
                #[doc = "`None`: as `cache.defaults` says."]
                #[serde(
                    deserialize_with = "forms::read_given",
                    serialize_with = "forms::write_given"
                )]
                pub $name: Option<$type>,
            )+
        }

        impl SourceConfig {
            /// What it changes of the policy of `cache.defaults`, its version apart.
            pub fn patch(&self) -> PolicyPatch {
                let mut patch = PolicyPatch::default();
                $( patch.$name = self.$name.map(Into::into); )+
                patch
            }

            fn debug_policy(&self, f: &mut fmt::DebugStruct<'_, '_>) {
                $( f.field(stringify!($name), &self.$name); )+
            }
        }

        impl Default for SourceConfig {
            fn default() -> Self {
                Self { $( $own: $value, )+ $( $name: None, )+ }
            }
        }
    };
}

policies! {
    policy {
        /// How long a value stays fresh; zero means that it is not stored. Default: 30 days.
        ttl: Ttl,
        /// Largest share of a lifetime, 0 to 1, by which it is shortened at random. Default: 0.
        jitter: f64,
        /// For so long after it expired, a value is served at once while it is refreshed.
        /// Default: 0.
        stale_while_revalidate: Duration,
        /// For so long after it expired, a value is served if its load fails or is slow.
        /// Default: 0.
        stale_if_error: Duration,
        /// For so long after it expired, a value with an `ETag` or `Last-Modified` is kept, not to be
        /// served but to ask whether it still holds. Default: 30 days.
        revalidate_for: Duration,
        /// Share of the lifetime, above 0 and below 1, after which a hit starts a refresh.
        /// Default: none.
        refresh_ahead: Option<f64>,
        /// How long the answer "there is none" is stored; zero means not at all. Default: 0.
        negative_ttl: Duration,
        /// How long a caller waits for a load when a stale value could be served. Default: until
        /// the load ends.
        soft_timeout: Option<Duration>,
        /// How long anybody waits for a load. Default: 5 minutes.
        hard_timeout: Option<Duration>,
        /// For so long after a load failed, a stale value is served without trying again.
        /// Default: 30 s.
        throttle: Duration,
        /// Whether a shorter `ttl` also holds for what is stored already. Default: true.
        retroactive_ttl: bool,
        /// Failures after which a stale value may be served. Default: [`Failures::TEMPORARY`].
        stale_on: Failures,
        /// Whether a load is stopped when nobody waits for it any more. Default: false.
        cancel_abandoned: bool,
    }
    source {
        /// Template with placeholders such as `{cbsa}`.
        #[serde(deserialize_with = "text::text", serialize_with = "redact::write_url")]
        url: Option<String> = None,
        /// Defaults for placeholders, and further query parameters.
        #[serde(serialize_with = "redact::write_params")]
        params: BTreeMap<String, String> = BTreeMap::new(),
        /// Appended to the URL; the place for API keys.
        query: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Sent with each request.
        headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// Posted as JSON, with placeholders in its strings. Default: nothing is posted.
        #[serde(deserialize_with = "text::text")]
        json: Option<Secret> = None,
        /// Posted as a form, with placeholders in its values.
        form: BTreeMap<String, Secret> = BTreeMap::new(),
        /// The key that the API wants.
        auth: AuthConfig = AuthConfig::default(),
        /// Which responses are answers.
        response: ResponseConfig = ResponseConfig::default(),
        /// How long an answer with this status stays fresh; one of 4xx says that there is nothing.
        status_ttl: BTreeMap<Status, Ttl> = BTreeMap::new(),
        /// Whether `Cache-Control` and `Expires` of an answer go before `ttl`. Default: false.
        #[serde(deserialize_with = "text::text")]
        respect_cache_control: bool = false,
        /// Further hosts that redirects may lead to. Default: none.
        #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
        redirect_hosts: Vec<String> = Vec::new(),
        /// Whether it may be on this machine or in a private network. Default: false.
        #[serde(deserialize_with = "text::text")]
        allow_private: bool = false,
        /// For one request, above zero. Default: 30 s.
        #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
        timeout: Duration = Duration::from_secs(30),
        /// Largest answer taken, in bytes. Default: 64 MiB.
        #[serde(deserialize_with = "text::size", serialize_with = "text::write_size")]
        max_body: u64 = 64 * MIB,
        /// Calls start at equal distances, so that there are no more in any window, `burst` aside.
        /// Default: none.
        #[serde(deserialize_with = "text::text")]
        rate_limit: Option<RateLimit> = None,
        /// Calls that may come at once after a while without any, at least 1. Default: 1.
        #[serde(deserialize_with = "text::text")]
        burst: u32 = 1,
        /// Most calls under way at a time, at least 1, in each process. Default: any number.
        #[serde(deserialize_with = "text::text")]
        concurrency: Option<u32> = None,
        /// Never more calls than this in any window; remembered in `cache.ledger`. Default: none.
        #[serde(deserialize_with = "text::text")]
        quota: Option<RateLimit> = None,
        /// Share of the quota, 0 or more and below 1, that refreshes and warming leave to calls that
        /// somebody waits for. Default: 0.
        #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
        quota_reserve: f64 = 0.0,
        /// How often a call that failed is made again.
        retry: RetryConfig = RetryConfig::default(),
        /// Version of the source's data: values with another one are stale. Default: any will do.
        #[serde(deserialize_with = "text::text")]
        version: Option<String> = None,
        /// Where answers say which version of the data they are from.
        version_from: VersionFromConfig = VersionFromConfig::default(),
        /// What tells the version of the data without asking for any.
        probe: ProbeConfig = ProbeConfig::default(),
        /// How a range of time is cut into chunks.
        range: RangeConfig = RangeConfig::default(),
        /// How one request asks for several members.
        batch: BatchConfig = BatchConfig::default(),
        /// What one call costs, in whatever is counted.
        #[serde(deserialize_with = "text::text")]
        cost_per_call: Option<f64> = None,
        /// Whether people are told when its data have changed. Default: no.
        #[serde(deserialize_with = "text::text")]
        critical: bool = false,
        /// What counts as a change.
        changes: ChangesConfig = ChangesConfig::default(),
        /// What is different from `cache.compression` for its values.
        compression: SourceCompressionConfig = SourceCompressionConfig::default(),
    }
}

impl fmt::Debug for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is the policy, which has no secrets.
        let Self {
            url,
            params,
            query,
            headers,
            json,
            form,
            auth,
            response,
            status_ttl,
            respect_cache_control,
            redirect_hosts,
            allow_private,
            timeout,
            max_body,
            rate_limit,
            burst,
            concurrency,
            quota,
            quota_reserve,
            retry,
            version,
            version_from,
            probe,
            range,
            batch,
            cost_per_call,
            critical,
            changes,
            compression,
            ..
        } = self;
        let mut shown = f.debug_struct("SourceConfig");
        shown
            .field("url", &url.as_deref().map(redact_url))
            .field("params", &Params(params))
            .field("query", query)
            .field("headers", headers)
            .field("json", json)
            .field("form", form)
            .field("auth", auth)
            .field("response", response)
            .field("status_ttl", status_ttl)
            .field("respect_cache_control", respect_cache_control)
            .field("redirect_hosts", redirect_hosts)
            .field("allow_private", allow_private)
            .field("timeout", timeout)
            .field("max_body", max_body)
            .field("rate_limit", rate_limit)
            .field("burst", burst)
            .field("concurrency", concurrency)
            .field("quota", quota)
            .field("quota_reserve", quota_reserve)
            .field("retry", retry)
            .field("version", version)
            .field("version_from", version_from)
            .field("probe", probe)
            .field("range", range)
            .field("batch", batch)
            .field("cost_per_call", cost_per_call)
            .field("critical", critical)
            .field("changes", changes)
            .field("compression", compression);
        self.debug_policy(&mut shown);
        shown.finish()
    }
}
