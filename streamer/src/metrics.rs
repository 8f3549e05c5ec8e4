//! What is counted, in the text format of Prometheus.
//!
//! Names and labels are part of the contract: dashboards and alerts stand on them. No label holds what a client may
//! choose freely, so that nobody can make series without end.

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seconds until the head of an answer: from a page out of memory to a batch that waits for a lock.
const LATENCY_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

type Label<V> = (&'static str, V);
type Latencies = Family<[Label<String>; 1], Histogram, fn() -> Histogram>;
type Real = Gauge<f64, AtomicU64>;

/// How a client follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    Sse,
    /// A WebSocket.
    WebSocket,
    /// A poll that waits.
    Poll,
    /// A request for a shape, until its answer is sent: most of them are live and wait.
    Shape,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::WebSocket => "websocket",
            Self::Poll => "poll",
            Self::Shape => "shape",
        }
    }
}

/// All numbers of one streamer.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<[Label<String>; 3], Counter>,
    latencies: Latencies,
    clients: Family<[Label<&'static str>; 1], Gauge>,
    streams: Family<[Label<&'static str>; 1], Counter>,
    batches: Family<[Label<&'static str>; 1], Counter>,
    accepted: Counter,
    rejected: Family<[Label<String>; 1], Counter>,
    moment: Moment,
}

/// What is looked up when somebody asks. Named as in the text, without the prefix.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each has its text where it is registered")]
pub struct Moment {
    pub up: Gauge,
    pub database_up: Gauge,
    pub head_lsn: Gauge,
    pub confirmed_lsn: Gauge,
    pub lag_bytes: Gauge,
    pub ring_bytes: Gauge,
    pub ring_start_lsn: Gauge,
    pub log_events: Counter,
    pub log_transactions: Counter,
    pub watermark_position: Gauge,
    pub watermark_age: Real,
    pub joins: Gauge,
    pub catch_ups: Counter,
    pub streams_ended: Family<[Label<&'static str>; 1], Counter>,
    pub publisher_connected: Gauge,
    pub publisher_lsn: Gauge,
    pub published: Counter,
    pub publisher_gaps: Counter,
    pub publisher_rewinds: Counter,
    pub slot_active: Gauge,
    pub slot_status: Family<[Label<&'static str>; 1], Gauge>,
    pub slot_retained_bytes: Gauge,
    pub pool_connections: Family<[Label<&'static str>; 1], Gauge>,
    pub pool_waiting: Gauge,
    pub resident_memory: Gauge,
    pub open_fds: Gauge,
    pub max_fds: Gauge,
    pub cpu_seconds: Counter<f64, AtomicU64>,
}

impl Metrics {
    /// All at zero, of the streamer of this replica; `publishes`: to Redis.
    pub fn new(replica: &str, publishes: bool) -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            latencies: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            clients: Family::default(),
            streams: Family::default(),
            batches: Family::default(),
            accepted: Counter::default(),
            rejected: Family::default(),
            moment: Moment::default(),
        };
        let build = Family::<[Label<String>; 2], Gauge>::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        build.get_or_create(&[("version", version), ("replica", replica.to_owned())]).set(1);
        registry.register("headwater_build_info", "Always 1; the labels tell what runs", build);
        let of = &metrics;
        registry.register("headwater_http_requests", "Requests answered, by route and status", of.requests.clone());
        registry.register(
            "headwater_http_request_duration_seconds",
            "Time until the head of the answer, by route",
            of.latencies.clone(),
        );
        registry.register("headwater_clients", "Streams that are open, by transport", of.clients.clone());
        registry.register("headwater_streams_begun", "Streams begun, by transport", of.streams.clone());
        registry.register("headwater_batches", "Batches posted: taken, or the code of the problem", of.batches.clone());
        registry.register("headwater_events_accepted", "Events of clients that were stored", of.accepted.clone());
        registry.register("headwater_events_rejected", "Events of clients that were not, by code", of.rejected.clone());
        metrics.moment.register(&mut registry);
        if publishes {
            metrics.moment.register_publisher(&mut registry);
        }
        Self { registry, ..metrics }
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &str, status: u16, after: Duration) {
        let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        self.latencies.get_or_create(&[("route", route.to_owned())]).observe(after.as_secs_f64());
    }

    /// A stream begins.
    pub fn begins(&self, transport: Transport) {
        self.clients.get_or_create(&[("transport", transport.name())]).inc();
        self.streams.get_or_create(&[("transport", transport.name())]).inc();
    }

    /// It ends.
    pub fn ends(&self, transport: Transport) {
        self.clients.get_or_create(&[("transport", transport.name())]).dec();
    }

    /// Streams that are open, by transport.
    pub fn open_streams(&self) -> [(&'static str, i64); 4] {
        [Transport::Sse, Transport::WebSocket, Transport::Poll, Transport::Shape]
            .map(|transport| (transport.name(), self.open(transport).get()))
    }

    /// How many are open now, for whoever counts them by himself.
    pub fn open(&self, transport: Transport) -> Gauge {
        self.clients.get_or_create(&[("transport", transport.name())]).clone()
    }

    /// A batch was judged: so many events accepted, and the codes of the others.
    pub fn judged<'a>(&self, accepted: usize, rejected: impl Iterator<Item = &'a str>) {
        self.batches.get_or_create(&[("outcome", "taken")]).inc();
        self.accepted.inc_by(accepted as u64);
        for code in rejected {
            self.rejected.get_or_create(&[("code", code.to_owned())]).inc();
        }
    }

    /// A batch was refused as a whole.
    pub fn refused(&self, code: &'static str) {
        self.batches.get_or_create(&[("outcome", code)]).inc();
    }

    /// For setting what is looked up.
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus_text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}

impl Moment {
    fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("headwater_up", "1 while the write-ahead log streams", &self.up);
        gauge("headwater_database_up", "1 if the database answers", &self.database_up);
        gauge("headwater_head_lsn_bytes", "Position in the WAL up to which all was received", &self.head_lsn);
        gauge("headwater_confirmed_lsn_bytes", "Position up to which the slot is confirmed", &self.confirmed_lsn);
        gauge("headwater_lag_bytes", "WAL that was written and not received yet", &self.lag_bytes);
        gauge("headwater_ring_bytes", "Memory of the ring", &self.ring_bytes);
        gauge("headwater_ring_start_lsn_bytes", "First position that the ring covers", &self.ring_start_lsn);
        gauge(
            "headwater_watermark_position",
            "Position below which no event can appear any more",
            &self.watermark_position,
        );
        gauge("headwater_joins", "Readers that are being joined to the log just now", &self.joins);
        gauge("headwater_slot_active", "1 if the slot is in use", &self.slot_active);
        gauge(
            "headwater_slot_retained_bytes",
            "WAL that Postgres keeps for the slot; -1 if it is gone",
            &self.slot_retained_bytes,
        );
        gauge("headwater_pool_waiting", "Requests that wait for a connection to Postgres", &self.pool_waiting);
        gauge("process_resident_memory_bytes", "Memory in RAM", &self.resident_memory);
        gauge("process_open_fds", "File descriptors in use", &self.open_fds);
        gauge("process_max_fds", "File descriptors that may be in use", &self.max_fds);
        registry.register(
            "headwater_watermark_age_seconds",
            "Time since the watermark was last found; grows behind an open writer",
            self.watermark_age.clone(),
        );
        registry.register(
            "headwater_slot_wal_status",
            "1 at the state that the slot is in (pg_replication_slots.wal_status)",
            self.slot_status.clone(),
        );
        registry.register(
            "headwater_pool_connections",
            "Connections to Postgres, by state",
            self.pool_connections.clone(),
        );
        registry.register(
            "headwater_streams_ended",
            "Streams that ended, by reason: left, slow, expired, reset, shutdown",
            self.streams_ended.clone(),
        );
        registry.register(
            "headwater_catch_ups",
            "Readers behind the ring that were brought to it from the table",
            self.catch_ups.clone(),
        );
        registry.register("headwater_log_events", "Events read from the log", self.log_events.clone());
        registry.register(
            "headwater_log_transactions",
            "Transactions read from the log",
            self.log_transactions.clone(),
        );
        registry.register("process_cpu_seconds", "Processor time used", self.cpu_seconds.clone());
    }

    /// Only where there is one: a zero would look like a Redis that is down.
    fn register_publisher(&self, registry: &mut Registry) {
        let connected = self.publisher_connected.clone();
        registry.register("headwater_publisher_connected", "1 if Redis answered last time", connected);
        let lsn = self.publisher_lsn.clone();
        registry.register("headwater_publisher_lsn_bytes", "Position up to which all was published", lsn);
        let published = self.published.clone();
        registry.register(
            "headwater_published_events",
            "Entries that this publisher has added to the relay",
            published,
        );
        let gaps = self.publisher_gaps.clone();
        registry.register("headwater_publisher_gaps", "Holes in the relay that the ring could not fill", gaps);
        let rewinds = self.publisher_rewinds.clone();
        registry.register("headwater_publisher_rewinds", "How often Redis had lost entries", rewinds);
    }

    /// Of a counter that is kept elsewhere.
    pub fn set_count(counter: &Counter, value: u64) {
        counter.inner().store(value, Ordering::Relaxed);
    }

    /// What Linux says of this process; nothing elsewhere.
    pub fn look_at_process(&self) {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        if let Some(kibibytes) = number(resident.and_then(|rest| rest.split_whitespace().next())) {
            self.resident_memory.set(kibibytes * 1024);
        }
        let limits = read("limits");
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        if let Some(most) = number(files.and_then(|rest| rest.split_whitespace().next())) {
            self.max_fds.set(most);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(i64::try_from(open.count()).unwrap_or(i64::MAX));
        }
        // Fields 14 and 15 of /proc/self/stat, counted behind the name in parentheses; ticks of 10 ms (proc(5)).
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = number(fields.get(11).copied()).zip(number(fields.get(12).copied()));
        if let Some((user, system)) = ticks {
            let seconds = Duration::from_millis(u64::try_from(user + system).unwrap_or(0) * 10).as_secs_f64();
            self.cpu_seconds.inner().store(seconds.to_bits(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text() {
        let metrics = Metrics::new("eu", true);
        metrics.answered("GET", "/api/v1/events/since", 200, Duration::from_millis(3));
        metrics.begins(Transport::Sse);
        metrics.begins(Transport::Sse);
        metrics.ends(Transport::Sse);
        metrics.judged(3, ["forbidden", "conflict", "forbidden"].into_iter());
        metrics.refused("invalid_batch");
        Moment::set_count(&metrics.moment().log_events, 7);
        metrics.moment().look_at_process();
        let text = metrics.text();
        for line in [
            r#"headwater_http_requests_total{method="GET",route="/api/v1/events/since",status="200"} 1"#,
            r#"headwater_http_request_duration_seconds_bucket{route="/api/v1/events/since",le="0.005"} 1"#,
            r#"headwater_clients{transport="sse"} 1"#,
            r#"headwater_streams_begun_total{transport="sse"} 2"#,
            r#"headwater_batches_total{outcome="taken"} 1"#,
            r#"headwater_batches_total{outcome="invalid_batch"} 1"#,
            "headwater_events_accepted_total 3",
            r#"headwater_events_rejected_total{code="forbidden"} 2"#,
            "headwater_log_events_total 7",
            "# TYPE headwater_lag_bytes gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(resident.and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|bytes| bytes > 1 << 20), "{text}");
    }

    /// An alert on a name that nobody sets never fires.
    #[test]
    fn alerts_and_dashboard_stand_on_metrics_that_there_are() {
        let metrics = Metrics::new("eu", true);
        // Families are there from their first label on.
        metrics.answered("GET", "/", 200, Duration::ZERO);
        metrics.begins(Transport::Sse);
        metrics.judged(1, ["forbidden"].into_iter());
        metrics.moment().slot_status.get_or_create(&[("status", "lost")]).set(0);
        metrics.moment().pool_connections.get_or_create(&[("state", "idle")]).set(0);
        metrics.moment().streams_ended.get_or_create(&[("reason", "left")]).inc();
        let text = metrics.text();
        let types: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let files = [
            include_str!("../../packaging/alerts.yml"),
            include_str!("../../packaging/grafana.json"),
            include_str!("../../docs/operations.md"),
        ];
        let mut found = 0;
        for file in files {
            for name in file.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_')) {
                let ours =
                    name.strip_prefix("headwater_").is_some_and(|rest| NAMED.iter().any(|end| rest.ends_with(end)));
                if !(ours || name.strip_prefix("process_").is_some_and(|rest| !rest.is_empty())) {
                    continue;
                }
                found += 1;
                let ends = ["_total", "_bucket", "_count", "_sum"];
                let base = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                assert!(types.contains(&name) || types.contains(&base), "{name} is not in\n{text}");
            }
        }
        assert!(found > 30, "{found}");
    }

    /// How the names of metrics end, as opposed to those of roles, slots and publications.
    const NAMED: [&str; 14] = [
        "_total",
        "_bucket",
        "_bytes",
        "_seconds",
        "up",
        "clients",
        "joins",
        "status",
        "active",
        "connections",
        "waiting",
        "position",
        "connected",
        "info",
    ];
}
