//! The generator: an `OpenAPI` document with `x-sync` becomes a typed TypeScript client, with its runtime beside it.
//!
//! * [`document`]: the document → what is to be generated; errors name the place and what to write there
//! * [`schema`]: JSON Schema → types of TypeScript
//! * `names`: identifiers that never meet
//! * `literal`: values as they are written in TypeScript
//! * [`render`]: what is to be generated → files, by the templates in `templates/`
//! * `runtime`: the hand-written part, `client/src`, embedded
//! * [`contract`]: what events stored on devices rely on, and which changes would break them
//! * [`tree`]: the files on the disk: written, or compared
//!
//! The same document gives the same bytes, always.

pub mod contract;
pub mod document;
mod error;
mod literal;
mod names;
pub mod render;
mod runtime;
pub mod schema;
pub mod tree;

pub use error::Error;

use serde_json::Value;

/// How it was asked for; stands in the first line of each file, so that anybody can make it again.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command that makes these files: `headwater generate openapi.json --output src/generated`.
    pub command: String,
    /// With hooks for React.
    pub react: bool,
    /// What imports end in.
    pub imports: Imports,
}

/// What the paths of imports end in: what TypeScript and bundlers take differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Imports {
    /// `./order.js`: TypeScript in every mode, Vite, esbuild, Node's own resolution.
    #[default]
    Js,
    /// `./order.ts`: Deno, Node that strips types, `allowImportingTsExtensions`.
    Ts,
    /// `./order`: webpack and Metro as they are set up by default.
    None,
}

/// A file of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where, under the output folder, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// What a document gives.
#[derive(Clone, Debug)]
pub struct Output {
    /// In the order of their paths.
    pub files: Vec<File>,
    /// What was passed over or named otherwise than one would expect.
    pub notes: Vec<String>,
    /// What is in it that events stored on devices will rely on.
    pub contract: contract::Contract,
}

/// The document as a tree, from JSON or YAML.
fn parse(document: &str) -> Result<Value, Error> {
    let error = match serde_json::from_str(document) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if Error::is_meant_as_json(document) {
        return Err(Error::not_json(document, &error));
    }
    // Its parser bounds what aliases can expand to.
    match serde_saphyr::from_str::<Value>(document) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Error::not_json(document, &error)),
        Err(error) => Err(Error::not_yaml(&error.to_string())),
    }
}

/// Reads a document and renders all files.
pub fn generate(document: &str, options: &Options) -> Result<Output, Error> {
    let value = parse(document)?;
    let mut document = document::read(&value)?;
    let names = names::assign(&document.entities, &mut document.notes);
    let contract = contract::Contract::of(&document.entities);
    let mut files = render::render(&document.entities, &names, &contract, options);
    files.extend(runtime::files(options));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Output { files, notes: document.notes, contract })
}
