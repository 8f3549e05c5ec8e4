//! Server-Sent Events as a client reads them (HTML Living Standard 9.2): bytes in, blocks out.

use crate::error::Error;

/// No event is that large: whoever sends more is no streamer.
const LARGEST_BLOCK: usize = 64 << 20;

/// One block, up to its empty line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) id: Option<String>,
    pub(super) event: Option<String>,
    pub(super) data: Option<String>,
    /// Milliseconds.
    pub(super) retry: Option<u64>,
}

/// Cuts a stream of bytes into blocks.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pending: Vec<u8>,
    taken: usize,
}

impl Blocks {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.pending.drain(..self.taken);
        self.taken = 0;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() > LARGEST_BLOCK {
            return Err(Error::Protocol("the server sends a block without an end".to_owned()));
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<Block> {
        let rest = &self.pending[self.taken..];
        let end = rest.windows(2).position(|pair| pair == b"\n\n")?;
        let block = parse(&String::from_utf8_lossy(&rest[..end]));
        self.taken += end + 2;
        Some(block)
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => block.id = Some(value.to_owned()),
            "event" => block.event = Some(value.to_owned()),
            "retry" => block.retry = value.parse().ok(),
            "data" => match &mut block.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => block.data = Some(value.to_owned()),
            },
            _ => {} // comments, and what is not known yet
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_whole_however_the_bytes_come() {
        let text = "retry: 1000\nid: a\n\n:\n\nid: b\nevent: order.created\ndata: {\"name\":\ndata: \"ü\"}\n\nid:\n\n";
        for size in 1..text.len() {
            let mut blocks = Blocks::default();
            let mut all = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                blocks.push(chunk).expect("small");
                all.extend(std::iter::from_fn(|| blocks.next()));
            }
            assert_eq!(all.len(), 4, "{size}");
            assert_eq!((all[0].retry, all[0].id.as_deref()), (Some(1000), Some("a")), "{size}");
            assert_eq!(all[1], Block::default(), "{size}");
            assert_eq!(all[2].event.as_deref(), Some("order.created"), "{size}");
            assert_eq!(all[2].data.as_deref(), Some("{\"name\":\n\"ü\"}"), "{size}");
            assert_eq!(all[3].id.as_deref(), Some(""), "{size}");
        }
    }
}
