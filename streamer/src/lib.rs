//! The streamer: follows Postgres' write-ahead log and serves its events over HTTP.
//!
//! Data flows one way, `source → decode → log → events → fanout → http`; `ingest` is the only way back.
//!
//! * [`source`]: the replication connection and its slot
//! * [`slot_health`]: how that slot stands
//! * [`decode`]: pgoutput bytes → messages; pure
//! * [`log`]: the newest transactions in memory, each change framed once for all clients
//! * [`watermark`]: up to which position nothing can appear any more
//! * [`events`]: pages and streams of events; the exact joint between table and log
//! * [`seam`]: what makes the joint between a snapshot of tables and the log exact
//! * [`shape`]: rows of tables for clients of ElectricSQL's protocol
//! * [`fanout`]: streams on plain sockets, frames shared by all readers of the same wishes
//! * [`ingest`]: clients' batches into `headwater.ingest`
//! * [`notify`]: who else is told of events
//! * [`identity`]: who is calling
//! * [`registry`]: which entities there are, and which of them tenants share
//! * [`metrics`], [`vitals`]: what is counted, and what Postgres says of our slot
//! * [`console`]: what operators see of all that
//! * [`http`]: the API
//! * [`config`], [`database`], [`error`], [`nameless`], [`slice`]: what they all use
//! * [`run`]: puts it together; `headwater serve`
//! * [`doctor`], [`tail`]: other commands
//! * [`generate`]: the command that writes clients; apart from all of these

pub mod config;
pub mod console;
pub mod database;
pub mod decode;
pub mod doctor;
pub mod error;
pub mod events;
pub mod fanout;
pub mod generate;
pub mod http;
pub mod identity;
pub mod ingest;
pub mod log;
pub mod metrics;
pub mod nameless;
pub mod notify;
pub mod registry;
pub mod run;
pub mod seam;
pub mod shape;
pub mod slice;
pub mod slot_health;
pub mod source;
pub mod tail;
pub mod tally;
pub mod vitals;
pub mod watermark;
