//! Addresses that only this machine, or its own network, can reach.

use std::{
    env, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::Host;

/// A name, or an address, that leads to a private address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrivateAddress;

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it is at a private address; if that is meant, write `allow_private: true` at the source",
        )
    }
}

impl std::error::Error for PrivateAddress {}

/// Whether the host of `url` is written as a private address, or names this machine.
pub(crate) fn is_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_private_v4(address),
        Some(Host::Ipv6(address)) => is_private_v6(address),
        Some(Host::Domain(name)) => is_local_name(name),
        None => true,
    }
}

/// RFC 6761: whoever resolves it, it is this machine.
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn is_private_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

/// The special-purpose registry of RFC 6890, as far as its addresses are not global.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        // A cloud's own service for its machines, at a public address.
        || address == Ipv4Addr::new(168, 63, 129, 16)
        || matches!(
            (a, b, c),
            (0 | 240..=255, ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _)
        )
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Unspecified, loopback, and IPv4 in two old forms.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => high == 0 && low < 2 || embedded(high, low),
        // NAT64, by which a gateway reaches IPv4, and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // NAT64 for private use; Teredo, in which an address is not written plainly; unique local,
        // link-local, site-local, multicast.
        [0x64, 0xff9b, 1, ..]
        | [0x2001, 0, ..]
        | [0xfc00..=0xfdff | 0xfe80..=0xfeff | 0xff00..=0xffff, ..] => true,
        _ => false,
    }
}

/// Resolves names to public addresses only. What it gives is what is connected to: a name cannot lead
/// elsewhere between a check and its use. Where a proxy is asked, it is the proxy that resolves them.
#[derive(Debug)]
pub(crate) struct PublicOnly {
    /// The proxies that the environment names, which may be in the same network.
    proxies: Arc<[String]>,
}

impl PublicOnly {
    pub(crate) fn new() -> Self {
        let names =
            ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
        let host = |name: &str| {
            let text = env::var(name).ok()?;
            proxy_host(&text)
        };
        Self { proxies: names.into_iter().filter_map(host).collect() }
    }
}

/// The host of a proxy as the environment names it, with or without a scheme.
fn proxy_host(text: &str) -> Option<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&url).ok()?.host_str().map(str::to_owned)
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let proxies = Arc::clone(&self.proxies);
        Box::pin(async move {
            let name = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            let is_proxy = proxies.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
            let public: Vec<SocketAddr> = found
                .into_iter()
                .filter(|found| is_proxy || !is_private_address(found.ip()))
                .collect();
            if public.is_empty() {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(url: &str) -> bool {
        is_private(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_proxy_is_known_with_and_without_a_scheme() {
        for text in ["http://Proxy.corp:3128", "Proxy.corp:3128", "user:word@proxy.corp:3128/"] {
            assert_eq!(proxy_host(text).as_deref(), Some("proxy.corp"), "{text}");
        }
        assert_eq!(proxy_host("localhost:3128").as_deref(), Some("localhost"));
        assert_eq!(proxy_host(""), None);
    }

    #[test]
    fn private_addresses_are_known_however_they_are_written() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://10.1.2.3/",
            "http://172.31.0.1/",
            "http://192.168.1.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://198.18.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:7f00:1::]/",
            "http://[2001:0:1::]/",
            "http://[fc00::1]/",
            "http://[fd12::1]/",
            "http://[fe80::1]/",
            "http://[ff02::1]/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://user@127.0.0.1/",
            "http://①②⑦.0.0.1/",
        ] {
            assert!(private(url), "{url}");
        }
        for url in [
            "https://api.census.gov/",
            "http://8.8.8.8/",
            "http://172.32.0.1/",
            "http://100.128.0.1/",
            "http://[2606:4700::1111]/",
            "http://[64:ff9b::808:808]/",
            "http://localhost.example/",
        ] {
            assert!(!private(url), "{url}");
        }
    }
}
