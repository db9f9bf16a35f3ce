//! Changes told by HTTP.

use std::{error::Error as _, fmt, net::IpAddr, time::Duration};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use sha2::Sha256;

use super::{NotifierError, NotifyError, NotifyLimits};
use crate::changes::hex;

/// Longest text of another library in an error, in characters.
const LONGEST: usize = 300;

/// A server that is told of changes by `POST`, with the change as JSON.
///
/// Each call has the headers `X-Larder-Event: change` and `X-Larder-Delivery`, which is the same for
/// all calls about one change and different for any other, so that a change told twice can be
/// recognised. With a secret there is `X-Larder-Signature: sha256=` and the hexadecimal
/// HMAC-SHA256 of the body.
///
/// Any status from 200 to 299 is a success. After 429, 500 to 599, and when no answer comes, it is
/// called again, with pauses that are random up to a bound that doubles, or as long as
/// `Retry-After` says in seconds. Redirects are not followed.
///
/// `Debug` shows the server only: path and query of such addresses are often secrets themselves.
#[derive(Clone)]
pub struct Webhook {
    url: Url,
    /// Has the secret in it; a signature begins with a copy.
    signer: Option<Hmac<Sha256>>,
    client: Client,
}

impl Webhook {
    /// The webhook at `url`, whose calls are signed with `secret` if there is one.
    ///
    /// # Errors
    /// When the URL is none of HTTP or HTTPS, the secret is empty, or the certificates of this
    /// machine cannot be read.
    pub fn new(url: &str, secret: Option<&str>) -> Result<Self, NotifierError> {
        let url = Url::parse(url.trim()).map_err(|error| NotifierError::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NotifierError::Scheme(url.scheme().to_owned()));
        }
        let signer = secret.map(|secret| {
            if secret.is_empty() {
                return Err(NotifierError::EmptySecret);
            }
            Hmac::new_from_slice(secret.as_bytes())
                .map_err(|error| NotifierError::Client(error.to_string()))
        });
        Ok(Self { client: client(&url)?, signer: signer.transpose()?, url })
    }

    /// Scheme, host, and port if it is not the usual one.
    pub(super) fn server(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Calls until it is told, or until it is no use.
    pub(super) async fn post(
        &self,
        body: &Bytes,
        limits: &NotifyLimits,
    ) -> Result<(), NotifyError> {
        let delivery = hex(&fastrand::u128(..).to_be_bytes());
        let most = limits.attempts.max(1);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = self.call(&delivery, body, limits).await;
            let status = answer.as_ref().ok().map(Response::status);
            if status.is_some_and(|status| status.is_success()) {
                return Ok(());
            }
            let after = answer.as_ref().ok().and_then(retry_after);
            let error = match answer {
                Ok(answer) => refused(self.server(), answer.status(), attempts, most),
                Err(error) => NotifyError::Unreachable {
                    server: self.server(),
                    attempts,
                    cause: causes(error),
                },
            };
            if attempts >= most || !status.is_none_or(is_passing) {
                return Err(error);
            }
            let pause = after.map_or_else(
                || backoff(limits.backoff, attempts),
                |after| after.min(limits.longest_retry_after),
            );
            tracing::debug!(%error, ?pause, "the webhook will be called again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(
        &self,
        delivery: &str,
        body: &Bytes,
        limits: &NotifyLimits,
    ) -> reqwest::Result<Response> {
        let mut call = self
            .client
            .post(self.url.clone())
            .timeout(limits.webhook_timeout)
            .header(CONTENT_TYPE, "application/json")
            .header("X-Larder-Event", "change")
            .header("X-Larder-Delivery", delivery);
        if let Some(signer) = &self.signer {
            let signature = signer.clone().chain_update(body).finalize().into_bytes();
            call = call.header("X-Larder-Signature", format!("sha256={}", hex(&signature)));
        }
        call.body(body.clone()).send().await
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("server", &self.server())
            .field("is_signed", &self.signer.is_some())
            .finish_non_exhaustive()
    }
}

fn client(url: &Url) -> Result<Client, NotifierError> {
    // Several libraries of one program may want to; the first one's choice stands.
    _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none());
    // The proxies that the environment names cannot reach what is on this machine.
    let builder = if is_local(url) { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| NotifierError::Client(causes(error)))
}

fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost"
            || host.ends_with(".localhost")
            || address.is_ok_and(|address| address.is_loopback())
    })
}

/// Whether it may be gone at the next call.
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// The seconds that a server wants to be left alone for.
fn retry_after(answer: &Response) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    text.parse().ok().map(Duration::from_secs)
}

/// Full jitter: those who failed together do not come back together.
fn backoff(first: Duration, attempts: u32) -> Duration {
    let ceiling = first.saturating_mul(2_u32.saturating_pow(attempts - 1));
    ceiling.mul_f64(fastrand::f64())
}

fn refused(server: String, status: StatusCode, attempts: u32, most: u32) -> NotifyError {
    let hint = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "; check the webhook's secret, and what its URL holds"
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => "; check the webhook's URL",
        status if status.is_redirection() => {
            "; it leads elsewhere, and is not followed: write where it leads as the webhook's URL"
        }
        status if is_passing(status) => "; its operator may know when it will be back",
        _ => "; check that this server takes changes of Larder",
    };
    NotifyError::Refused { server, status: status.as_u16(), attempts, most, hint }
}

/// What went wrong, without the URL that reqwest's own text holds.
fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.chars().take(LONGEST).collect()
}
