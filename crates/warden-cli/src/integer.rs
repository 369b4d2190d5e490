//! Numbers as the original client reads them.

/// Reads a number with an optional sign, in decimal, or with 0x, 0b, 0o or a leading 0 in another base; single
/// underscores may stand between digits.
pub(crate) fn parse(text: &str) -> Option<i128> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let (negative, magnitude) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = base(magnitude);
    if digits.is_empty() || digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    let value = digits
        .chars()
        .filter(|&c| c != '_')
        .try_fold(0i128, |value, c| value.checked_mul(base.into())?.checked_add(c.to_digit(base)?.into()))?;
    Some(if negative { -value } else { value })
}

/// Takes the mark of a base off.
fn base(text: &str) -> (u32, &str) {
    let marked = |mark: &str| text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(mark));
    for (mark, base) in [("0x", 16), ("0b", 2), ("0o", 8), ("0d", 10)] {
        if marked(mark) {
            return (base, &text[2..]);
        }
    }
    match text.strip_prefix('0') {
        Some("") | None => (10, text),
        Some(rest) => (8, rest.strip_prefix('_').unwrap_or(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers_are_read() {
        let cases = [
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("+5", 5),
            (" 42\n", 42),
            ("1_000_000", 1_000_000),
            ("0x1F", 31),
            ("0XfF", 255),
            ("-0x10", -16),
            ("0b101", 5),
            ("0o17", 15),
            ("0d19", 19),
            ("017", 15),
            ("0_7", 7),
            ("00", 0),
            ("18446744073709551615", i128::from(u64::MAX)),
        ];
        for (text, number) in cases {
            assert_eq!(parse(text), Some(number), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let cases = [
            "",
            " ",
            "-",
            "+",
            "abc",
            "1.5",
            "1e3",
            "0x",
            "0b2",
            "08",
            "1__0",
            "_1",
            "1_",
            "0x_1",
            "--1",
            "+-1",
            "1 2",
            "0x-1",
            "٣",
            "5k",
            "999999999999999999999999999999999999999999",
        ];
        for text in cases {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
