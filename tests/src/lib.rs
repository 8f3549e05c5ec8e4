//! The harness of the end-to-end tests: a real Postgres, the real streamer, real HTTP, all on free ports.
//!
//! `Postgres` and `Streamer` are started by a test and end with it; when a test fails, the ends of their logs
//! are printed. Nothing here waits a fixed time: `deadline::eventually` awaits a condition.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a harness has no caller to report to: what fails here fails the test"
)]

pub mod authority;
pub mod deadline;
pub mod decoded;
pub mod event;
pub mod follower;
pub mod http;
pub mod nginx;
pub mod place;
pub mod postgres;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod shape;
pub mod sse;
pub mod streamer;
pub mod token;
pub mod walsender;
