//! End-to-end tests, one module for each promise: what it is, the oracle that judges it, and how it is provoked.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backfill;
mod batch;
mod commands;
mod convergence;
mod crash;
mod dump;
mod entities;
mod fanout;
mod filter;
mod generate;
mod histories;
mod hostile;
mod leaks;
mod load;
mod notify;
mod open_transaction;
mod openapi;
mod orders;
mod pages;
mod pgbench;
mod poll;
mod retention;
mod shape;
mod slot;
mod slow_readers;
mod stack;
mod startup;
mod stream;
mod subscription;
mod tenants;
mod tls;
mod transport;
mod upgrade;
mod watching;
mod websocket;
