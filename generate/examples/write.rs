//! Writes what a document gives into a folder: `write openapi.json folder`. For the tests of the client, which compile it.

use headwater_generate::{Imports, Options, generate, tree};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [document, folder] = &arguments[..] else {
        eprintln!("usage: write openapi.json folder");
        return ExitCode::FAILURE;
    };
    let options = Options { command: format!("write {document}"), react: true, imports: Imports::Js };
    let written = std::fs::read_to_string(document)
        .map_err(|error| error.to_string())
        .and_then(|text| generate(&text, &options).map_err(|error| error.to_string()))
        .and_then(|output| tree::write(Path::new(folder), &output).map_err(|error| error.to_string()));
    match written {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{document}: {error}");
            ExitCode::FAILURE
        }
    }
}
