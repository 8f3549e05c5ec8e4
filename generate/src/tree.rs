//! The output folder: files are written only where they differ, and what is no longer generated is removed, if it is ours.

use crate::contract;
use crate::error::Error;
use crate::render::MARK;
use crate::{File, Output};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What writing changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that are new or say something else.
    pub written: Vec<String>,
    /// Files of ours that are no longer generated.
    pub removed: Vec<String>,
    /// Files that were right.
    pub unchanged: usize,
}

/// Brings `folder` to what was generated.
pub fn write(folder: &Path, output: &Output) -> Result<Written, Error> {
    let mut result = Written::default();
    let stale = left_over(folder, output)?;
    for File { path, text } in &output.files {
        let target = folder.join(path);
        match read(&target)? {
            Some(there) if there == *text => result.unchanged += 1,
            Some(there) if !is_ours(&there) => return Err(Error::NotOurs(target)),
            _ => {
                put(&target, text)?;
                result.written.push(path.clone());
            }
        }
    }
    for path in stale {
        let target = folder.join(&path);
        fs::remove_file(&target).map_err(|error| Error::file(&target, error))?;
        // A folder that is empty now goes as well; one that is not stays.
        target.ancestors().skip(1).take_while(|parent| *parent != folder).all(|parent| fs::remove_dir(parent).is_ok());
        result.removed.push(path);
    }
    Ok(result)
}

/// How `folder` differs from what was generated: one text for each file. The command in the first line does not count.
pub fn differences(folder: &Path, output: &Output) -> Result<Vec<String>, Error> {
    let mut differences = Vec::new();
    for File { path, text } in &output.files {
        match read(&folder.join(path))? {
            None => differences.push(format!("{path} is missing")),
            Some(there) if !is_ours(&there) => differences.push(format!("{path} is not generated")),
            Some(there) if body(&there) != body(text) => differences.push(format!("{path} differs")),
            Some(_) => {}
        }
    }
    differences.extend(left_over(folder, output)?.into_iter().map(|path| format!("{path} is no longer generated")));
    Ok(differences)
}

/// What the code on the disk promised; none where there is none.
pub fn former_contract(folder: &Path) -> Result<Option<Value>, Error> {
    let text = read(&folder.join(contract::FILE))?;
    Ok(text.and_then(|text| serde_json::from_str::<Value>(&text).ok()).and_then(|value| value.get("entities").cloned()))
}

fn is_ours(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.contains(MARK))
}

/// The same of a file, of which only the beginning is read: the folder may hold large ones of others.
fn begins_as_ours(path: &Path) -> Result<bool, Error> {
    const ENOUGH: u64 = 256;
    let mut start = Vec::new();
    let opened = fs::File::open(path).and_then(|file| file.take(ENOUGH).read_to_end(&mut start));
    opened.map_err(|error| Error::file(path, error))?;
    Ok(is_ours(&String::from_utf8_lossy(&start)))
}

/// What stands behind the first line.
fn body(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, body)| body)
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path, error)),
    }
}

/// Whoever watches the folder never sees half a file.
fn put(target: &Path, text: &str) -> Result<(), Error> {
    let failed = |error| Error::file(target, error);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = target.with_file_name(name);
    fs::write(&beside, text).map_err(failed)?;
    fs::rename(&beside, target).map_err(failed)
}

/// Files that bear our first line and are not among what was generated.
fn left_over(folder: &Path, output: &Output) -> Result<Vec<String>, Error> {
    let wanted: BTreeSet<&str> = output.files.iter().map(|file| file.path.as_str()).collect();
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        let here = folder.join(&inner);
        let entries = match fs::read_dir(&here) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file(&here, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| Error::file(&here, error))?;
            let path = inner.join(entry.file_name());
            let kind = entry.file_type().map_err(|error| Error::file(&entry.path(), error))?;
            let Some(name) = path.to_str().map(|name| name.replace('\\', "/")) else { continue };
            // What tools keep for themselves is none of ours.
            let hidden = name.rsplit('/').next().is_some_and(|name| name.starts_with('.') || name == "node_modules");
            if kind.is_dir() && !hidden {
                folders.push(path);
            } else if kind.is_file() && !wanted.contains(name.as_str()) && begins_as_ours(&entry.path())? {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}
