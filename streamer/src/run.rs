//! Puts the parts together, and takes them apart again. The only place that knows all of them.

use crate::config::{LogFormat, Serve};
use crate::console::Console;
use crate::database::Database;
use crate::error::Error;
use crate::events::Events;
use crate::fanout::Fanout;
use crate::http::{self, App, Bodies, Origins, Streams, Tls};
use crate::identity::Secret;
use crate::ingest::Ingest;
use crate::log::{Limits, Log};
use crate::metrics::{Metrics, Transport};
use crate::notify::{Publisher, PublisherStatus};
use crate::registry::Registry;
use crate::shape::{self, Shapes};
use crate::slot_health::SlotWatch;
use crate::vitals::Vitals;
use crate::{source, watermark};
use std::io::IsTerminal;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Connections to `--metrics-listen`.
const WATCHERS: usize = 32;

/// Serves until a signal asks to stop, or until it is clear that it cannot.
pub async fn serve(config: Serve) -> Result<(), Error> {
    start_logging(config.log_format);
    let guard = config.guard()?;
    let operators = config.operators()?;
    let postgres = config.postgres()?;
    // Signals first: from here on a stop is an orderly one.
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;

    let tls = config.tls_cert.as_ref().zip(config.tls_key.as_ref());
    let tls = tls.map(|(certificate, key)| Tls::load(certificate, key)).transpose()?.map(Arc::new);
    let listener = http::bind(config.host(), config.port).await?;
    let address = listener.local_addr().map_err(Error::io("read the listener's address"))?;
    let limits = Limits { bytes: as_usize(config.ring_bytes), wal_bytes: config.ring_wal };
    let log = Arc::new(Log::new(limits));
    let database = Database::new(&postgres, config.pool_size)?;
    let redis = config.redis()?;
    let metrics = Arc::new(Metrics::new(&config.replica, redis.is_some()));
    let rounds = Arc::new(watermark::Rounds::default());
    let registry = Arc::new(Registry::new(database.clone(), config.notification_backend, redis.is_some()));
    let events = Events::new(
        Arc::clone(&log),
        database.clone(),
        Arc::clone(&registry),
        Arc::clone(&rounds),
        config.heartbeat,
        config.retry,
        shutdown.child_token(),
    );
    let shapes = Arc::new(Shapes::new(
        Arc::clone(&log),
        database.clone(),
        true,
        shape_settings(&config),
        &metrics.open(Transport::Shape),
        shutdown.clone(),
    ));
    let events = Arc::new(events);
    let fanout = Fanout::start(&events, config.write_timeout, &shutdown)?;
    let slot = Arc::new(SlotWatch::new(config.slot()));
    let publisher = redis.is_some().then(|| Arc::new(PublisherStatus::default()));
    let console = operators
        .may_exist()
        .then(|| Arc::new(Console::new(operators, database.clone(), config.replica.clone(), config.console_writes)));
    let app = App {
        console: console.clone(),
        notification: config.notification_backend,
        publisher: publisher.clone(),
        openapi: Arc::new(http::Document::new(database.clone(), config.notification_backend)),
        shapes: Arc::clone(&shapes),
        shape_secret: config.shape_secret().map(|secret| Arc::new(Secret::new(&secret))),
        cache_max_age: config.cache_max_age,
        cache_stale_age: config.cache_stale_age,
        guard: Arc::new(guard),
        log: Arc::clone(&log),
        events,
        slot: Arc::clone(&slot),
        ingest: Arc::new(Ingest::new(database.clone(), config.pool_size, config.max_batch_events)),
        database: database.clone(),
        heartbeat: config.heartbeat,
        bodies: Arc::new(Bodies::new(as_usize(config.max_body_bytes))),
        streams: Arc::new(Streams::new(config.max_connections, config.max_streams_per_tenant, Arc::clone(&metrics))),
        metrics,
        vitals: Arc::new(Vitals::new(database.clone(), config.slot())),
        apply_role: config.apply_role.as_str().into(),
    };
    let origins = Origins { localhost: config.insecure, listed: config.cors_origin.clone() };
    let watchers = match &config.metrics_listen {
        Some((host, port)) => Some((http::bind(host, *port).await?, http::watchers(app.clone()))),
        None => None,
    };
    if let Some(console) = console {
        let watch = console.watch(&app.log, &app.vitals, &app.metrics, &app.events, shutdown.clone());
        tokio::spawn(watch);
    }
    let local_names = config.insecure && address.ip().is_loopback();
    let router = http::router(app, &origins, config.static_dir.as_deref(), local_names);
    let http_limits = http::Limits {
        connections: config.max_connections,
        header_timeout: config.header_timeout,
        header_bytes: config.max_header_bytes,
        headers: config.max_headers,
        write_timeout: config.write_timeout,
    };
    tracing::info!(%address, tls = tls.is_some(), version = env!("CARGO_PKG_VERSION"), "listening");
    if config.insecure {
        tracing::warn!("--insecure: no authentication; whoever reaches {address} reads and writes everything");
    }

    if let Some(tls) = tls.clone() {
        let ending = shutdown.clone();
        tokio::spawn(async move { tls.follow(ending).await });
    }
    if let Some((listener, router)) = watchers {
        let limits = http::Limits { connections: WATCHERS, ..http_limits };
        tokio::spawn(http::serve(listener, router, limits, None, Arc::clone(&fanout), shutdown.clone()));
    }
    let server = tokio::spawn(http::serve(listener, router, http_limits, tls, fanout, shutdown.clone()));
    let router = tokio::spawn(async move { shapes.run().await });
    let watermark = tokio::spawn(watermark::run(database.clone(), Arc::clone(&log), rounds, shutdown.clone()));
    let slot_health = {
        let (slot, database, shutdown) = (Arc::clone(&slot), database.clone(), shutdown.clone());
        tokio::spawn(async move { slot.run(database, shutdown).await })
    };
    let publisher = redis.zip(publisher).map(|(settings, status)| {
        let publisher = Publisher::new(Arc::clone(&log), Arc::clone(&registry), settings, status);
        tokio::spawn(publisher.run(shutdown.clone()))
    });
    let settings = source::Settings { database: postgres, slot, application_name: config.slot() };
    let ended = source::run(settings, log, registry, shutdown.clone()).await;

    shutdown.cancel();
    for task in [server, watermark, router, slot_health].into_iter().chain(publisher) {
        if let Err(error) = task.await {
            tracing::error!(%error, "a part of the streamer panicked");
        }
    }
    tracing::info!("stopped");
    ended
}

fn shape_settings(config: &Serve) -> shape::Settings {
    shape::Settings {
        chunk_bytes: as_usize(config.chunk_bytes),
        long_poll_timeout: config.long_poll_timeout,
        sse_timeout: config.sse_timeout,
        auto_publish: config.auto_publish,
        allow_deletion: config.allow_shape_deletion,
        snapshot_bytes: config.snapshot_bytes,
        initial_requests: config.max_initial_requests,
        existing_requests: config.max_existing_requests,
    }
}

fn start_logging(format: LogFormat) {
    // Every pooled connection that a restart of Postgres ends is worth a line to deadpool; to an operator it is not.
    let usual = "info,deadpool=error,tokio_postgres=error";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // Fails only if a log is there already, as in tests.
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}

fn stop_on_signal(shutdown: CancellationToken) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::io("listen to SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("listen to SIGINT"))?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal stops at once");
        shutdown.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    Ok(())
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
