//! The hand-written part: `client/src`, embedded in the binary and written out beside the typed code.

use crate::render::header;
use crate::{File, Imports, Options};

macro_rules! sources {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../../client/src/", $name)))),*] };
}

/// Every file of the runtime, by its path under `client/src`.
const SOURCES: &[(&str, &str)] = &sources![
    "client.ts",
    "clock.ts",
    "collection.ts",
    "configuration.ts",
    "debugLog.ts",
    "entity.ts",
    "error.ts",
    "event.ts",
    "fold.ts",
    "held.ts",
    "index.ts",
    "json.ts",
    "key.ts",
    "payload.ts",
    "react.ts",
    "room.ts",
    "rules.ts",
    "schema.ts",
    "session.ts",
    "status.ts",
    "store/compact.ts",
    "store/database.ts",
    "store/eventStore.ts",
    "store/folded.ts",
    "store/inbox.ts",
    "store/outbox.ts",
    "store/row.ts",
    "sync/backoff.ts",
    "sync/engine.ts",
    "sync/silence.ts",
    "sync/sse.ts",
    "sync/stream.ts",
    "sync/tabs.ts",
    "sync/transport.ts",
    "tally.ts",
    "typed.ts",
    "upcast.ts",
    "uuid.ts",
    "views.ts",
];

/// The runtime as files of the output.
pub(crate) fn files(options: &Options) -> impl Iterator<Item = File> {
    let wanted = SOURCES.iter().filter(|(name, _)| options.react || *name != "react.ts");
    wanted.map(|(name, source)| File {
        path: format!("runtime/{name}"),
        text: format!("{}\n{}", header(options), with_imports(source, options.imports)),
    })
}

/// The text with the paths of its imports ending as asked for.
pub(crate) fn with_imports(source: &str, imports: Imports) -> String {
    let end = match imports {
        Imports::Js => return source.to_owned(),
        Imports::Ts => ".ts';",
        Imports::None => "';",
    };
    let rewritten = source.split_inclusive('\n').map(|line| {
        let is_import = line.contains(" from './") || line.contains(" from '../");
        if is_import { line.replace(".js';", end) } else { line.to_owned() }
    });
    rewritten.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_file_of_the_runtime_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/src");
        let mut there = BTreeSet::new();
        let mut folders = vec![String::new()];
        while let Some(inner) = folders.pop() {
            for entry in std::fs::read_dir(folder.join(&inner)).expect("the folder is there") {
                let entry = entry.expect("it can be read");
                let name = format!("{inner}{}", entry.file_name().to_str().expect("plain names"));
                if entry.path().is_dir() {
                    folders.push(name + "/");
                } else {
                    there.insert(name);
                }
            }
        }
        assert_eq!(there, SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect(), "SOURCES lists client/src");
    }

    #[test]
    fn imports_end_as_asked_for() {
        let source = "import { a } from './a.js';\nexport type { B } from '../b.js';\nimport { Dexie } from 'dexie';\n";
        assert_eq!(with_imports(source, Imports::Js), source);
        assert_eq!(
            with_imports(source, Imports::None),
            "import { a } from './a';\nexport type { B } from '../b';\nimport { Dexie } from 'dexie';\n"
        );
    }
}
