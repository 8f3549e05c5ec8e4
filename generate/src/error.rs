//! What can be wrong with a document or an output folder. Every message says where, what, and what to write instead.

use std::path::{Path, PathBuf};

/// A document that nothing can be generated from, or a folder that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the document.
    #[error("{at}: {what}\n  {remedy}")]
    Document {
        /// Where, as `paths./api/v1/orders.x-sync.rules`.
        at: String,
        /// What is wrong there.
        what: String,
        /// What to write.
        remedy: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of somebody else's stands where ours would.
    #[error("{}: this file is not generated, and stands where a generated one belongs\n  Move it away, or choose another --output.", .0.display())]
    NotOurs(PathBuf),
}

impl Error {
    pub(crate) fn at(at: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Document { at: at.into(), what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    /// Whether its beginning is none that YAML is written with.
    pub(crate) fn is_meant_as_json(text: &str) -> bool {
        text.trim_start().starts_with(['{', '[', '<'])
    }

    pub(crate) fn not_yaml(error: &str) -> Self {
        Self::at("the document", format!("is no YAML: {error}"), "An OpenAPI document as YAML or JSON is needed.")
    }

    pub(crate) fn not_json(text: &str, error: &serde_json::Error) -> Self {
        let remedy = if text.trim_start().starts_with('<') {
            "This is a web page. The address must be that of the document itself, as http://127.0.0.1:4000/openapi.json."
        } else {
            "An OpenAPI document as JSON or YAML is needed; a streamer serves its own at /openapi.json."
        };
        Self::at("the document", format!("is no JSON: {error}"), remedy)
    }
}
