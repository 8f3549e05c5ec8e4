//! Promise: `sslmode` means for every connection to Postgres what it means to psql, and nothing is ever weaker than
//! it says. Oracle: `pg_stat_ssl`, which tells how each connection came.

use std::path::PathBuf;

use headwater_tests::authority::Authority;
use headwater_tests::place::Scratch;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;

/// What becomes of a streamer with these parameters.
#[derive(Clone, Copy, Debug)]
enum Expected<'a> {
    /// All of its connections are encrypted.
    Encrypted,
    /// None is.
    Plain,
    /// It ends, and says this.
    Refused(&'a [&'a str]),
}

async fn check(postgres: &Postgres, host: &str, parameters: &str, expected: Expected<'_>) {
    let url = postgres.streamer_url().replace("127.0.0.1", host) + parameters;
    if let Expected::Refused(words) = expected {
        let ending = Streamer::run_to_end(&url, &["--insecure"]).await;
        assert_eq!(ending.status.code(), Some(1), "{host}{parameters}: {}", ending.message);
        for word in words {
            assert!(ending.message.contains(word), "{host}{parameters}: no {word:?} in {}", ending.message);
        }
        return;
    }
    let mut streamer = Streamer::start(postgres, &["--database-url", &url]).await;
    streamer.cursor_now().await; // the pool is in use too
    let rows = postgres
        .connect()
        .await
        .query(
            "select a.backend_type, s.ssl from pg_stat_activity a join pg_stat_ssl s using (pid)
             where a.usename = 'headwater_streamer'",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.iter().any(|row| row.get::<_, &str>(0) == "walsender") && rows.len() >= 2, "{rows:?}");
    for row in &rows {
        let (kind, encrypted): (&str, bool) = (row.get(0), row.get(1));
        assert_eq!(encrypted, matches!(expected, Expected::Encrypted), "{host}{parameters}: {kind}");
    }
    streamer.terminate().await;
}

#[tokio::test]
async fn sslmode_means_what_it_says() {
    let postgres = Postgres::start().await;
    let not_offered: &[&str] = &["does not offer", "ssl = on"];
    check(&postgres, "127.0.0.1", "", Expected::Plain).await;
    check(&postgres, "127.0.0.1", "?sslmode=require", Expected::Refused(not_offered)).await;
    check(&postgres, "127.0.0.1", "?sslmode=prefer&channel_binding=require", Expected::Refused(&["channel"])).await;

    let (authority, stranger) = (Authority::new(), Authority::new());
    let scratch = Scratch::new("certificates");
    let file = |name: &str, certificate: &str| -> PathBuf {
        let path = scratch.path().join(name);
        std::fs::write(&path, certificate).unwrap();
        path
    };
    let trusted = file("trusted.pem", authority.certificate());
    let other = file("other.pem", stranger.certificate());
    let with = |mode: &str, roots: &PathBuf| format!("?sslmode={mode}&sslrootcert={}", roots.display());
    postgres.offer_tls(&authority.issue("localhost")).await;

    check(&postgres, "localhost", "?sslmode=disable", Expected::Plain).await;
    check(&postgres, "127.0.0.1", "", Expected::Encrypted).await;
    check(&postgres, "127.0.0.1", "?sslmode=require&channel_binding=require", Expected::Encrypted).await;
    check(&postgres, "127.0.0.1", &with("verify-ca", &trusted), Expected::Encrypted).await;
    check(&postgres, "localhost", &with("verify-full", &trusted), Expected::Encrypted).await;
    // Trusted authorities are given: then they count, whatever the mode.
    check(&postgres, "localhost", &format!("?sslrootcert={}", trusted.display()), Expected::Encrypted).await;

    let unknown: &[&str] = &["certificate", "sslrootcert"];
    for mode in ["require", "verify-ca", "verify-full"] {
        check(&postgres, "localhost", &with(mode, &other), Expected::Refused(unknown)).await;
    }
    let misnamed: &[&str] = &["certificate", "127.0.0.1", "subjectAltName"];
    check(&postgres, "127.0.0.1", &with("verify-full", &trusted), Expected::Refused(misnamed)).await;
    check(
        &postgres,
        "localhost",
        &with("verify-full", &scratch.path().join("none.pem")),
        Expected::Refused(&["none.pem"]),
    )
    .await;
}
