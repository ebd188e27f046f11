//! The resolver against a name server on loopback.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::UdpSocket;

use super::*;

/// What the name server knows: records by lower-case name, and names it has trouble with.
#[derive(Clone, Default)]
struct Zone {
    records: HashMap<String, Vec<RData>>,
    troubles: HashMap<String, ResponseCode>,
    queries: Arc<AtomicUsize>,
}

impl Zone {
    fn add(mut self, name: &str, data: RData) -> Self {
        self.records.entry(format!("{name}.")).or_default().push(data);
        self
    }

    fn mx(self, name: &str, preference: u16, exchange: &str) -> Self {
        self.add(name, RData::MX(MX::new(preference, Name::from_ascii(exchange).unwrap())))
    }

    fn address(self, name: &str, address: &str) -> Self {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(name, data)
    }

    fn pointer(self, reverse: &str, name: &str) -> Self {
        self.add(reverse, RData::PTR(PTR(Name::from_ascii(name).unwrap())))
    }

    fn trouble(mut self, name: &str, code: ResponseCode) -> Self {
        self.troubles.insert(format!("{name}."), code);
        self
    }

    /// A resolver that asks a server with this zone.
    async fn serve(self) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut server = Server::new(self);
        server.register_socket(socket);
        tokio::spawn(async move { server.block_until_done().await });
        Dns::new(DnsConfig::with_server(address)).unwrap()
    }

    fn answer(&self, name: &Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let text = name.to_ascii().to_ascii_lowercase();
        if let Some(code) = self.troubles.get(&text) {
            return (*code, vec![]);
        }
        let Some(data) = self.records.get(&text) else { return (ResponseCode::NXDomain, vec![]) };
        let records = data
            .iter()
            .filter(|data| data.record_type() == kind || matches!(data, RData::CNAME(_)))
            .map(|data| Record::from_rdata(name.clone(), 60, data.clone()));
        (ResponseCode::NoError, records.collect())
    }
}

impl RequestHandler for Zone {
    fn handle_request<'zone, 'request, 'future, R, T>(
        &'zone self,
        request: &'request Request,
        mut handle: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'future>>
    where
        R: ResponseHandler + 'future,
        T: Time + 'future,
        'zone: 'future,
        'request: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let query = request.request_info().unwrap().query.original().clone();
            let (code, records) = self.answer(query.name(), query.query_type());
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.response_code = code;
            let builder = MessageResponseBuilder::from_message_request(request);
            let response = builder.build(metadata, &records, [], [], []);
            handle.send_response(response).await.unwrap_or_else(|_| {
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            })
        })
    }
}

/// `preference host address,address` of each exchange.
fn shown(answer: Result<Vec<Exchange>, DnsFailure>) -> Result<Vec<String>, DnsFailure> {
    let show = |exchange: Exchange| {
        let addresses: Vec<String> = exchange.addresses.iter().map(ToString::to_string).collect();
        format!("{} {} {}", exchange.preference, exchange.host, addresses.join(","))
    };
    answer.map(|exchanges| exchanges.into_iter().map(show).collect())
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

// queue cases 91 to 96
#[tokio::test]
async fn mail_for_a_domain_goes_where_its_records_say() {
    let dns = Zone::default()
        .mx("several.test", 20, "b.test.")
        .mx("several.test", 10, "a.test.")
        .mx("several.test", 10, "c.test.")
        .mx("null.test", 0, ".")
        .mx("local.test", 0, "localhost.")
        .mx("local.test", 10, "a.test.")
        .mx("onlylocal.test", 5, "LocalHost.")
        .mx("dead.test", 10, "gone.test.")
        .mx("half.test", 10, "gone.test.")
        .mx("half.test", 20, "a.test.")
        .address("a.test", "192.0.2.1")
        .address("a.test", "2001:db8::1")
        .address("b.test", "192.0.2.2")
        .address("c.test", "192.0.2.3")
        .add("alias.test", RData::CNAME(CNAME(Name::from_ascii("b.test.").unwrap())))
        .trouble("servfail.test", ResponseCode::ServFail)
        .trouble("refused.test", ResponseCode::Refused)
        .trouble("notimp.test", ResponseCode::NotImp)
        .add("empty.test", RData::TXT(hickory_server::proto::rr::rdata::TXT::new(vec![])))
        .serve()
        .await;
    let a = "a.test 2001:db8::1,192.0.2.1";
    let cases = [
        (
            "several.test",
            Ok(vec![format!("10 {a}"), "10 c.test 192.0.2.3".into(), "20 b.test 192.0.2.2".into()]),
        ),
        (
            "Several.TEST",
            Ok(vec![format!("10 {a}"), "10 c.test 192.0.2.3".into(), "20 b.test 192.0.2.2".into()]),
        ),
        ("local.test", Ok(vec![format!("10 {a}")])),
        ("half.test", Ok(vec!["10 gone.test ".into(), format!("20 {a}")])),
        ("a.test", Ok(vec![format!("0 {a}")])),
        ("[127.0.0.9]", Ok(strings(&["0 [127.0.0.9] 127.0.0.9"]))),
        ("[IPv6:::1]", Ok(strings(&["0 [IPv6:::1] ::1"]))),
        ("nowhere.test", Err(DnsFailure::DoesNotExist)),
        ("[nonsense]", Err(DnsFailure::DoesNotExist)),
        ("a..b", Err(DnsFailure::DoesNotExist)),
        ("null.test", Err(DnsFailure::RefusesMail)),
        ("onlylocal.test", Err(DnsFailure::RefusesMail)),
        ("dead.test", Err(DnsFailure::NoExchange)),
        ("empty.test", Err(DnsFailure::NoExchange)),
        ("servfail.test", Err(DnsFailure::Temporary)),
        ("refused.test", Err(DnsFailure::Temporary)),
        ("notimp.test", Err(DnsFailure::Temporary)),
    ];
    for (domain, expected) in cases {
        assert_eq!(shown(dns.mx(domain).await), expected, "{domain}");
    }
}

#[tokio::test]
async fn a_smart_host_is_looked_up_by_address() {
    let dns = Zone::default()
        .mx("relay.test", 10, "elsewhere.test.")
        .address("relay.test", "192.0.2.1")
        .trouble("servfail.test", ResponseCode::ServFail)
        .serve()
        .await;
    let host = async |name: &str| shown(dns.host(name).await.map(|one| vec![one]));
    assert_eq!(host("relay.test").await, Ok(strings(&["0 relay.test 192.0.2.1"])));
    assert_eq!(host("[::1]").await, Ok(strings(&["0 [::1] ::1"])));
    assert_eq!(host("127.0.0.1").await, Ok(strings(&["0 127.0.0.1 127.0.0.1"])));
    for name in ["nowhere.test", "servfail.test", "[x]", ""] {
        assert_eq!(host(name).await, Err(DnsFailure::HostNotFound), "{name:?}");
    }
}

// smtp page, 1.3: fcrdns
#[tokio::test]
async fn a_reverse_name_counts_when_it_leads_back() {
    let no_host = Name::from_labels([&b"a b"[..], b"test"]).unwrap();
    let dns = Zone::default()
        .pointer("1.2.0.192.in-addr.arpa", "good.test.")
        .address("good.test", "192.0.2.9")
        .address("good.test", "192.0.2.1")
        .pointer("2.2.0.192.in-addr.arpa", "other.test.")
        .address("other.test", "192.0.2.9")
        .pointer("3.2.0.192.in-addr.arpa", "gone.test.")
        .pointer("4.2.0.192.in-addr.arpa", "broken.test.")
        .trouble("broken.test", ResponseCode::ServFail)
        .trouble("5.2.0.192.in-addr.arpa", ResponseCode::ServFail)
        .add("7.2.0.192.in-addr.arpa", RData::PTR(PTR(no_host)))
        .pointer(&format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23)), "six.test.")
        .address("six.test", "2001:db8::1")
        .address("six.test", "192.0.2.1")
        .serve()
        .await;
    let cases = [
        ("192.0.2.1", Some("good.test"), Confirmed::Pass),
        ("192.0.2.2", Some("other.test"), Confirmed::Fail),
        ("192.0.2.3", Some("gone.test"), Confirmed::Fail),
        ("192.0.2.4", Some("broken.test"), Confirmed::Error),
        ("192.0.2.5", None, Confirmed::Error),
        ("192.0.2.6", None, Confirmed::Fail),
        ("192.0.2.7", None, Confirmed::Fail),
        ("2001:db8::1", Some("six.test"), Confirmed::Pass),
    ];
    for (address, name, confirmed) in cases {
        let expected = Reverse { name: name.map(Into::into), confirmed };
        assert_eq!(dns.reverse(address.parse().unwrap()).await, expected, "{address}");
    }
}

#[tokio::test]
async fn answers_are_kept_for_their_time() {
    let zone = Zone::default()
        .mx("r.test", 10, "a.test.")
        .address("a.test", "192.0.2.1")
        .address("a.test", "2001:db8::1");
    let queries = Arc::clone(&zone.queries);
    let dns = zone.serve().await;
    let first = shown(dns.mx("r.test").await);
    let asked = queries.load(Ordering::Relaxed);
    assert_eq!(asked, 3, "MX, AAAA, A");
    assert_eq!(shown(dns.clone().mx("r.test").await), first);
    assert_eq!(queries.load(Ordering::Relaxed), asked);
}

#[test]
fn a_resolver_can_be_made_before_the_runtime() {
    let dns = Dns::new(DnsConfig::from_system()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(dns.host("[192.0.2.1]")).unwrap();
    assert_eq!(found.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
}
