//! A replication connection: start-up, authentication, simple queries, then the stream of a logical slot.
//!
//! `postgres-protocol` writes and reads the messages; the frames of the stream are taken from the buffer in place.

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
use tokio_postgres::config::{Config, Host, SslMode};

/// Enough that one system call brings many rows, small enough to stay in the cache.
const READ_BYTES: usize = 128 * 1024;

/// Also the limit for one authentication or simple-query answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

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
    /// Connects to the first host that answers and logs in.
    pub(super) async fn open(config: &Config, application_name: &str) -> Result<Self, Error> {
        let socket = connect_any(config).await?;
        let mut connection = Self { socket, inbound: BytesMut::new(), outbound: BytesMut::new() };
        let login = connection.log_in(config, application_name);
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
                backend::Message::AuthenticationSasl(body) => self.scram(&body, password()?).await?,
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

    /// RFC 5802 and 7677, without channel binding: that needs TLS.
    async fn scram(&mut self, offer: &backend::AuthenticationSaslBody, password: &[u8]) -> Result<(), Error> {
        let offered = offer.mechanisms().any(|name| Ok(name == sasl::SCRAM_SHA_256)).map_err(invalid)?;
        if !offered {
            return Err(Error::Protocol("no SASL mechanism that we know (SCRAM-SHA-256)".to_owned()));
        }
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), &mut self.outbound).map_err(invalid)?;
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

    /// Reads what there is, at least one byte.
    pub(super) async fn fill(&mut self) -> Result<(), Error> {
        // Make room for the rest of a large message at once, but not on the mere word of its header.
        self.inbound.reserve(READ_BYTES);
        let read = self.socket.read_buf(&mut self.inbound).await;
        match read.map_err(Error::io("read from Postgres"))? {
            0 => Err(Error::io("read from Postgres")(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// Queues a message of the stream.
    pub(super) fn put_copy(&mut self, body: &[u8]) -> Result<(), Error> {
        frontend::CopyData::new(body).map_err(invalid)?.write(&mut self.outbound);
        Ok(())
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.socket.write_all_buf(&mut self.outbound).await.map_err(Error::io("write to Postgres"))
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

async fn connect_any(config: &Config) -> Result<Box<dyn Socket>, Error> {
    if config.get_ssl_mode() == SslMode::Require {
        return Err(Error::setup(
            "the database URL asks for TLS (sslmode=require), which this version cannot do",
            "use sslmode=disable or sslmode=prefer over a trusted network or a local socket",
        ));
    }
    let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let mut failure = Error::setup("the database URL names no host", "postgres://user@host:5432/database");
    for (index, host) in config.get_hosts().iter().enumerate() {
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let (name, attempt) = match host {
            Host::Tcp(name) => (format!("{name}:{port}"), timeout(limit, connect_tcp(name, port)).await),
            Host::Unix(folder) => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                (path.display().to_string(), timeout(limit, connect_unix(&path)).await)
            }
        };
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = Error::io(format!("connect to Postgres at {name}"))(error),
        }
    }
    Err(failure)
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<Box<dyn Socket>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

async fn connect_unix(path: &std::path::Path) -> io::Result<Box<dyn Socket>> {
    Ok(Box::new(UnixStream::connect(path).await?))
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

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn invalid(error: io::Error) -> Error {
    Error::Protocol(error.to_string())
}
