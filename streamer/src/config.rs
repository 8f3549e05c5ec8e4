//! Flags and environment. Every flag has a variable; the help is meant to be read.
#![expect(clippy::doc_markdown, reason = "the doc comments are the help text of a terminal")]

use crate::database::Target;
use crate::error::Error;
use crate::generate::Generate;
use crate::identity::{AdminClaim, Guard, Jwks, Keys, Operators, Secret, Tokens};
use crate::notify::{Kind, RedisSettings};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use std::path::PathBuf;
use std::time::Duration;

/// Event-sourced sync for Postgres.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read the write-ahead log of a database and serve its events over HTTP
    ///
    /// The database needs wal_level=logical and the extension headwater. The role in the URL needs LOGIN, REPLICATION
    /// and membership in headwater_writer:
    ///
    ///   create role headwater_streamer login replication in role headwater_writer;
    ///
    /// Nothing is kept on disk: stop it, kill it, run several of them (each with its own --replica).
    #[command(verbatim_doc_comment)]
    Serve(Box<Serve>),

    /// Write a typed TypeScript client of the entities that sync
    ///
    ///   headwater generate http://127.0.0.1:4000/openapi.json --output src/generated
    ///
    /// writes event types, schemas, materializers, an event store, a sync engine and React hooks, with the runtime beside
    /// them; the application needs dexie, and react for the hooks. The same document gives the same files. In CI:
    ///
    ///   headwater generate openapi.json --output src/generated --check
    ///
    /// exits 1 when the files are stale, or when a change would break events that devices still hold.
    #[command(verbatim_doc_comment)]
    Generate(Box<Generate>),

    /// Look at everything that `serve` stands on, and say how to mend what is wrong
    ///
    /// Checks the database (wal_level, slots, senders, role, extension and its version, clock, long and prepared
    /// transactions, headwater.check()) and this machine (open files). It changes nothing. Each finding comes with the
    /// statement or command that mends it:
    ///
    ///   headwater doctor --database-url postgres://headwater_streamer:…@127.0.0.1:5432/app
    ///
    /// Exit status: 0 if a streamer can work (there may be warnings), 1 if something keeps it from working.
    #[command(verbatim_doc_comment)]
    Doctor(Doctor),

    /// Show events as they happen, one a line
    ///
    ///   headwater tail                                            everything, from now on
    ///   headwater tail --entity-type order --entity-id 17         one entity
    ///   headwater tail --since 2026-01-02T03:04:05Z --json        what was recorded since, then what comes, as JSON
    ///   headwater tail --json | jq -r .payload.status             for scripts
    ///
    /// It reconnects by itself and goes on where it was: no event is left out. Ctrl-C ends it.
    #[command(verbatim_doc_comment)]
    Tail(Tail),
}

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// postgres://role:password@host:5432/database, the one that `serve` gets [env: also DATABASE_URL]
    #[arg(long, env = "HEADWATER_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,

    /// Trusted certificates (PEM) for TLS to Postgres [env: also ELECTRIC_DATABASE_CA_CERTIFICATE_FILE]
    #[arg(long, env = "HEADWATER_DATABASE_CA_FILE", value_name = "FILE")]
    pub database_ca_file: Option<String>,

    /// The Redis that `serve` gets, if any: entities may ask for it
    #[arg(long, env = "HEADWATER_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,

    /// Name of the streamer whose slot is looked at
    #[arg(long, env = "HEADWATER_REPLICA", default_value = "default", value_parser = parse_replica)]
    pub replica: String,

    /// How many clients the open files must do for
    #[arg(long, env = "HEADWATER_MAX_CONNECTIONS", default_value_t = 19_000, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub max_connections: usize,

    /// Print JSON: {"ok": …, "findings": [{"check", "level", "message", "remedy"}]}
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tail`.
#[derive(Args, Clone, Debug)]
pub struct Tail {
    /// Address of the streamer
    #[arg(env = "HEADWATER_URL", default_value = "http://127.0.0.1:4000")]
    pub url: String,

    /// A token (JWT), or the administrators' secret
    #[arg(long, env = "HEADWATER_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Only these entities (comma-separated)
    #[arg(long, value_name = "NAME")]
    pub entity_type: Option<String>,

    /// Only this entity
    #[arg(long, value_name = "ID")]
    pub entity_id: Option<String>,

    /// Only this tenant, for callers who see all
    #[arg(long, value_name = "ID")]
    pub tenant_id: Option<String>,

    /// First what was recorded since this time (RFC 3339), then what comes
    #[arg(long, value_name = "TIME", conflicts_with = "cursor")]
    pub since: Option<String>,

    /// Go on from this cursor
    #[arg(long)]
    pub cursor: Option<String>,

    /// End after so many events
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,

    /// Print each event as a line of JSON
    #[arg(long)]
    pub json: bool,

    /// Say nothing about connections
    #[arg(long, short)]
    pub quiet: bool,
}

/// Flags of `serve`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Serve {
    /// postgres://role:password@host:5432/database?sslmode=verify-full&sslrootcert=/path/to/ca.pem [env: also DATABASE_URL]
    #[arg(long, env = "HEADWATER_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,

    /// PEM file with the authorities that may vouch for Postgres' certificate, if the URL has no sslrootcert; turns
    /// sslmode=verify-full on unless the URL has another [env: also ELECTRIC_DATABASE_CA_CERTIFICATE_FILE]
    #[arg(long, env = "HEADWATER_DATABASE_CA_FILE", value_name = "FILE")]
    pub database_ca_file: Option<String>,

    /// Address to listen on [default: 127.0.0.1 with --insecure, else 0.0.0.0]
    #[arg(long, env = "HEADWATER_LISTEN", value_name = "HOST")]
    pub listen: Option<String>,

    /// Port to listen on; 0 takes a free one and logs it
    #[arg(long, env = "HEADWATER_PORT", default_value_t = 4000)]
    pub port: u16,

    /// Serve without authentication: whoever reaches the port reads every event and writes as anybody
    #[arg(long, env = "HEADWATER_INSECURE", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// Shared secret of tokens (JWT) that are signed with HS256
    #[arg(long, env = "HEADWATER_JWT_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub jwt_secret: Option<String>,

    /// Public key of tokens that are signed with RS256, ES256 or EdDSA: PEM text, or the path of such a file
    #[arg(long, env = "HEADWATER_JWT_PUBLIC_KEY", hide_env_values = true, value_name = "PEM")]
    pub jwt_public_key: Option<String>,

    /// Where the issuer of tokens publishes its keys, as https://issuer.example/.well-known/jwks.json
    #[arg(long, env = "HEADWATER_JWT_JWKS_URL", value_name = "URL")]
    pub jwt_jwks_url: Option<String>,

    /// Whom tokens must be for (claim `aud`; one of them, if several are given). Required for tokens
    #[arg(long, env = "HEADWATER_JWT_AUDIENCE", value_delimiter = ',', value_name = "AUDIENCE")]
    pub jwt_audience: Vec<String>,

    /// Who tokens must be from (claim `iss`)
    #[arg(long, env = "HEADWATER_JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,

    /// Presented in place of a token, lets a trusted backend act for every tenant and user; opens /console
    #[arg(long, env = "HEADWATER_ADMIN_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub admin_secret: Option<String>,

    /// Claim of a token that opens /console, which shows all tenants: a name, as headwater_admin (which must be true), or
    /// name=value, as role=operator
    #[arg(long, env = "HEADWATER_ADMIN_CLAIM", value_name = "CLAIM")]
    pub admin_claim: Option<AdminClaim>,

    /// Let operators replay and discard dead letters in /console; without it, /console only reads
    #[arg(long, env = "HEADWATER_CONSOLE_WRITES", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub console_writes: bool,

    /// Name of this streamer among several on one database; its slot is headwater_<REPLICA>
    #[arg(long, env = "HEADWATER_REPLICA", default_value = "default", value_parser = parse_replica)]
    pub replica: String,

    /// Memory for the newest events: a client that was away no longer than that is served from memory
    #[arg(long, env = "HEADWATER_RING_BYTES", default_value = "256MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub ring_bytes: u64,

    /// How much write-ahead log Postgres keeps for us, so that a restart finds again what clients have not read
    #[arg(long, env = "HEADWATER_RING_WAL", default_value = "256MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub ring_wal: u64,

    /// Largest body of a request, unpacked
    #[arg(long, env = "HEADWATER_MAX_BODY_BYTES", default_value = "8MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub max_body_bytes: u64,

    /// Most events in one batch
    #[arg(long, env = "HEADWATER_MAX_BATCH_EVENTS", default_value_t = 1000, value_name = "N")]
    pub max_batch_events: usize,

    /// Role under which clients' events change your tables; its grants and policies decide what they may
    #[arg(long, env = "HEADWATER_APPLY_ROLE", default_value = "headwater_client", value_name = "ROLE")]
    pub apply_role: String,

    /// Browser origin that may call us, as https://app.example (repeat, or separate by commas; * is any). With
    /// --insecure, localhost may anyway
    #[arg(long, env = "HEADWATER_CORS_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,

    /// Folder to serve under /app/: a built front end beside the API
    #[arg(long, env = "HEADWATER_STATIC_DIR", value_name = "DIR")]
    pub static_dir: Option<PathBuf>,

    /// How often an idle stream sends a sign of life
    #[arg(long, env = "HEADWATER_HEARTBEAT", default_value = "15s", value_parser = parse_duration, value_name = "TIME")]
    pub heartbeat: Duration,

    /// How long clients wait before they reconnect
    #[arg(long, env = "HEADWATER_RETRY", default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    pub retry: Duration,

    /// Most connections at the same time; further ones wait
    #[arg(long, env = "HEADWATER_MAX_CONNECTIONS", default_value_t = 19_000, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub max_connections: usize,

    /// Most streams (Server-Sent Events, WebSockets, waiting polls) that the callers of one tenant may have open
    #[arg(long, env = "HEADWATER_MAX_STREAMS_PER_TENANT", default_value_t = 10_000, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub max_streams_per_tenant: usize,

    /// How long a client may take to send a request's headers, to shake hands for TLS, or to send the next request
    #[arg(long, env = "HEADWATER_HEADER_TIMEOUT", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub header_timeout: Duration,

    /// Largest headers of a request, all together
    #[arg(long, env = "HEADWATER_MAX_HEADER_BYTES", default_value = "16KiB", value_parser = parse_header_bytes,
          value_name = "SIZE")]
    pub max_header_bytes: usize,

    /// Most headers of a request
    #[arg(long, env = "HEADWATER_MAX_HEADERS", default_value_t = 100, value_name = "N", value_parser = parse_at_least::<16>)]
    pub max_headers: usize,

    /// How long a client may take none of what is written to it before its connection is closed; its cursor stays good
    #[arg(long, env = "HEADWATER_WRITE_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub write_timeout: Duration,

    /// Certificate of this server (PEM; the intermediate ones behind it): speak TLS. Read anew when the file changes, and
    /// at SIGHUP
    #[arg(long, env = "HEADWATER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert (PEM)
    #[arg(long, env = "HEADWATER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Address and port for /metrics, /health and /live without authentication, as 127.0.0.1:9464; the API's own port has
    /// /metrics for trusted callers
    #[arg(long, env = "HEADWATER_METRICS_LISTEN", value_name = "HOST:PORT", value_parser = parse_address)]
    pub metrics_listen: Option<(String, u16)>,

    /// Connections to Postgres for reading and writing events, besides one for the log and one for the watermark
    #[arg(long, env = "HEADWATER_POOL_SIZE", default_value_t = 16, value_name = "N", value_parser = parse_at_least::<8>)]
    pub pool_size: usize,

    /// ElectricSQL's shared secret: whoever presents it (?secret=…) reads every shape, as a trusted proxy does
    /// [env: also ELECTRIC_SECRET]
    #[arg(long, env = "HEADWATER_SHAPE_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub shape_secret: Option<String>,

    /// Publish a table when a client asks for a shape of it; the role must own the table, or be a member of its owner
    #[arg(long, env = "HEADWATER_AUTO_PUBLISH", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub auto_publish: bool,

    /// Let clients delete shapes (DELETE /v1/shape), as tests do
    #[arg(long, env = "HEADWATER_ALLOW_SHAPE_DELETION", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub allow_shape_deletion: bool,

    /// A part of a shape's log that is sent at once: a chunk ends when it has so many bytes
    #[arg(long, env = "HEADWATER_CHUNK_BYTES", default_value = "10MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub chunk_bytes: u64,

    /// Disk for the first rows of large shapes, while clients fetch them
    #[arg(long, env = "HEADWATER_SNAPSHOT_BYTES", default_value = "8GiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub snapshot_bytes: u64,

    /// How long a client waits for a change of a shape; a number alone is milliseconds
    #[arg(long, env = "HEADWATER_LONG_POLL_TIMEOUT", default_value = "20s", value_parser = parse_millis, value_name = "TIME")]
    pub long_poll_timeout: Duration,

    /// How long a stream of a shape's changes lasts before the client comes back; a number alone is milliseconds
    #[arg(long, env = "HEADWATER_SSE_TIMEOUT", default_value = "60s", value_parser = parse_millis, value_name = "TIME")]
    pub sse_timeout: Duration,

    /// How long caches may keep a part of a shape's log, in seconds
    #[arg(long, env = "HEADWATER_CACHE_MAX_AGE", default_value_t = 60, value_name = "SECONDS")]
    pub cache_max_age: u64,

    /// How long caches may give it out while they ask for a newer one, in seconds
    #[arg(long, env = "HEADWATER_CACHE_STALE_AGE", default_value_t = 300, value_name = "SECONDS")]
    pub cache_stale_age: u64,

    /// Most requests at the same time that begin a shape; further ones are told to come back
    #[arg(long, env = "HEADWATER_MAX_INITIAL_REQUESTS", default_value_t = 300, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub max_initial_requests: usize,

    /// Most requests at the same time that go on with a shape; further ones are told to come back
    #[arg(long, env = "HEADWATER_MAX_EXISTING_REQUESTS", default_value_t = 100_000, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub max_existing_requests: usize,

    /// How clients are told of events: memory pushes from this process; redis publishes them too, for others' subscribers
    /// and a relay; noop pushes nothing, clients poll. Entities may have their own: headwater.enable(notification => …)
    #[arg(long, env = "HEADWATER_NOTIFICATION_BACKEND", default_value = "memory", value_name = "BACKEND")]
    pub notification_backend: Kind,

    /// redis://user:password@host:6379/0, or rediss:// for TLS. Needed where a backend is redis
    #[arg(long, env = "HEADWATER_REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,

    /// What channels and keys in Redis begin with: events go to <prefix>:<entity>[:<tenant>]
    #[arg(long, env = "HEADWATER_REDIS_CHANNEL_PREFIX", default_value = "sync", value_name = "PREFIX")]
    pub redis_channel_prefix: String,

    /// How many events the relay in Redis keeps, about
    #[arg(long, env = "HEADWATER_REDIS_RELAY_ENTRIES", default_value_t = 100_000, value_name = "N",
          value_parser = parse_at_least::<1>)]
    pub redis_relay_entries: usize,

    /// How to write the log; RUST_LOG chooses what, as RUST_LOG=headwater_streamer=debug
    #[arg(long, env = "HEADWATER_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Serve {
    /// The address to listen on.
    pub fn host(&self) -> &str {
        self.listen.as_deref().unwrap_or(if self.insecure { "127.0.0.1" } else { "0.0.0.0" })
    }

    /// Who is let in. Refuses to serve without authentication unless that was spelled out.
    pub fn guard(&self) -> Result<Guard, Error> {
        let given = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        let (secret, public_key) = (given(&self.jwt_secret), given(&self.jwt_public_key));
        let (jwks_url, admin) = (given(&self.jwt_jwks_url), given(&self.admin_secret));
        let with_tokens = secret.is_some() || public_key.is_some() || jwks_url.is_some();
        if self.insecure {
            return if with_tokens {
                Err(Error::setup(
                    "--insecure lets everybody in, and yet a key for tokens is given",
                    "set HEADWATER_INSECURE=false to ask for tokens, or leave the HEADWATER_JWT_… variables out",
                ))
            } else {
                Ok(Guard::Open)
            };
        }
        if !with_tokens && admin.is_none() && self.shape_secret().is_none() {
            return Err(Error::setup(
                "no authentication is configured: whoever reaches the port could read and write every event",
                "set HEADWATER_JWT_SECRET (or _PUBLIC_KEY, or _JWKS_URL) and HEADWATER_JWT_AUDIENCE for tokens, \
                 HEADWATER_ADMIN_SECRET for a trusted backend; or for development on this machine pass --insecure",
            ));
        }
        let audience: Vec<String> = self.jwt_audience.iter().filter(|text| !text.is_empty()).cloned().collect();
        if with_tokens && audience.is_empty() {
            return Err(Error::setup(
                "a key for tokens is given, but not whom they must be for",
                "set HEADWATER_JWT_AUDIENCE to the claim `aud` of your tokens: without it, a token that was made for another service would do",
            ));
        }
        let mut keys = secret.map(|secret| Keys::of_secret(&secret)).unwrap_or_default();
        if let Some(given) = public_key {
            let pem = if given.contains("-----BEGIN") {
                given
            } else {
                std::fs::read_to_string(&given).map_err(Error::io(format!("read the public key {given}")))?
            };
            keys = keys.and(Keys::of_public_key(&pem)?);
        }
        let jwks = jwks_url.as_deref().map(Jwks::new).transpose()?;
        let tokens = with_tokens.then(|| Box::new(Tokens::new(keys, jwks, audience, given(&self.jwt_issuer))));
        Ok(Guard::Closed { admin: admin.as_deref().map(Secret::new), tokens })
    }

    /// Who may see the console. A claim needs tokens to stand in.
    pub fn operators(&self) -> Result<Operators, Error> {
        let given = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.is_empty());
        let with_tokens = given(&self.jwt_secret) || given(&self.jwt_public_key) || given(&self.jwt_jwks_url);
        if self.admin_claim.is_some() && !with_tokens {
            return Err(Error::setup(
                "--admin-claim names a claim of tokens, and no key for tokens is given",
                "set HEADWATER_JWT_SECRET (or _PUBLIC_KEY, or _JWKS_URL), or leave HEADWATER_ADMIN_CLAIM out",
            ));
        }
        let secret = self.admin_secret.as_deref().filter(|text| !text.is_empty()).map(Secret::new);
        Ok(Operators::new(secret, self.admin_claim.clone()))
    }

    /// The database, from `--database-url` or `DATABASE_URL`.
    pub fn postgres(&self) -> Result<Target, Error> {
        target(self.database_url.as_ref(), self.database_ca_file.as_ref())
    }

    /// The shared secret of shapes, from `--shape-secret` or `ELECTRIC_SECRET`.
    pub fn shape_secret(&self) -> Option<String> {
        let given = self.shape_secret.clone().or_else(|| std::env::var("ELECTRIC_SECRET").ok());
        given.filter(|secret| !secret.is_empty())
    }

    /// Where Redis is, if it is used.
    pub fn redis(&self) -> Result<Option<RedisSettings>, Error> {
        match self.redis_url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => RedisSettings::new(url, self.redis_channel_prefix.clone(), self.redis_relay_entries).map(Some),
            None if self.notification_backend == Kind::Redis => Err(Error::setup(
                "the notification backend is redis, and no Redis is given",
                "pass --redis-url redis://host:6379 (HEADWATER_REDIS_URL)",
            )),
            None => Ok(None),
        }
    }

    /// The replication slot's name.
    pub fn slot(&self) -> String {
        format!("headwater_{}", self.replica)
    }
}

/// The database from flags and their variables, ElectricSQL's included.
pub(crate) fn target(url: Option<&String>, ca_file: Option<&String>) -> Result<Target, Error> {
    let given = |own: Option<&String>, variable: &str| {
        own.cloned()
            .filter(|text| !text.is_empty())
            .or_else(|| std::env::var(variable).ok())
            .filter(|text| !text.is_empty())
    };
    let url = given(url, "DATABASE_URL").ok_or_else(|| {
        Error::setup(
            "there is no database URL",
            "pass --database-url postgres://role:password@host:5432/database (or set DATABASE_URL)",
        )
    })?;
    let ca_file = given(ca_file, "ELECTRIC_DATABASE_CA_CERTIFICATE_FILE");
    Target::parse(&url, ca_file.as_deref())
}

/// Slot names have 63 bytes at most, lower-case letters, digits and underscores.
fn parse_replica(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 63 - "headwater_".len()
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if fits { Ok(text.to_owned()) } else { Err("1 to 53 lower-case letters, digits and underscores".to_owned()) }
}

fn parse_at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if number >= LEAST { Ok(number) } else { Err(format!("at least {LEAST}")) }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" | "kB" | "K" => 1 << 10,
        "MiB" | "MB" | "M" => 1 << 20,
        "GiB" | "GB" | "G" => 1 << 30,
        _ => return Err(format!("`{unit}` is no unit: bytes, KiB, MiB or GiB (as Postgres counts, 1 MB = 1 MiB)")),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number and a unit, as 256MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// As ElectricSQL's variables: a number without a unit is milliseconds.
fn parse_millis(text: &str) -> Result<Duration, String> {
    match split_unit(text) {
        (number, "") => parse_duration(&format!("{number}ms")),
        _ => parse_duration(text),
    }
}

fn parse_address(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or("a host and a port, as 127.0.0.1:9464 or [::1]:9464")?;
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// A connection's buffer is as large: between what a token needs and what all connections together may take.
fn parse_header_bytes(text: &str) -> Result<usize, String> {
    match usize::try_from(parse_bytes(text)?) {
        Ok(bytes @ 8192..=1_048_576) => Ok(bytes),
        _ => Err("between 8KiB and 1MiB".to_owned()),
    }
}

/// `250ms`, `15s`, `2min`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "min" | "m" => 60_000,
        _ => return Err(format!("`{unit}` is no unit: ms, s or min")),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number and a unit, as 15s".to_owned())?;
    match number.checked_mul(millis) {
        Some(1..) => Ok(Duration::from_millis(number * millis)),
        _ => Err("must be above zero, and of this world".to_owned()),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve(arguments: &[&str]) -> Result<Box<Serve>, clap::Error> {
        let all = ["headwater", "serve"].iter().chain(arguments);
        Cli::try_parse_from(all).map(|cli| {
            let Command::Serve(serve) = cli.command else { panic!("the subcommand is serve") };
            serve
        })
    }

    #[test]
    fn flags_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_times() {
        let bytes = |text: &str, expected: Option<u64>| assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        bytes("0", Some(0));
        bytes("1234", Some(1234));
        bytes("8MiB", Some(8 << 20));
        bytes("8 MB", Some(8 << 20));
        bytes("2GiB", Some(2 << 30));
        for wrong in ["", "MiB", "-1", "1.5MiB", "1TiB", "99999999999GiB"] {
            bytes(wrong, None);
        }
        let time = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        };
        time("15s", Some(15_000));
        time("250ms", Some(250));
        time("2min", Some(120_000));
        time("3", Some(3000));
        for wrong in ["", "0s", "1h", "-1s", "99999999999999999999s"] {
            time(wrong, None);
        }
    }

    #[test]
    fn replicas_name_slots() {
        let check = |replica: &str, expected: Option<&str>| {
            let slot = serve(&["--replica", replica]).ok().map(|serve| serve.slot());
            assert_eq!(slot.as_deref(), expected, "{replica}");
        };
        check("eu_1", Some("headwater_eu_1"));
        check("", None);
        check("Eu", None);
        check("a-b", None);
        check("x'; drop", None);
        check(&"x".repeat(54), None);
    }

    #[test]
    fn insecure_is_spelled_out() {
        let check = |arguments: &[&str], host: &str, allowed: bool| {
            let serve = serve(arguments).expect("they parse");
            assert_eq!((serve.host(), serve.guard().is_ok()), (host, allowed), "{arguments:?}");
        };
        check(&["--insecure"], "127.0.0.1", true);
        check(&["--insecure=true"], "127.0.0.1", true);
        check(&["--insecure=no"], "0.0.0.0", false);
        check(&[], "0.0.0.0", false);
        check(&["--insecure", "--listen", "::1"], "::1", true);
        check(&["--admin-secret", "s"], "0.0.0.0", true);
        check(&["--admin-secret", ""], "0.0.0.0", false);
        check(&["--jwt-secret", "s"], "0.0.0.0", false);
        check(&["--jwt-secret", "s", "--jwt-audience", ""], "0.0.0.0", false);
        check(&["--jwt-secret", "s", "--jwt-audience", "app"], "0.0.0.0", true);
        check(&["--jwt-secret", "s", "--jwt-audience", "app", "--insecure"], "127.0.0.1", false);
        check(&["--jwt-public-key=-----BEGIN nonsense", "--jwt-audience", "app"], "0.0.0.0", false);
        check(&["--jwt-jwks-url", "http://issuer.example/keys", "--jwt-audience", "app"], "0.0.0.0", false);
        check(&["--jwt-jwks-url", "https://issuer.example/keys", "--jwt-audience", "app"], "0.0.0.0", true);
    }

    #[test]
    fn database_urls() {
        let check = |url: &str, wrong: Option<&str>| {
            let read = serve(&["--database-url", url]).expect("it parses").postgres();
            let message = read.err().map(|error| error.to_string());
            match wrong {
                None => assert_eq!(message, None, "{url}"),
                Some(part) => {
                    let message = message.expect(url);
                    assert!(message.contains(part) && !message.contains("secret"), "{message}");
                }
            }
        };
        check("postgres://me:secret@localhost/db", None);
        check("host=/tmp user=me dbname=db", None);
        check("postgres://localhost/db", Some("names no role"));
        check("postgres://me:secret@localhost:port/db", Some("cannot be read"));
        check("postgres://me:secret@localhost/db?sslmode=require", None);
        check("postgres://me:secret@localhost/db?sslmode=sometimes", Some("sslmode"));
        check("postgres://me:secret@localhost/db?sslmode=verify-full&sslrootcert=/nowhere.pem", Some("/nowhere.pem"));
    }
}
