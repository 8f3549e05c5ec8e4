//! JSON text, written byte by byte into a buffer: rows are rendered a million at a time. Pure.

/// Appends the contents of a JSON string, without its quotes.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a JSON string, or `null`.
pub(super) fn write_text(text: Option<&str>, out: &mut Vec<u8>) {
    let Some(text) = text else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

/// A JSON string.
pub(super) fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// Appends a decimal number.
pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let (mut at, mut rest) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_comes_back(value in any::<Option<String>>(), number in any::<u64>()) {
            let mut out = Vec::new();
            write_text(value.as_deref(), &mut out);
            prop_assert_eq!(serde_json::from_slice::<Option<String>>(&out).expect("JSON"), value);
            out.clear();
            write_number(number, &mut out);
            prop_assert_eq!(String::from_utf8(out).expect("digits"), number.to_string());
        }
    }

    #[test]
    fn control_characters() {
        let mut out = Vec::new();
        write_text(Some("\0\u{1f}\"\\\n\r\tü"), &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), r#""\u0000\u001f\"\\\n\r\tü""#);
    }
}
