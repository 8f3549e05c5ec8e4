//! The generated client's runtime in Chromium, against the streamer: `client/test/browser/figures.test.ts` measures, this shows. What has an aim
//! of its own stands beside that; what a page could do by itself (plain Dexie, posted batches) beside that.

use std::path::Path;
use std::process::Command;

use headwater_tests::place::checkout;
use serde_json::Value;

use crate::Options;
use crate::measured::{Bound, Measured};

const HEADWATER: &str = "headwater";
const AIM: &str = "aim";
const DEXIE: &str = "plain Dexie";
const POSTS: &str = "posted batches";

/// A turn takes most of a minute, and its figures are quantiles of many already.
const MOST_ROUNDS: u32 = 3;

/// What is measured: its name among the figures, in words, its unit, the aim, whether that is the most or the least, and a peer.
type Figure = (&'static str, &'static str, &'static str, f64, bool, Option<(&'static str, &'static str)>);

const FIGURES: [Figure; 6] = [
    ("call_p95_us", "mutation until the view shows it, p95", "µs", 1000.0, true, None),
    ("durable_p95_us", "mutation until it is durable, p95", "µs", 2000.0, true, Some((DEXIE, "dexie_put_p95_us"))),
    ("fold_of_100_p95_us", "fold of 100 events, p95", "µs", 2000.0, true, None),
    ("open_20k_ms", "20,000 events opened, folded at rest", "ms", 300.0, true, Some((DEXIE, "dexie_open_20k_ms"))),
    ("kb_per_1000_events", "room for 1,000 events", "kB", 1500.0, true, None),
    ("synced_per_s", "unsent events synced", "events/s", 1000.0, false, Some((POSTS, "posted_per_s"))),
];

pub(crate) fn run(options: &Options) -> Vec<Measured> {
    let mut all: Vec<Measured> = FIGURES
        .iter()
        .map(|(_, what, unit, _, most, peer)| {
            let bound = if *most { Bound::AtMost(1.0) } else { Bound::AtLeast(1.0) };
            let measured = Measured::new(*what, unit).claim(HEADWATER, AIM, Some(bound), None);
            match peer {
                Some((peer, _)) => measured.claim(HEADWATER, peer, None, None),
                None => measured,
            }
        })
        .collect();
    for _ in 0..options.rounds.min(MOST_ROUNDS) {
        let figures = measure();
        for (measured, (name, _, _, aim, _, peer)) in all.iter_mut().zip(FIGURES) {
            measured.add(HEADWATER, number(&figures, name));
            measured.add(AIM, aim);
            if let Some((peer, name)) = peer {
                measured.add(peer, number(&figures, name));
            }
        }
    }
    all
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("no figure {name} in {figures}"))
}

/// One turn, by the client's own script.
fn measure() -> Value {
    let streamer = std::env::current_exe().unwrap().with_file_name("headwater");
    let file = std::env::temp_dir().join(format!("headwater-client-figures-{}.json", std::process::id()));
    let said = Command::new("npx")
        .args(["vitest", "run", "--config", "vitest.browser.config.ts", "figures"])
        .current_dir(checkout().join("client"))
        .env("HEADWATER_CLIENT_FIGURES", &file)
        .env("HEADWATER_TEST_STREAMER", streamer)
        .output()
        .unwrap();
    assert!(
        said.status.success(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    let figures = read(&file);
    let _ = std::fs::remove_file(&file);
    figures
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}
