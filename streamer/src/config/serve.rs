//! What `headwater serve` is told, and what follows from it: who is let in, where Postgres and Redis are.
#![expect(clippy::doc_markdown, reason = "the doc comments are the help text of a terminal")]

use super::target;
use super::values::{
    parse_address, parse_at_least, parse_bytes, parse_duration, parse_header_bytes, parse_millis, parse_replica,
};
use crate::database::Target;
use crate::error::Error;
use crate::identity::{AdminClaim, Guard, Jwks, Keys, Operators, Secret, Tokens};
use crate::notify::{Kind, RedisSettings};
use clap::{ArgAction, Args, ValueEnum, builder::BoolishValueParser};
use std::path::PathBuf;
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser as _;

    fn serve(arguments: &[&str]) -> Result<Box<Serve>, clap::Error> {
        let all = ["headwater", "serve"].iter().chain(arguments);
        Cli::try_parse_from(all).map(|cli| {
            let Command::Serve(serve) = cli.command else { panic!("the subcommand is serve") };
            serve
        })
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
