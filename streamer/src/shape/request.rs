//! What a client asks for, read from the parameters of its request. Pure.

use super::definition::{LogMode, Replica, Wanted};
use super::error::ShapeError;
use super::filter::MAX_TEXT_BYTES;
use super::offset::ShapeOffset;
use std::collections::BTreeMap;

/// A request for a part of a shape's log.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The shape.
    pub wanted: Wanted,
    /// Behind which place.
    pub offset: ShapeOffset,
    /// Of which incarnation; none with [`ShapeOffset::Start`] and [`ShapeOffset::Now`].
    pub handle: Option<String>,
    /// Whether to wait for changes.
    pub live: bool,
    /// Whether to send changes as they come.
    pub sse: bool,
    /// What the client got as `electric-cursor`.
    pub cursor: Option<u64>,
}

/// A request to delete a shape.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// By its definition.
    pub wanted: Option<Wanted>,
    /// By its handle.
    pub handle: Option<String>,
}

/// The parameters that mean something, but for those of subsets and `params[…]`.
const NAMES: [&str; 13] = [
    "table",
    "columns",
    "queryable_columns",
    "where",
    "params",
    "replica",
    "log",
    "offset",
    "handle",
    "live",
    "live_sse",
    "experimental_live_sse",
    "cursor",
];

/// Whether a parameter means something.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || name.starts_with("params[") || name.starts_with("subset__")
}

const BLANK: &str = "can't be blank";

/// Parameters by name; the last one counts, as everywhere in forms.
#[derive(Debug, Default)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// From pairs of a query string.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Sets one, as a request's body does.
    pub fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// The value, unless it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether any name begins like that.
    pub fn any(&self, prefix: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(prefix))
    }

    /// `name[1]`, `name[2]`, …: by number, from 1 on without gaps.
    pub fn numbered(&self, name: &str) -> Result<BTreeMap<u32, String>, ShapeError> {
        let mut params = BTreeMap::new();
        for (key, value) in &self.0 {
            let Some(inside) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']')) else {
                continue;
            };
            let number = inside.parse().ok().filter(|number| *number > 0);
            let number =
                number.ok_or_else(|| ShapeError::invalid(name, "Parameters must be numbered starting from 1"))?;
            params.insert(number, value.clone());
        }
        check_numbers(&params).map_err(|message| ShapeError::invalid(name, message))?;
        // They are kept as long as the shape is, whether its condition names them or not.
        if params.values().map(String::len).sum::<usize>() > MAX_TEXT_BYTES {
            return Err(ShapeError::invalid(name, format!("are longer than {MAX_TEXT_BYTES} bytes together")));
        }
        Ok(params)
    }

    /// A switch: there, and not `false`.
    fn switch(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !matches!(value.as_str(), "false" | "0"))
    }

    /// The shape that is asked for.
    pub fn wanted(&self) -> Result<Wanted, ShapeError> {
        let table = self.get("table").ok_or_else(|| ShapeError::invalid("table", BLANK))?;
        let replica = match self.get("replica") {
            None | Some("default") => Replica::Default,
            Some("full") => Replica::Full,
            Some(_) => return Err(ShapeError::invalid("replica", "is invalid")),
        };
        let log = match self.get("log") {
            None | Some("full") => LogMode::Full,
            Some("changes_only") => LogMode::ChangesOnly,
            Some(_) => return Err(ShapeError::invalid("log", "is invalid")),
        };
        Ok(Wanted {
            table: table.to_owned(),
            filter: self.get("where").map(str::to_owned),
            params: self.numbered("params")?,
            columns: self.get("columns").map(str::to_owned),
            queryable: self.get("queryable_columns").map(str::to_owned),
            replica,
            log,
        })
    }

    /// The part of its log that is asked for.
    pub fn asked(&self) -> Result<Asked, ShapeError> {
        let offset = self.get("offset").ok_or_else(|| ShapeError::invalid("offset", BLANK))?;
        let offset = offset.parse().map_err(|_| ShapeError::invalid("offset", "has invalid format"))?;
        let fresh = matches!(offset, ShapeOffset::Start | ShapeOffset::Now);
        let handle = self.get("handle").filter(|_| !fresh).map(str::to_owned);
        if handle.is_none() && !fresh {
            return Err(ShapeError::invalid("handle", "can't be blank when offset != -1"));
        }
        let live = self.switch("live");
        match offset {
            ShapeOffset::Start if live => return Err(ShapeError::invalid("live", "can't be true when offset == -1")),
            ShapeOffset::Now if live => {
                return Err(ShapeError::invalid("live", "can't be true when offset is 'now'"));
            }
            _ => {}
        }
        let sse = ["live_sse", "experimental_live_sse"].into_iter().find(|name| self.switch(name));
        if let Some(name) = sse.filter(|_| !live) {
            return Err(ShapeError::invalid(name, "can't be true unless live is also true"));
        }
        let cursor =
            self.get("cursor").map(|text| text.parse().map_err(|_| ShapeError::invalid("cursor", "is invalid")));
        Ok(Asked { wanted: self.wanted()?, offset, handle, live, sse: sse.is_some(), cursor: cursor.transpose()? })
    }

    /// What is to be deleted.
    pub fn deletion(&self) -> Result<Deletion, ShapeError> {
        let wanted = self.get("table").map(|_| self.wanted()).transpose()?;
        let handle = self.get("handle").map(str::to_owned);
        if wanted.is_none() && handle.is_none() {
            return Err(ShapeError::invalid("handle", "can't be blank when shape definition is missing"));
        }
        Ok(Deletion { wanted, handle })
    }
}

/// From 1 on without gaps.
pub(super) fn check_numbers(params: &BTreeMap<u32, String>) -> Result<(), String> {
    let ordered = params.keys().zip(1..).all(|(number, expected)| *number == expected);
    if ordered { Ok(()) } else { Err("Parameters must be numbered sequentially, starting from 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Parameters {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        };
        Parameters::new(query.split('&').map(pair))
    }

    #[test]
    fn what_is_wrong_is_told() {
        let check = |query: &str, expected: Option<&str>| {
            let error = parameters(query).asked().err().map(|error| match error {
                ShapeError::Invalid(errors) => errors.to_string(),
                other => panic!("{other}"),
            });
            assert_eq!(error.as_deref(), expected, "{query}");
        };
        check("table=t&offset=-1", None);
        check("table=t&offset=-1&handle=x&unknown=1", None);
        check("table=t&offset=0_0&handle=x&live&live_sse=true&cursor=5", None);
        check("table=t&offset=0_0&handle=x&live=false", None);
        check("table=t&offset=-1&params[1]=a&params[2]=b", None);
        check("offset=-1", Some(r#"{"table":["can't be blank"]}"#));
        check("table=t", Some(r#"{"offset":["can't be blank"]}"#));
        check("table=t&offset=x", Some(r#"{"offset":["has invalid format"]}"#));
        check("table=t&offset=0_0", Some(r#"{"handle":["can't be blank when offset != -1"]}"#));
        check("table=t&offset=-1&live=true", Some(r#"{"live":["can't be true when offset == -1"]}"#));
        check("table=t&offset=now&live=true", Some(r#"{"live":["can't be true when offset is 'now'"]}"#));
        check(
            "table=t&offset=0_0&handle=x&live_sse=true",
            Some(r#"{"live_sse":["can't be true unless live is also true"]}"#),
        );
        check("table=t&offset=-1&replica=most", Some(r#"{"replica":["is invalid"]}"#));
        check("table=t&offset=-1&log=none", Some(r#"{"log":["is invalid"]}"#));
        check(
            "table=t&offset=-1&params[2]=a",
            Some(r#"{"params":["Parameters must be numbered sequentially, starting from 1"]}"#),
        );
        check("table=t&offset=0_0&handle=x&live&cursor=y", Some(r#"{"cursor":["is invalid"]}"#));
    }

    #[test]
    fn switches() {
        let check = |query: &str, expected: bool| {
            let asked = parameters(&format!("table=t&offset=0_0&handle=x&{query}")).asked().expect("it is sound");
            assert_eq!(asked.live, expected, "{query}");
        };
        check("live", true);
        check("live=", true);
        check("live=true", true);
        check("live=yes", true);
        check("live=false", false);
        check("alive", false);
    }
}
