//! `dns_sd_configs`: names whose records are targets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_resolver::TokioResolver;

use super::{Found, poll};
use crate::scrape::config::{DnsDiscovery, DnsRecord, TargetGroup};

/// Asks until it is dropped.
pub(super) async fn follow(config: &DnsDiscovery, found: &Found) {
    let what = config.names.join(" ");
    let resolver = match TokioResolver::builder_tokio() {
        Ok(builder) => builder.build(),
        Err(error) => return found.fail(&what, format!("/etc/resolv.conf: {error}")),
    };
    poll(&what, config.refresh_interval, found, || ask(&resolver, config)).await;
}

async fn ask(resolver: &TokioResolver, config: &DnsDiscovery) -> Result<Vec<TargetGroup>, String> {
    let mut groups = Vec::new();
    for name in &config.names {
        groups.extend(records(resolver, config, name).await.map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(groups)
}

async fn records(
    resolver: &TokioResolver,
    config: &DnsDiscovery,
    name: &str,
) -> Result<Vec<TargetGroup>, hickory_resolver::ResolveError> {
    let port = config.port.unwrap_or_default();
    let group = |host: &str, port: u16, more: &[(&str, &str)]| group(name, host, port, more);
    Ok(match config.record {
        DnsRecord::A => {
            let found = resolver.ipv4_lookup(name).await?;
            found.iter().map(|address| group(&address.0.to_string(), port, &[])).collect()
        }
        DnsRecord::Aaaa => {
            let found = resolver.ipv6_lookup(name).await?;
            found.iter().map(|address| group(&address.0.to_string(), port, &[])).collect()
        }
        DnsRecord::Srv => {
            let found = resolver.srv_lookup(name).await?;
            let srv = found.iter().map(|record| {
                let (host, port) = (unrooted(&record.target().to_string()), record.port());
                let text = port.to_string();
                let more = [("srv_record_target", host.as_str()), ("srv_record_port", text.as_str())];
                group(&host, port, &more)
            });
            srv.collect()
        }
        DnsRecord::Mx => {
            let found = resolver.mx_lookup(name).await?;
            let hosts = found.iter().map(|record| unrooted(&record.exchange().to_string()));
            hosts.map(|host| group(&host, port, &[("mx_record_target", host.as_str())])).collect()
        }
        DnsRecord::Ns => {
            let found = resolver.ns_lookup(name).await?;
            let hosts = found.iter().map(|record| unrooted(&record.0.to_string()));
            hosts.map(|host| group(&host, port, &[("ns_record_target", host.as_str())])).collect()
        }
    })
}

/// Without the dot that ends a complete name.
fn unrooted(name: &str) -> String {
    name.trim_end_matches('.').to_owned()
}

fn group(name: &str, host: &str, port: u16, more: &[(&str, &str)]) -> TargetGroup {
    let host = match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    };
    let mut labels = BTreeMap::from([("__meta_dns_name".to_owned(), name.to_owned())]);
    labels.extend(more.iter().map(|(key, value)| (format!("__meta_dns_{key}"), (*value).to_owned())));
    TargetGroup { targets: vec![format!("{host}:{port}")], labels }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use hickory_resolver::Resolver;
    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::name_server::TokioConnectionProvider;
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, AAAA, MX, NS, SRV};
    use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
    use hickory_resolver::proto::xfer::Protocol;
    use tokio::net::UdpSocket;

    use super::{DnsDiscovery, DnsRecord, ask};

    fn record(name: &Name, kind: RecordType) -> Option<RData> {
        let target = Name::from_ascii("a.mesh.test.").unwrap();
        Some(match kind {
            RecordType::A => RData::A(A::new(10, 0, 0, 1)),
            RecordType::AAAA => RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
            RecordType::SRV => RData::SRV(SRV::new(0, 0, 9102, target)),
            RecordType::MX => RData::MX(MX::new(1, target)),
            RecordType::NS => RData::NS(NS(target)),
            _ => return None,
        })
        .filter(|_| name.to_string() == "mesh.test.")
    }

    /// A name server of one name.
    async fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let mut message = Message::from_vec(&buffer[..length]).unwrap();
                let query = message.queries()[0].clone();
                message.set_message_type(MessageType::Response);
                match record(query.name(), query.query_type()) {
                    Some(data) => {
                        message.add_answer(Record::from_rdata(query.name().clone(), 1, data));
                    }
                    None => {
                        message.set_response_code(ResponseCode::NXDomain);
                    }
                }
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    async fn found(record: DnsRecord, name: &str) -> Result<(String, String), String> {
        let mut config = ResolverConfig::new();
        config.add_name_server(NameServerConfig::new(name_server().await, Protocol::Udp));
        let resolver = Resolver::builder_with_config(config, TokioConnectionProvider::default()).build();
        let names = vec![name.to_owned()];
        let discovery = DnsDiscovery { names, record, port: Some(80), refresh_interval: Duration::from_secs(30) };
        let mut groups = ask(&resolver, &discovery).await?;
        assert_eq!(groups.len(), 1, "{groups:?}");
        let group = groups.remove(0);
        let labels: Vec<String> = group.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok((group.targets.join(","), labels.join(" ")))
    }

    #[tokio::test]
    async fn records_are_targets() {
        let name = "__meta_dns_name=mesh.test.";
        for (record, target, more) in [
            (DnsRecord::A, "10.0.0.1:80", ""),
            (DnsRecord::Aaaa, "[fd00::1]:80", ""),
            (
                DnsRecord::Srv,
                "a.mesh.test:9102",
                " __meta_dns_srv_record_port=9102 __meta_dns_srv_record_target=a.mesh.test",
            ),
            (DnsRecord::Mx, "a.mesh.test:80", " __meta_dns_mx_record_target=a.mesh.test"),
            (DnsRecord::Ns, "a.mesh.test:80", " __meta_dns_ns_record_target=a.mesh.test"),
        ] {
            let mut labels: Vec<&str> = [name].into_iter().chain(more.split_whitespace()).collect();
            labels.sort_unstable();
            assert_eq!(found(record, "mesh.test.").await.unwrap(), (target.to_owned(), labels.join(" ")));
        }
        assert!(found(DnsRecord::A, "other.test.").await.unwrap_err().starts_with("other.test.: "));
    }
}
