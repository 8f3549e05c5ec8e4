//! Where Postgres is: the database URL, read with the TLS parameters that `tokio-postgres` does not know.

use super::tls::{Mode, Roots, Tls};
use crate::error::Error;
use percent_encoding::percent_decode_str;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_postgres::config::{Config, Host, SslMode};

/// A connection that says nothing for this long is asked whether it is there; then so often, so many times. By default Linux asks after two
/// hours: what lies between us and Postgres may have forgotten the connection long before, and told nobody.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// What was sent must be acknowledged within this time, by Postgres' kernel, not by Postgres.
const USER_TIMEOUT: Duration = Duration::from_mins(1);

const REMEDY: &str = "pass --database-url postgres://role:password@host:5432/database (or set DATABASE_URL)";

/// A database and how to reach it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Hosts, role, password, database.
    pub config: Config,
    /// How the way there is secured.
    pub tls: Tls,
}

impl Target {
    /// Reads a URL (or libpq's `key=value` form). `ca_file` holds the trusted certificates if the URL names no
    /// `sslrootcert`. The URL may hold a password: no error repeats it.
    pub fn parse(url: &str, ca_file: Option<&str>) -> Result<Self, Error> {
        let (rest, given) = take_tls(url)?;
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Error::setup(format!("the database URL cannot be read: {reason}"), REMEDY)
        })?;
        if config.get_user().is_none() {
            return Err(Error::setup("the database URL names no role", REMEDY));
        }
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        if config.get_application_name().is_none() {
            config.application_name("headwater");
        }
        if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVE_RETRIES);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(USER_TIMEOUT);
        }
        let roots = given.root_cert.as_deref().or(ca_file).map(Roots::named);
        let mode = mode(given.mode.as_deref(), roots.as_ref())?;
        // A local socket needs no TLS, and Postgres offers none there, whatever the URL asks for: libpq's rule too.
        let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let mode = if local { Mode::Disable } else { mode };
        config.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        let tls = Tls::new(mode, roots.as_ref().unwrap_or(&Roots::System))?;
        Ok(Self { config, tls })
    }
}

impl Target {
    /// What the pool's connections get by `config`, for one that is made without it.
    pub(crate) fn keep_alive(&self, stream: &TcpStream) -> io::Result<()> {
        let (config, socket) = (&self.config, SockRef::from(stream));
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        socket.set_tcp_user_timeout(config.get_tcp_user_timeout().copied())
    }
}

/// libpq's rules: trusted certificates are there to be used, so `require` with some verifies, and those of the system
/// (which anybody's server can have) are only worth something together with the name.
fn mode(given: Option<&str>, roots: Option<&Roots>) -> Result<Mode, Error> {
    let useless = |mode: &str| {
        Err(Error::setup(
            format!("sslmode={mode} would not check the server's certificate against the trusted ones that are given"),
            "set sslmode=verify-full (or verify-ca, which leaves the host's name out), or leave sslrootcert out",
        ))
    };
    match (given, roots) {
        (None | Some("prefer"), None) => Ok(Mode::Prefer),
        (Some("disable"), None) => Ok(Mode::Disable),
        (Some("require"), None) => Ok(Mode::Require),
        (Some("require" | "verify-ca"), Some(Roots::File(_))) | (Some("verify-ca"), None) => Ok(Mode::VerifyCa),
        (None, Some(_)) | (Some("verify-full"), _) | (Some("require" | "verify-ca"), Some(Roots::System)) => {
            Ok(Mode::VerifyFull)
        }
        (Some(mode @ ("disable" | "prefer")), Some(_)) => useless(mode),
        (Some("allow"), _) => Err(Error::setup(
            "sslmode=allow is not supported: it uses TLS only when the server refuses to do without",
            "set sslmode=prefer, which uses TLS when the server offers it",
        )),
        (Some(other), _) => Err(Error::setup(
            format!("sslmode={other} is none that Postgres knows"),
            "sslmode is disable, prefer, require, verify-ca or verify-full",
        )),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Given {
    mode: Option<String>,
    root_cert: Option<String>,
}

impl Given {
    /// Takes a parameter that is ours; answers whether it was.
    fn take(&mut self, name: &str, value: impl FnOnce() -> Result<String, Error>) -> Result<bool, Error> {
        match name {
            "sslmode" => self.mode = Some(value()?),
            "sslrootcert" => self.root_cert = Some(value()?).filter(|path| !path.is_empty()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Takes the parameters out that `tokio-postgres` does not know, or knows in part only.
fn take_tls(text: &str) -> Result<(String, Given), Error> {
    let mut given = Given::default();
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        return take_from_pairs(text, given);
    }
    let Some((before, query)) = text.split_once('?') else { return Ok((text.to_owned(), given)) };
    let mut left = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = || {
            let text = percent_decode_str(value).decode_utf8();
            text.map(std::borrow::Cow::into_owned)
                .map_err(|_| Error::setup(format!("`{name}` in the database URL is not UTF-8"), REMEDY))
        };
        if !given.take(name, decoded)? {
            left.push(pair);
        }
    }
    let rest = if left.is_empty() { before.to_owned() } else { format!("{before}?{}", left.join("&")) };
    Ok((rest, given))
}

/// libpq's `key=value` form: values may stand in single quotes, a backslash takes the next character as it is.
fn take_from_pairs(text: &str, mut given: Given) -> Result<(String, Given), Error> {
    let mut rest = String::new();
    let mut left = text.trim_start();
    while let Some((name, after)) = left.split_once('=') {
        let after = after.trim_start();
        let (value, length) = pair_value(after);
        if !given.take(name.trim(), || Ok(value))? {
            rest.extend([name.trim(), "=", &after[..length], " "]);
        }
        left = after[length..].trim_start();
    }
    rest.push_str(left); // no pair: `tokio-postgres` says what is wrong with it
    Ok((rest.trim_end().to_owned(), given))
}

/// The value that `text` begins with, and how many bytes it takes as written.
fn pair_value(text: &str) -> (String, usize) {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if quoted => return (value, at + 1),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ if !quoted && character.is_whitespace() => return (value, at),
            _ => value.push(character),
        }
    }
    (value, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_what_is_ours() {
        let check = |text: &str, rest: &str, mode: Option<&str>, root_cert: Option<&str>| {
            let expected = Given { mode: mode.map(str::to_owned), root_cert: root_cert.map(str::to_owned) };
            assert_eq!(take_tls(text).ok(), Some((rest.to_owned(), expected)), "{text}");
        };
        check("postgres://a:b@c/d", "postgres://a:b@c/d", None, None);
        check("postgres://a@c/d?sslmode=verify-full", "postgres://a@c/d", Some("verify-full"), None);
        check(
            "postgresql://a@c/d?application_name=x&sslmode=require&sslrootcert=%2Fetc%2Fca+1.pem&options=-c%20a%3Db",
            "postgresql://a@c/d?application_name=x&options=-c%20a%3Db",
            Some("require"),
            Some("/etc/ca+1.pem"),
        );
        check("host=/tmp user=me sslmode=disable dbname=db", "host=/tmp user=me dbname=db", Some("disable"), None);
        check(
            r"host=h password='a b\' c' sslrootcert='/my certs/it\'s.pem' sslmode = 'verify-ca'",
            r"host=h password='a b\' c'",
            Some("verify-ca"),
            Some("/my certs/it's.pem"),
        );
        check("host=h nonsense", "host=h nonsense", None, None);
    }

    #[test]
    fn modes_follow_libpq() {
        let check = |given: Option<&str>, roots: Option<&str>, expected: Option<Mode>| {
            let roots = roots.map(Roots::named);
            assert_eq!(mode(given, roots.as_ref()).ok(), expected, "{given:?} {roots:?}");
        };
        check(None, None, Some(Mode::Prefer));
        check(Some("disable"), None, Some(Mode::Disable));
        check(Some("prefer"), None, Some(Mode::Prefer));
        check(Some("require"), None, Some(Mode::Require));
        check(Some("verify-ca"), None, Some(Mode::VerifyCa));
        check(Some("verify-full"), None, Some(Mode::VerifyFull));
        check(None, Some("/ca.pem"), Some(Mode::VerifyFull));
        check(Some("require"), Some("/ca.pem"), Some(Mode::VerifyCa));
        check(Some("verify-ca"), Some("/ca.pem"), Some(Mode::VerifyCa));
        check(Some("verify-full"), Some("/ca.pem"), Some(Mode::VerifyFull));
        check(Some("verify-ca"), Some("system"), Some(Mode::VerifyFull));
        check(Some("require"), Some("system"), Some(Mode::VerifyFull));
        for wrong in [Some("allow"), Some("Require"), Some("")] {
            check(wrong, None, None);
        }
        for useless in ["disable", "prefer"] {
            check(Some(useless), Some("/ca.pem"), None);
        }
    }

    #[tokio::test]
    async fn connections_that_say_nothing_are_asked_whether_they_are_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let check = async |url: &str, idle: Option<u64>, user_timeout: u64| {
            let target = Target::parse(url, None).expect("it is read");
            let stream = TcpStream::connect(address).await.expect("a connection");
            target.keep_alive(&stream).expect("set");
            let socket = SockRef::from(&stream);
            assert_eq!(socket.keepalive().expect("told"), idle.is_some(), "{url}");
            if let Some(idle) = idle {
                assert_eq!(socket.tcp_keepalive_time().expect("told"), Duration::from_secs(idle), "{url}");
            }
            assert_eq!(socket.tcp_user_timeout().expect("told"), Some(Duration::from_secs(user_timeout)), "{url}");
        };
        check("postgres://a@b/c", Some(30), 60).await;
        check("postgres://a@b/c?keepalives_idle=7&tcp_user_timeout=8", Some(7), 8).await;
        check("postgres://a@b/c?keepalives=0", None, 60).await;
    }

    #[test]
    fn a_local_socket_has_no_tls() {
        let target = Target::parse("host=/tmp user=me sslmode=require", None).expect("it is read");
        assert_eq!(target.config.get_ssl_mode(), SslMode::Disable);
    }
}
