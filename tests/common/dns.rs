//! A name server on loopback that knows what the test tells it.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::OnceLock;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, MX, PTR};
use hickory_server::proto::rr::{Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

/// Records by lower-case name with its final dot.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    records: HashMap<String, Vec<RData>>,
}

impl Zone {
    /// A zone from text: lines `mx DOMAIN PREFERENCE HOST`, `address HOST ADDRESS` and
    /// `pointer ADDRESS HOST`; `#` begins a comment line.
    ///
    /// # Panics
    /// At a line that is none of these.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.fold(Self::default(), |zone, line| {
            match *line.split_ascii_whitespace().collect::<Vec<_>>() {
                ["mx", domain, preference, host] => {
                    zone.mx(domain, preference.parse().unwrap(), host)
                }
                ["address", host, address] => zone.address(host, address.parse().unwrap()),
                ["pointer", address, host] => zone.pointer(address.parse().unwrap(), host),
                _ => panic!("not a record: {line}"),
            }
        })
    }

    /// Adds a mail exchange.
    #[must_use]
    pub fn mx(self, domain: &str, preference: u16, host: &str) -> Self {
        self.add(domain, RData::MX(MX::new(preference, name(host))))
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, host: &str, address: IpAddr) -> Self {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(host, data)
    }

    /// Adds the name of an address.
    #[must_use]
    pub fn pointer(self, address: Ipv4Addr, host: &str) -> Self {
        let [a, b, c, d] = address.octets();
        self.add(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), RData::PTR(PTR(name(host))))
    }

    fn add(mut self, owner: &str, data: RData) -> Self {
        self.records.entry(format!("{}.", owner.to_ascii_lowercase())).or_default().push(data);
        self
    }
}

fn name(host: &str) -> Name {
    Name::from_ascii(format!("{host}.")).unwrap()
}

/// A running name server; it ends with this value.
pub struct NameServer {
    address: SocketAddr,
    // Its threads serve; they end with it.
    _runtime: Runtime,
}

impl NameServer {
    /// Serves `zone` over UDP on a free port.
    pub fn start(zone: Zone) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = runtime.block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let mut server = Server::new(zone);
            server.register_socket(socket);
            tokio::spawn(async move { server.block_until_done().await });
            address
        });
        Self { address, _runtime: runtime }
    }

    /// Where it listens, as `--resolver` wants it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

/// The address of a name server that all servers of a test program share. It knows loopback.
pub fn shared() -> String {
    static SHARED: OnceLock<NameServer> = OnceLock::new();
    let start = || {
        let loopback = Ipv4Addr::LOCALHOST;
        let zone = Zone::default().pointer(loopback, "localhost");
        NameServer::start(zone.address("localhost", loopback.into()))
    };
    SHARED.get_or_init(start).address()
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
            let owner = query.name().to_ascii().to_ascii_lowercase();
            let mut metadata = Metadata::response_from_request(&request.metadata);
            let found = self.records.get(&owner);
            if found.is_none() {
                metadata.response_code = ResponseCode::NXDomain;
            }
            let records: Vec<Record> = found
                .into_iter()
                .flatten()
                .filter(|data| data.record_type() == query.query_type())
                .map(|data| Record::from_rdata(query.name().clone(), 60, data.clone()))
                .collect();
            let builder = MessageResponseBuilder::from_message_request(request);
            let response = builder.build(metadata, &records, [], [], []);
            handle.send_response(response).await.unwrap_or_else(|_| {
                ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
            })
        })
    }
}
