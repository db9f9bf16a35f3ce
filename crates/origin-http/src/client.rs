//! Connections that the origins of one program share, and where redirects may lead.

use std::sync::OnceLock;

use reqwest::{Client, Url, redirect};

use crate::{
    SetupError,
    private::{PublicOnly, is_private},
};

/// Redirects followed, on the same host and port unless the source names others: keys and headers must
/// not reach another.
const MAX_REDIRECTS: usize = 5;

/// Connections and TLS roots that the origins of one program share: reading the roots takes
/// milliseconds.
#[derive(Debug, Default)]
pub struct HttpClient {
    /// By reach, and whether what is sent is posted.
    made: [OnceLock<Client>; 6],
}

/// Which redirects are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Redirects {
    /// Whether what is sent has a body, which only 307 and 308 keep.
    pub(crate) posts: bool,
    /// Further hosts that they may lead to, in lower case.
    pub(crate) hosts: Vec<String>,
}

/// Where the servers are that a client reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// On this machine: the proxies that the environment names cannot reach that.
    Local,
    /// Anywhere.
    Private,
    /// Where everybody can reach them.
    Public,
}

impl HttpClient {
    pub(crate) fn get(&self, reach: Reach, redirects: Redirects) -> Result<Client, SetupError> {
        let place = reach as usize * 2 + usize::from(redirects.posts);
        // Where redirects lead is up to the client: a source with hosts of its own has one of its own.
        let Some(made) = self.made.get(place).filter(|_| redirects.hosts.is_empty()) else {
            return client(reach, redirects);
        };
        if let Some(client) = made.get() {
            return Ok(client.clone());
        }
        let client = client(reach, redirects)?;
        Ok(made.get_or_init(|| client).clone())
    }
}

impl Redirects {
    /// Whether an answer with `status` may lead from `first` to `next`.
    fn allow(&self, status: u16, first: &Url, next: &Url, reach: Reach) -> bool {
        // Others are followed by a GET without a body, which asks for something else.
        if self.posts && !matches!(status, 307 | 308) {
            return false;
        }
        let is_named = next.host_str().is_some_and(|host| self.hosts.iter().any(|it| it == host));
        let is_downgrade = first.scheme() == "https" && next.scheme() != "https";
        same_server(first, next)
            || is_named && !is_downgrade && (reach != Reach::Public || !is_private(next))
    }
}

fn client(reach: Reach, redirects: Redirects) -> Result<Client, SetupError> {
    // Several libraries of one program may want to; the first one's choice stands.
    _ = rustls::crypto::ring::default_provider().install_default();
    let policy = redirect::Policy::custom(move |attempt| {
        let (status, next) = (attempt.status().as_u16(), attempt.url());
        let first = attempt.previous().first();
        let allowed = first.is_some_and(|first| redirects.allow(status, first, next, reach));
        if allowed && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.stop()
        }
    });
    let builder = Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        .redirect(policy);
    let builder = match reach {
        Reach::Local => builder.no_proxy(),
        Reach::Private => builder,
        Reach::Public => builder.dns_resolver(PublicOnly::new()),
    };
    builder.build().map_err(SetupError::Client)
}

/// Whether what `first` may see, `next` may see: the same server or, instead of plain HTTP on its
/// usual port, HTTPS on its own.
pub(crate) fn same_server(first: &Url, next: &Url) -> bool {
    let port = Url::port_or_known_default;
    let same = first.scheme() == next.scheme() && port(first) == port(next);
    let secured = (first.scheme(), port(first)) == ("http", Some(80))
        && (next.scheme(), port(next)) == ("https", Some(443));
    first.host_str() == next.host_str() && (same || secured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        let same = |first: &str, next: &str| {
            same_server(&Url::parse(first).unwrap(), &Url::parse(next).unwrap())
        };
        assert!(same("https://h.example/a", "https://h.example:443/b?c"));
        assert!(same("http://h.example:8080/a", "http://h.example:8080/b"));
        assert!(same("http://h.example/a", "https://h.example/a"), "an upgrade");
        assert!(!same("https://h.example/a", "http://h.example/a"), "a downgrade");
        assert!(!same("https://h.example/", "https://h.example:8443/"));
        assert!(!same("http://h.example:8080/", "https://h.example/"));
        assert!(!same("https://h.example/", "https://www.h.example/"));
    }
}
