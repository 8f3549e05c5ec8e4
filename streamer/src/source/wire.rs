//! A replication connection: start-up, authentication, simple queries, then the stream of a logical slot.
//!
//! `postgres-protocol` writes and reads the messages; the frames of the stream are taken from the buffer in place.

use crate::database::Target;
use crate::database::tls::{Mode, explain_handshake};
use crate::error::{Error, ServerError};
use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, Config, Host};

/// Enough that one system call brings many rows, small enough to stay in the cache.
const READ_BYTES: usize = 128 * 1024;

/// For one host, and then for the log-in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// For the answer to anything that is asked before the stream begins: a connection that something between us and Postgres has
/// dropped says nothing for ever. Only [`Connection::query_patiently`] waits longer.
const STEP_PATIENCE: Duration = Duration::from_mins(1);

/// Values are sent as text, so the session must print them the same way whatever role and database have set: replicas
/// and restarts have to agree byte for byte.
const SESSION: [(&str, &str); 7] = [
    ("replication", "database"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("TimeZone", "UTC"),
    ("IntervalStyle", "iso_8601"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
];

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// A connection in walsender mode.
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    /// What SCRAM can bind itself to, under TLS.
    end_point: Option<Vec<u8>>,
    /// For each answer before the stream begins.
    patience: Duration,
    inbound: BytesMut,
    outbound: BytesMut,
}

/// A row of a simple query.
pub(super) type Row = Vec<Option<String>>;

/// One message of the stream, still in the buffer.
pub(super) struct Frame<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
    /// What to pass to [`Connection::consume`].
    pub(super) bytes: usize,
}

impl Connection {
    fn over(socket: Box<dyn Socket>, end_point: Option<Vec<u8>>, patience: Duration) -> Self {
        Self { socket, end_point, patience, inbound: BytesMut::new(), outbound: BytesMut::new() }
    }

    /// Connects to the first host that answers and logs in.
    pub(super) async fn open(target: &Target, application_name: &str) -> Result<Self, Error> {
        let mut connection = connect_any(target).await?;
        let login = connection.log_in(&target.config, application_name);
        timeout(CONNECT_TIMEOUT, login).await.map_err(|_| Error::Timeout("Postgres does not answer the log-in"))??;
        Ok(connection)
    }

    async fn log_in(&mut self, config: &Config, application_name: &str) -> Result<(), Error> {
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or(user);
        let own = [("user", user), ("database", database), ("application_name", application_name)];
        let options = config.get_options().map(|options| ("options", options));
        let parameters = own.into_iter().chain(SESSION).chain(options);
        frontend::startup_message(parameters, &mut self.outbound).map_err(invalid)?;
        self.flush().await?;
        let password = || {
            config.get_password().ok_or_else(|| {
                Error::setup(
                    format!("Postgres asks for the password of role `{user}`, and the database URL has none"),
                    "put it into the URL: postgres://user:password@host/database",
                )
            })
        };
        loop {
            match self.message().await? {
                backend::Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password()?, &mut self.outbound).map_err(invalid)?;
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(user.as_bytes(), password()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outbound).map_err(invalid)?;
                }
                backend::Message::AuthenticationSasl(body) => {
                    self.scram(&body, password()?, config.get_channel_binding()).await?;
                }
                backend::Message::ReadyForQuery(_) => return Ok(()),
                backend::Message::AuthenticationOk
                | backend::Message::ParameterStatus(_)
                | backend::Message::BackendKeyData(_)
                | backend::Message::NoticeResponse(_) => {}
                backend::Message::ErrorResponse(body) => return Err(server_error(&body).into()),
                _ => return Err(Error::Protocol("an unsupported way of authentication".to_owned())),
            }
            self.flush().await?;
        }
    }

    /// RFC 5802 and 7677; bound to the TLS connection (`-PLUS`) where both sides can.
    async fn scram(
        &mut self,
        offer: &backend::AuthenticationSaslBody,
        password: &[u8],
        wanted: ChannelBinding,
    ) -> Result<(), Error> {
        let offered: Vec<String> = offer.mechanisms().map(|name| Ok(name.to_owned())).collect().map_err(invalid)?;
        let offers = |mechanism: &str| offered.iter().any(|name| name == mechanism);
        let own = self.end_point.take().filter(|_| wanted != ChannelBinding::Disable);
        let (mechanism, binding) = match own {
            Some(end_point) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point))
            }
            // Says that we could have: a server that could too knows then that somebody took its offer away.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if !offers(mechanism) {
            return Err(Error::Protocol("no SASL mechanism that we know (SCRAM-SHA-256)".to_owned()));
        }
        if wanted == ChannelBinding::Require && mechanism != sasl::SCRAM_SHA_256_PLUS {
            return Err(Error::setup(
                "the database URL asks for channel binding, which this connection cannot have",
                "it needs TLS and a server that offers SCRAM-SHA-256-PLUS; or leave channel_binding=require out",
            ));
        }
        let mut scram = sasl::ScramSha256::new(password, binding);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut self.outbound).map_err(invalid)?;
        self.flush().await?;
        match self.message().await? {
            backend::Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(invalid)?,
            backend::Message::ErrorResponse(body) => return Err(server_error(&body).into()),
            _ => return Err(Error::Protocol("SCRAM broke off".to_owned())),
        }
        frontend::sasl_response(scram.message(), &mut self.outbound).map_err(invalid)?;
        self.flush().await?;
        match self.message().await? {
            backend::Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(invalid),
            backend::Message::ErrorResponse(body) => Err(server_error(&body).into()),
            _ => Err(Error::Protocol("SCRAM broke off".to_owned())),
        }
    }

    /// A simple query; the rows of its (last) result.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        timeout(self.patience, self.query_patiently(sql)).await.map_err(|_| SILENT)?
    }

    /// As [`Connection::query`], for what may wait for others' transactions as long as they last. That somebody is there is for
    /// TCP to find out.
    pub(super) async fn query_patiently(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        frontend::query(sql, &mut self.outbound).map_err(invalid)?;
        self.flush().await?;
        let mut rows = Vec::new();
        let mut failure: Option<ServerError> = None;
        loop {
            // After a fatal error the connection just ends; then the error is what matters.
            let message = self.message().await.map_err(|ended| failure.clone().map_or(ended, Error::from))?;
            match message {
                backend::Message::DataRow(body) => {
                    let text = |range: Option<std::ops::Range<usize>>| {
                        range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned())
                    };
                    rows.push(body.ranges().map(|range| Ok(text(range))).collect().map_err(invalid)?);
                }
                backend::Message::ErrorResponse(body) => {
                    failure = Some(server_error(&body));
                }
                backend::Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), |error| Err(error.into())),
                _ => {}
            }
        }
    }

    /// Sends `START_REPLICATION …` and waits until the stream is open.
    pub(super) async fn start_stream(&mut self, sql: &str) -> Result<(), Error> {
        timeout(self.patience, self.open_stream(sql)).await.map_err(|_| SILENT)?
    }

    async fn open_stream(&mut self, sql: &str) -> Result<(), Error> {
        frontend::query(sql, &mut self.outbound).map_err(invalid)?;
        self.flush().await?;
        loop {
            // CopyBothResponse is the one message that `postgres-protocol` does not know.
            if self.frame()?.is_some_and(|frame| frame.tag == b'W') {
                let bytes = self.frame()?.map_or(0, |frame| frame.bytes);
                self.consume(bytes);
                return Ok(());
            }
            if self.frame()?.is_none() {
                self.fill().await?;
                continue;
            }
            if let backend::Message::ErrorResponse(body) = self.message().await? {
                return Err(server_error(&body).into());
            }
        }
    }

    /// The first whole message in the buffer.
    pub(super) fn frame(&self) -> Result<Option<Frame<'_>>, Error> {
        let Some(header) = backend::Header::parse(&self.inbound).map_err(invalid)? else { return Ok(None) };
        let bytes = usize::try_from(header.len()).unwrap_or(0) + 1;
        let body = self.inbound.get(5..bytes);
        Ok(body.map(|body| Frame { tag: header.tag(), body, bytes }))
    }

    /// Takes `bytes` off the buffer.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.inbound.advance(bytes);
        if self.inbound.is_empty() && self.inbound.capacity() > 8 * READ_BYTES {
            self.inbound = BytesMut::new(); // one huge row must not cost memory for ever
        }
    }

    /// Reads what there is, at least one byte. Answers whether there was so little that reading keeps pace with Postgres.
    pub(super) async fn fill(&mut self) -> Result<bool, Error> {
        // Make room for the rest of a large message at once, but not on the mere word of its header.
        self.inbound.reserve(READ_BYTES);
        let read = self.socket.read_buf(&mut self.inbound).await;
        match read.map_err(Error::io("read from Postgres"))? {
            0 => Err(Error::io("read from Postgres")(io::ErrorKind::UnexpectedEof.into())),
            bytes => Ok(bytes < READ_BYTES / 4),
        }
    }

    /// Queues a message of the stream.
    pub(super) fn put_copy(&mut self, body: &[u8]) -> Result<(), Error> {
        frontend::CopyData::new(body).map_err(invalid)?.write(&mut self.outbound);
        Ok(())
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.socket.write_all_buf(&mut self.outbound).await.map_err(Error::io("write to Postgres"))?;
        // Under TLS, written is not yet sent.
        self.socket.flush().await.map_err(Error::io("write to Postgres"))
    }

    /// Says good-bye, so that the slot is free at once.
    pub(super) async fn close(mut self) {
        frontend::copy_done(&mut self.outbound);
        frontend::terminate(&mut self.outbound);
        // Whatever fails now fails on a connection that ends anyway.
        let _ = timeout(Duration::from_secs(1), async {
            self.flush().await?;
            self.socket.shutdown().await.map_err(Error::io("close"))
        })
        .await;
    }

    async fn message(&mut self) -> Result<backend::Message, Error> {
        loop {
            if let Some(message) = backend::Message::parse(&mut self.inbound).map_err(invalid)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }
}

async fn connect_any(target: &Target) -> Result<Connection, Error> {
    let config = &target.config;
    let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let mut failure = Error::setup("the database URL names no host", "postgres://user@host:5432/database");
    for (index, host) in config.get_hosts().iter().enumerate() {
        let port = port_of(config, index)?;
        let (name, attempt) = match host {
            Host::Tcp(name) => {
                // An address beside the name spares the look-up; the name stays what the certificate must have.
                let address = config.get_hostaddrs().get(index).map_or_else(|| name.clone(), ToString::to_string);
                (format!("{name}:{port}"), timeout(limit, connect_tcp(&address, port, name, target)).await)
            }
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                (path.display().to_string(), timeout(limit, connect_unix(&path)).await)
            }
        };
        match attempt.unwrap_or_else(|_| Err(Error::io("connect")(io::ErrorKind::TimedOut.into()))) {
            Ok((socket, end_point)) => {
                return Ok(Connection::over(socket, end_point, STEP_PATIENCE));
            }
            Err(Error::Io { source, .. }) => failure = Error::io(format!("connect to Postgres at {name}"))(source),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// As libpq has it: one port for all hosts, or one for each.
fn port_of(config: &Config, host: usize) -> Result<u16, Error> {
    match (config.get_ports(), config.get_hosts().len()) {
        ([], _) => Ok(5432),
        ([port], _) => Ok(*port),
        (ports, hosts) if ports.len() == hosts => Ok(ports[host]),
        (ports, hosts) => Err(Error::setup(
            format!("the database URL has {} ports for {hosts} hosts", ports.len()),
            "give one port for all, or one for each: postgres://user@one:5432,two:5433/database",
        )),
    }
}

/// A socket, and what SCRAM can bind itself to.
type Opened = (Box<dyn Socket>, Option<Vec<u8>>);

async fn connect_tcp(address: &str, port: u16, host: &str, target: &Target) -> Result<Opened, Error> {
    let tls = &target.tls;
    let connect = async {
        let stream = TcpStream::connect((address, port)).await?;
        stream.set_nodelay(true)?;
        target.keep_alive(&stream)?;
        Ok(stream)
    };
    let mut stream = connect.await.map_err(Error::io("connect"))?;
    if tls.mode() == Mode::Disable || !offers_tls(&mut stream, host, tls.mode()).await? {
        return Ok((Box::new(stream), None));
    }
    match tls.secure(stream, host).await {
        Ok(secured) => {
            let end_point = secured.end_point();
            Ok((Box::new(secured), end_point))
        }
        Err(error) => Err(explain_handshake(&error, host).unwrap_or_else(|| Error::io("start TLS")(error))),
    }
}

/// `SSLRequest`, and the one byte that answers it. Nothing behind that byte is read: whatever somebody put there in
/// plain text must not pass for the server's words under TLS.
async fn offers_tls(stream: &mut TcpStream, host: &str, mode: Mode) -> Result<bool, Error> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(Error::io("ask for TLS"))?;
    match stream.read_u8().await.map_err(Error::io("ask for TLS"))? {
        b'S' => Ok(true),
        b'N' if mode == Mode::Prefer => Ok(false),
        b'N' => Err(Error::setup(
            format!("the database URL asks for TLS, and Postgres at {host} does not offer it"),
            "turn it on there (ssl = on, ssl_cert_file, ssl_key_file); or use sslmode=disable, on a network that you trust",
        )),
        _ => Err(Error::Protocol("neither yes nor no to the question for TLS".to_owned())),
    }
}

async fn connect_unix(path: &std::path::Path) -> Result<Opened, Error> {
    let stream = UnixStream::connect(path).await.map_err(Error::io("connect"))?;
    Ok((Box::new(stream), None))
}

/// What an `ErrorResponse` says.
pub(super) fn server_error(body: &backend::ErrorResponseBody) -> ServerError {
    let mut error = ServerError::default();
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.code = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            _ => {}
        }
    }
    error
}

/// The same for an error that is still in the buffer, in the middle of the stream.
pub(super) fn server_error_of(frame: &Frame<'_>) -> ServerError {
    let mut error = ServerError::default();
    for field in frame.body.split(|byte| *byte == 0) {
        let Some((kind, value)) = field.split_first() else { continue };
        let value = String::from_utf8_lossy(value).into_owned();
        match kind {
            b'C' => error.code = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            _ => {}
        }
    }
    error
}

const SILENT: Error = Error::Timeout("Postgres has not answered for a minute");

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: io::Error) -> Error {
    Error::Protocol(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_for_all_hosts_or_for_each() {
        let check = |url: &str, expected: &[Option<u16>]| {
            let config: Config = url.parse().expect("a URL");
            let ports: Vec<Option<u16>> = (0..config.get_hosts().len()).map(|n| port_of(&config, n).ok()).collect();
            assert_eq!(ports, expected, "{url}");
        };
        check("host=a user=u", &[Some(5432)]);
        check("host=a port=1 user=u", &[Some(1)]);
        check("host=a,b port=1 user=u", &[Some(1), Some(1)]);
        check("host=a,b port=1,2 user=u", &[Some(1), Some(2)]);
        check("host=a,b,c port=1,2 user=u", &[None, None, None]);
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_given_up_at_every_step() {
        for step in 0..2 {
            let (ours, _theirs) = tokio::io::duplex(1024);
            let mut connection = Connection::over(Box::new(ours), None, Duration::from_millis(20));
            let ended = match step {
                0 => connection.query("select 1").await.map(drop),
                _ => connection.start_stream("START_REPLICATION").await,
            };
            assert!(matches!(ended, Err(Error::Timeout(_))), "step {step}: {ended:?}");
        }
    }
}
