//! Any sequence of messages, each behind its length in two bytes: no panic, and no frame larger than what was sent
//! allows. libFuzzer's own limit on memory (`-rss_limit_mb`) finds allocations without bound.
#![no_main]

#[path = "../../src/decode/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod decode;
#[path = "../../src/log/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub)]
mod log;

use decode::decode;
use libfuzzer_sys::fuzz_target;
use log::Assembler;

/// As `--ring-bytes`: beyond it a transaction is marked and not kept.
const RING_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let epoch = "00000000000000ff".parse().expect("an epoch");
    let mut assembler = Assembler::new(epoch, RING_BYTES);
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (message, behind) = behind.split_at(length);
        rest = behind;
        let Ok(message) = decode(message) else { continue };
        let Ok(Some(transaction)) = assembler.push(&message, |_| None) else { continue };
        let framed: usize = transaction.events.iter().map(|event| event.block.len()).sum();
        assert!(framed <= RING_BYTES + 64 * bytes.len(), "{framed} bytes of frames from {}", bytes.len());
    }
});
