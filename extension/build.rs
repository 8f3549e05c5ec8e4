//! Writes the upgrade script of this version: `extension/sql/headwater--FROM--TO.sql`, where cargo-pgrx looks for it.
//!
//! `sql/upgrade/FROM--TO.sql` says by hand what must: changes of tables, objects that go, what is to be done to tables that
//! are enabled. Two kinds of line in it stand for the rest:
//!
//! * `-- file: NAME` for the whole of `sql/NAME.sql`: an object that is new
//! * `-- functions` for every function, trigger, comment and privilege as it is now, whichever of them have changed

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let crate_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let sql = crate_dir.join("../sql");
    println!("cargo::rerun-if-changed=../sql");
    println!("cargo::rerun-if-changed=src/schema.rs");
    let order = order(&fs::read_to_string(crate_dir.join("src/schema.rs"))?);
    let target = crate_dir.join("sql");
    fs::create_dir_all(&target)?;
    for entry in fs::read_dir(sql.join("upgrade"))? {
        let path = entry?.path();
        let versions = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if versions.contains("--") {
            let script = compose(&fs::read_to_string(&path)?, &sql, &order)?;
            write_if_changed(&target.join(format!("headwater--{versions}.sql")), &script)?;
        }
    }
    Ok(())
}

/// The names of the files of `sql/`, in the order in which they are installed.
fn order(schema: &str) -> Vec<String> {
    schema
        .split("\"../../sql/")
        .skip(1)
        .filter_map(|rest| rest.split_once(".sql\""))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn compose(by_hand: &str, sql: &Path, order: &[String]) -> Result<String> {
    let read = |name: &str| fs::read_to_string(sql.join(format!("{name}.sql")));
    let mut script = String::new();
    for line in by_hand.lines() {
        if let Some(name) = line.strip_prefix("-- file: ") {
            script += &read(name)?;
        } else if line == "-- functions" {
            for name in order {
                for statement in statements(&read(name)?).iter().filter_map(|statement| again(statement)) {
                    writeln!(script, "{statement};")?;
                }
            }
        } else {
            writeln!(script, "{line}")?;
        }
    }
    Ok(script)
}

/// The statement in a form that can be run where its object is there already; `None` for tables, roles, triggers of events
/// and the like.
fn again(statement: &str) -> Option<String> {
    let statement = statement.trim_start();
    for kind in ["function", "procedure", "trigger"] {
        if let Some(rest) = statement.strip_prefix(&format!("create {kind} ")) {
            return Some(format!("create or replace {kind} {rest}"));
        }
    }
    if statement.starts_with("comment on event trigger ") {
        return None;
    }
    let repeatable = ["comment on ", "grant ", "revoke ", "select pg_catalog.pg_extension_config_dump("];
    let repeatable = repeatable.iter().any(|start| statement.starts_with(start))
        // A trigger that is replaced begins anew as one for ordinary sessions.
        || statement.contains(" enable always trigger ");
    repeatable.then(|| statement.to_owned())
}

/// The statements of a file, without their semicolons and the comments before them.
fn statements(file: &str) -> Vec<String> {
    let (mut statements, mut statement) = (Vec::new(), String::new());
    let mut rest = file;
    while let Some(next) = rest.chars().next() {
        // What may hold a semicolon that ends nothing.
        let whole = [("--", "\n"), ("$$", "$$"), ("'", "'"), ("\"", "\"")].into_iter().find_map(|(begin, end)| {
            let inside = rest.strip_prefix(begin)?;
            inside.find(end).map(|length| (begin, begin.len() + length + end.len()))
        });
        let length = whole.map_or(next.len_utf8(), |(_, length)| length);
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        match whole {
            Some(("--", _)) if statement.trim().is_empty() => {}
            None if next == ';' => statements.push(std::mem::take(&mut statement)),
            _ => statement += piece,
        }
    }
    statements
}

/// An untouched file keeps its time, so that nothing is built anew.
fn write_if_changed(path: &Path, content: &str) -> Result<()> {
    if fs::read_to_string(path).ok().as_deref() != Some(content) {
        fs::write(path, content)?;
    }
    Ok(())
}
