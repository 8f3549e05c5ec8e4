//! Values of flags as people write them: sizes, times, addresses, names. What is refused says what would do.

use std::time::Duration;

/// Slot names have 63 bytes at most, lower-case letters, digits and underscores.
pub(super) fn parse_replica(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 63 - "headwater_".len()
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if fits { Ok(text.to_owned()) } else { Err("1 to 53 lower-case letters, digits and underscores".to_owned()) }
}

pub(super) fn parse_at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if number >= LEAST { Ok(number) } else { Err(format!("at least {LEAST}")) }
}

pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" | "kB" | "K" => 1 << 10,
        "MiB" | "MB" | "M" => 1 << 20,
        "GiB" | "GB" | "G" => 1 << 30,
        _ => return Err(format!("`{unit}` is no unit: bytes, KiB, MiB or GiB (as Postgres counts, 1 MB = 1 MiB)")),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number and a unit, as 256MiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// As ElectricSQL's variables: a number without a unit is milliseconds.
pub(super) fn parse_millis(text: &str) -> Result<Duration, String> {
    match split_unit(text) {
        (number, "") => parse_duration(&format!("{number}ms")),
        _ => parse_duration(text),
    }
}

pub(super) fn parse_address(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or("a host and a port, as 127.0.0.1:9464 or [::1]:9464")?;
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// A connection's buffer is as large: between what a token needs and what all connections together may take.
pub(super) fn parse_header_bytes(text: &str) -> Result<usize, String> {
    match usize::try_from(parse_bytes(text)?) {
        Ok(bytes @ 8192..=1_048_576) => Ok(bytes),
        _ => Err("between 8KiB and 1MiB".to_owned()),
    }
}

/// `250ms`, `15s`, `2min`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "min" | "m" => 60_000,
        _ => return Err(format!("`{unit}` is no unit: ms, s or min")),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number and a unit, as 15s".to_owned())?;
    match number.checked_mul(millis) {
        Some(1..) => Ok(Duration::from_millis(number * millis)),
        _ => Err("must be above zero, and of this world".to_owned()),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..digits], text[digits..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        let bytes = |text: &str, expected: Option<u64>| assert_eq!(parse_bytes(text).ok(), expected, "{text}");
        bytes("0", Some(0));
        bytes("1234", Some(1234));
        bytes("8MiB", Some(8 << 20));
        bytes("8 MB", Some(8 << 20));
        bytes("2GiB", Some(2 << 30));
        for wrong in ["", "MiB", "-1", "1.5MiB", "1TiB", "99999999999GiB"] {
            bytes(wrong, None);
        }
        let time = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        };
        time("15s", Some(15_000));
        time("250ms", Some(250));
        time("2min", Some(120_000));
        time("3", Some(3000));
        for wrong in ["", "0s", "1h", "-1s", "99999999999999999999s"] {
            time(wrong, None);
        }
    }
}
