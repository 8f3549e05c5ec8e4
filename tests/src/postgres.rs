//! A Postgres of a test's own: in a scratch folder, on a free port, as an unprivileged user.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tokio_postgres::{Client, NoTls};

use crate::authority::Identity;
use crate::deadline::eventually;
use crate::place::{Scratch, as_server_user, end_of, free_port, postgres_programs, write_private};

/// The role that the streamer logs in with, and its password: SCRAM, as in production.
const STREAMER_ROLE: &str = "headwater_streamer";
const STREAMER_PASSWORD: &str = "flows-downhill";

/// How `pg_ctl stop` stops.
#[derive(Clone, Copy, Debug)]
pub enum StopMode {
    /// Disconnects everybody, writes a checkpoint, waits until the WAL senders have sent all.
    Fast,
    /// Drops everything; the next start recovers from the WAL.
    Immediate,
}

/// A running (or, for a while, stopped) server with a database `headwater`.
#[derive(Debug)]
pub struct Postgres {
    scratch: Scratch,
    port: u16,
    server: Option<Child>,
    programs: PathBuf,
}

impl Postgres {
    /// A server ready for Headwater: logical WAL, the extension, the streamer's role.
    pub async fn start() -> Self {
        let postgres = Self::start_bare(&["wal_level=logical", "max_prepared_transactions=10"]).await;
        postgres.install().await;
        postgres
    }

    /// A server with these settings and an empty database.
    pub async fn start_bare(settings: &[&str]) -> Self {
        Self::start_of(postgres_programs(), settings).await
    }

    /// The same, of another version.
    pub async fn start_of(programs: PathBuf, settings: &[&str]) -> Self {
        let mut postgres = Self { scratch: Scratch::new("postgres"), port: free_port(), server: None, programs };
        postgres.init(&[], settings);
        postgres.resume().await;
        let client = postgres.connect_to("postgres", "postgres").await.unwrap();
        client.batch_execute("create database headwater").await.unwrap();
        postgres
    }

    /// The extension and the streamer's role, with no more rights than it needs.
    pub async fn install(&self) {
        self.sql("create extension headwater").await;
        self.make_streamer_role().await;
    }

    /// The streamer's role, where the extension is.
    pub async fn make_streamer_role(&self) {
        self.sql(&format!(
            "create role {STREAMER_ROLE} login replication password '{STREAMER_PASSWORD}';
             grant headwater_writer to {STREAMER_ROLE};"
        ))
        .await;
    }

    /// What `pg_upgrade` makes of this server, which is stopped: a server of another version, started.
    pub async fn upgraded(&self, programs: PathBuf, settings: &[&str]) -> Self {
        let mut new = Self { scratch: Scratch::new("upgraded"), port: free_port(), server: None, programs };
        // Versions before 18 make none, and pg_upgrade wants both alike.
        new.init(&["--no-data-checksums"], settings);
        for server in [self, &new] {
            let mut hba = std::fs::File::options().append(true).open(server.data().join("pg_hba.conf")).unwrap();
            hba.write_all(b"local all postgres trust\n").unwrap();
        }
        let mut command = as_server_user(&new.programs.join("pg_upgrade"));
        command.current_dir(new.scratch.path()).args(["-U", "postgres", "-s"]).arg(new.scratch.path());
        command.args(["-p", &self.port.to_string(), "-P", &new.port.to_string()]);
        command.arg("-b").arg(&self.programs).arg("-B").arg(&new.programs);
        command.arg("-d").arg(self.data()).arg("-D").arg(new.data());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "pg_upgrade: {}", String::from_utf8_lossy(&output.stdout));
        new.resume().await;
        new
    }

    fn init(&self, arguments: &[&str], settings: &[&str]) {
        let output = as_server_user(&self.programs.join("initdb"))
            .arg("-D")
            .arg(self.data())
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let hba = format!(
            "host all {STREAMER_ROLE} 127.0.0.1/32 scram-sha-256\n\
             host replication {STREAMER_ROLE} 127.0.0.1/32 scram-sha-256\n\
             host all postgres 127.0.0.1/32 trust\n"
        );
        std::fs::write(self.data().join("pg_hba.conf"), hba).unwrap();
        let mut configuration = String::from(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nlog_line_prefix = '%m [%p] %a '\n",
        );
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap();
            let _ = writeln!(configuration, "{name} = '{value}'");
        }
        std::fs::write(self.data().join("postgresql.auto.conf"), configuration).unwrap();
    }

    /// Offers TLS from now on, with this certificate.
    pub async fn offer_tls(&self, identity: &Identity) {
        std::fs::write(self.data().join("server.crt"), &identity.certificate).unwrap();
        write_private(&self.data().join("server.key"), &identity.key);
        self.sql("alter system set ssl = on").await;
        self.sql("select pg_reload_conf()").await;
        eventually("the server to offer TLS", || async {
            (self.count("select count(*) from pg_settings where name = 'ssl' and setting = 'on'").await == 1)
                .then_some(())
        })
        .await;
    }

    /// A standby that follows this server, with the data that it has now.
    pub async fn standby(&self) -> Self {
        self.standby_with(&[], "").await
    }

    /// The same, with more arguments of `pg_basebackup`, and lines of configuration.
    pub async fn standby_with(&self, arguments: &[&str], configuration: &str) -> Self {
        let scratch = Scratch::new("standby");
        let mut standby = Self { scratch, port: free_port(), server: None, programs: self.programs.clone() };
        let mut command = self.program("pg_basebackup");
        command.args(["-R", "-X", "stream", "-c", "fast", "-U", STREAMER_ROLE, "-D"]).arg(standby.data());
        command.args(arguments);
        command.env("PGPASSWORD", STREAMER_PASSWORD);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let mut settings =
            std::fs::File::options().append(true).open(standby.data().join("postgresql.auto.conf")).unwrap();
        settings.write_all(configuration.as_bytes()).unwrap();
        standby.resume().await;
        standby
    }

    /// Makes a primary of this standby.
    pub async fn promote(&self) {
        assert_eq!(1, self.count("select pg_promote(true)::int::bigint").await, "the standby was not promoted");
    }

    /// Starts the server again after a stop, and waits until it takes connections.
    pub async fn resume(&mut self) {
        assert!(self.server.is_none(), "the server runs");
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let server = as_server_user(&self.programs.join("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            // Its log is read by people: the extension's rejects come without the stack.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(server);
        let this = &*self;
        eventually(
            "Postgres to take connections",
            || async move { this.connect_to("postgres", "postgres").await.ok() },
        )
        .await;
    }

    /// `pg_ctl stop`: fails the test if the server has not stopped within 20 s, long before the 60 s at which
    /// Postgres drops a WAL receiver that does not answer.
    pub async fn stop(&mut self, mode: StopMode) {
        let mut server = self.server.take().expect("the server does not run");
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        let mut command = as_server_user(&self.programs.join("pg_ctl"));
        command.args(["stop", "-w", "-t", "20", "-m", mode, "-D"]).arg(self.data());
        // The server is this process' child: pg_ctl sees it end only once it was waited for.
        let waiting = tokio::task::spawn_blocking(move || server.wait());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "pg_ctl stop -m {mode}: {}", String::from_utf8_lossy(&output.stdout));
        waiting.await.unwrap().unwrap();
    }

    /// A connection as the superuser.
    pub async fn connect(&self) -> Client {
        self.connect_to("postgres", "headwater").await.unwrap()
    }

    /// A connection of this user to this database.
    pub async fn connect_to(&self, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let parameters = format!("host=127.0.0.1 port={} user={user} dbname={database} connect_timeout=5", self.port);
        let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection while the server may be down.
    pub async fn try_connect(&self) -> Option<Client> {
        self.connect_to("postgres", "headwater").await.ok()
    }

    /// Runs statements as the superuser.
    pub async fn sql(&self, statements: &str) {
        if let Err(error) = self.connect().await.batch_execute(statements).await {
            panic!("{statements}: {error:?}");
        }
    }

    /// The one number that a query gives.
    pub async fn count(&self, query: &str) -> usize {
        let row = self.connect().await.query_one(query, &[]).await.unwrap();
        usize::try_from(row.get::<_, i64>(0)).unwrap()
    }

    /// What the streamer connects with.
    pub fn streamer_url(&self) -> String {
        format!("postgres://{STREAMER_ROLE}:{STREAMER_PASSWORD}@127.0.0.1:{}/headwater", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One of Postgres' programs (pgbench, psql …) as the superuser on this server's database.
    pub fn program(&self, name: &str) -> Command {
        let mut command = as_server_user(&self.programs.join(name));
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "headwater")
            .stdin(Stdio::null());
        command
    }

    /// Runs such a program to its end, which must be a good one.
    pub async fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = self.program(name);
        command.args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap()).into_owned()
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("postgres.log")
    }
}

/// A connection as the superuser to the server on this port, for a task that outlives the borrow of its [`Postgres`].
pub async fn connect(port: u16) -> Client {
    let parameters = format!("host=127.0.0.1 port={port} user=postgres dbname=headwater connect_timeout=5");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = as_server_user(&self.programs.join("pg_ctl"))
                .args(["stop", "-W", "-m", "immediate", "-D"])
                .arg(self.data())
                .output();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- end of Postgres' log\n{}", end_of(&self.log()));
        }
    }
}
