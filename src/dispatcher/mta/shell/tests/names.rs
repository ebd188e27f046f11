//! Outgoing mail that finds its servers by names that tests make up, and what it tells.

use super::*;

/// Names that tests give addresses to; everything else does not exist.
#[derive(Default)]
pub(super) struct Names {
    pub(super) exchanges: HashMap<&'static str, Result<Vec<Exchange>, DnsFailure>>,
    pub(super) smart_hosts: HashMap<String, String>,
    /// Looking up any of this panics.
    pub(super) defects: Vec<&'static str>,
}

impl Names {
    pub(super) fn with_defect(defect: &'static str) -> Self {
        Self { defects: vec![defect], ..Self::default() }
    }

    pub(super) fn check(&self, what: &str) {
        assert!(!self.defects.contains(&what), "a defect");
    }
}

pub(super) fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Directory for Names {
    fn mx<'a>(&'a self, domain: &'a str) -> Answer<'a, Result<Vec<Exchange>, DnsFailure>> {
        self.check("mx");
        let known = self.exchanges.get(domain).cloned();
        ready(known.unwrap_or(Err(DnsFailure::DoesNotExist)))
    }

    fn host<'a>(&'a self, name: &'a str) -> Answer<'a, Result<Exchange, DnsFailure>> {
        let address = name.parse().map_err(|_| DnsFailure::HostNotFound);
        ready(address.map(|address| Exchange {
            preference: 0,
            host: name.to_owned(),
            addresses: vec![address],
        }))
    }

    fn reverse(&self, _: IpAddr) -> Answer<'_, Reverse> {
        self.check("reverse");
        ready(Reverse { name: Some("fake.test".into()), confirmed: Confirmed::Pass })
    }

    fn smart_host<'a>(
        &'a self,
        _table: &'a str,
        domain: Option<&'a str>,
    ) -> Answer<'a, Result<String, NoEntry>> {
        self.check("smart_host");
        let url = self.smart_hosts.get(domain.unwrap_or_default()).cloned();
        ready(url.ok_or(NoEntry))
    }

    fn source<'a>(&'a self, table: &'a str) -> Answer<'a, Result<IpAddr, NoEntry>> {
        ready(table.parse().map_err(|_| NoEntry))
    }

    fn helo<'a>(&'a self, _table: &'a str, _source: IpAddr) -> Answer<'a, Result<String, NoEntry>> {
        ready(Ok("named.test".into()))
    }
}

pub(super) struct Events(mpsc::UnboundedSender<Event>);

impl Sink for Events {
    fn event(&self, event: Event) {
        // Sessions may outlive the test that listens.
        let _ = self.0.send(event);
    }
}

/// Outgoing mail with one action, `out`, and what it tells.
pub(super) struct Out {
    pub(super) mta: Mta,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
}

impl Out {
    pub(super) fn new(target: Target, names: Names) -> Self {
        Self::with(target, names, |_, _| {})
    }

    pub(super) fn with(
        target: Target,
        names: Names,
        change: fn(&mut RelayAction, &mut Limits),
    ) -> Self {
        let mut action = RelayAction {
            name: "out".into(),
            target,
            source: None,
            helo: None,
            helo_source: None,
            mail_from: None,
            filter: None,
        };
        let mut limits =
            Limits { session_keepalive: Duration::from_millis(300), ..Limits::default() };
        change(&mut action, &mut limits);
        let settings = Settings {
            server_name: "mx.test".into(),
            actions: HashMap::from([("out".to_owned(), Arc::new(action))]),
            limits: LimitTable { default: limits, domains: HashMap::new() },
            max_deferred: 100,
        };
        let (sender, events) = mpsc::unbounded_channel();
        let mta = Mta::new(settings, Arc::new(names), Arc::new(Events(sender)));
        Self { mta, events }
    }

    pub(super) fn to(server: &Server) -> Self {
        Self::new(Target::Host(server.url()), Names::default())
    }

    /// Submits `message` to `recipients` as message number `number`.
    pub(super) fn send(&self, number: u64, recipients: &[&str], body: &Body) {
        let jobs = recipients.iter().zip(1..).map(|(recipient, low)| {
            let mut envelope = envelope(low, recipient);
            envelope.id = EnvelopeId::new((number << 32) + low).unwrap();
            envelope.route.recipient = Mailbox::parse(recipient).unwrap();
            RelayJob { envelope, sender: None, body: body.clone() }
        });
        self.mta.submit(jobs.collect());
    }

    pub(super) async fn next(&mut self) -> Event {
        timeout(Duration::from_secs(10), self.events.recv()).await.unwrap().unwrap()
    }

    /// The outcomes of the next `count` envelopes: low half of the id, and result.
    pub(super) async fn outcomes(&mut self, count: usize) -> Vec<(u64, String)> {
        let mut outcomes = Vec::new();
        while outcomes.len() < count {
            if let Event::Settled { envelope, outcome } = self.next().await {
                let text = match outcome {
                    Outcome::Delivered { dsn_relayed } => format!("delivered {dsn_relayed}"),
                    Outcome::Loop => "loop".into(),
                    Outcome::Permanent(failure) => {
                        format!("{} {}", failure.status, failure.text)
                    }
                    Outcome::Temporary(failure) => {
                        format!("{} {}", failure.status, failure.text)
                    }
                };
                outcomes.push((envelope.get() & 0xffff_ffff, text));
            }
        }
        outcomes.sort();
        outcomes
    }

    /// Waits until no relay is left.
    pub(super) async fn becomes_idle(&self) {
        for _ in 0..500 {
            if self.mta.relays().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}", self.mta.relays());
    }
}
