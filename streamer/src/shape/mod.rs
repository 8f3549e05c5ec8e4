//! Shapes: rows of a table, kept up to date on every client that speaks ElectricSQL's HTTP protocol.

pub mod table;
