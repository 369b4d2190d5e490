//! Words of a line, split as a shell does: quotes and backslashes, and no expansion of any kind.

use std::borrow::Cow;

/// A word and where it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The position of its first byte in the line, quotes included.
    pub(crate) start: usize,
    /// The word without its quotes and backslashes.
    pub(crate) text: Vec<u8>,
}

/// Where in its syntax a line has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    Plain,
    Single,
    Double,
}

/// The words of a line, or of the beginning of one.
#[derive(Debug)]
pub(crate) struct Line {
    words: Vec<Word>,
    place: Place,
    escaped: bool,
}

impl Line {
    /// Splits a line.
    pub(crate) fn scan(line: &[u8]) -> Self {
        let mut scan = Self { words: Vec::new(), place: Place::Between, escaped: false };
        for (at, &byte) in line.iter().enumerate() {
            scan.step(at, byte);
        }
        scan
    }

    /// Tells whether the line ends outside of quotes, and not in a backslash.
    pub(crate) fn is_complete(&self) -> bool {
        !self.escaped && matches!(self.place, Place::Between | Place::Plain)
    }

    /// Takes the words, and the last of them apart if the line ends in it rather than after it.
    pub(crate) fn into_words(mut self) -> (Vec<Word>, Option<Word>) {
        let current = if self.place == Place::Between { None } else { self.words.pop() };
        (self.words, current)
    }

    fn step(&mut self, at: usize, byte: u8) {
        if std::mem::take(&mut self.escaped) {
            return self.escape(at, byte);
        }
        match (self.place, byte) {
            (Place::Single, b'\'') | (Place::Double, b'"') => self.place = Place::Plain,
            (Place::Single, _) => self.push(at, byte),
            (_, b'\\') => self.escaped = true,
            (Place::Double, _) => self.push(at, byte),
            (_, b'\'') => self.open(at, Place::Single),
            (_, b'"') => self.open(at, Place::Double),
            (_, b' ' | b'\t' | b'\n') => self.place = Place::Between,
            _ => self.push(at, byte),
        }
    }

    /// Takes the byte after a backslash: a newline joins two lines, and between double quotes most bytes keep it.
    fn escape(&mut self, at: usize, byte: u8) {
        if byte == b'\n' {
            return;
        }
        let backslash = at.saturating_sub(1);
        if self.place == Place::Double && !matches!(byte, b'"' | b'\\' | b'$' | b'`') {
            self.push(backslash, b'\\');
        }
        self.push(backslash, byte);
    }

    fn push(&mut self, at: usize, byte: u8) {
        self.begin(at);
        if let Some(word) = self.words.last_mut() {
            word.text.push(byte);
        }
    }

    fn open(&mut self, at: usize, quotes: Place) {
        self.begin(at);
        self.place = quotes;
    }

    /// Begins a word at a position unless one has begun.
    fn begin(&mut self, at: usize) {
        if self.place == Place::Between {
            self.words.push(Word { start: at, text: Vec::new() });
            self.place = Place::Plain;
        }
    }
}

/// Splits a whole line; nothing is returned when it ends inside quotes or in a backslash.
pub(crate) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let line = Line::scan(line);
    line.is_complete().then(|| line.words.into_iter().map(|word| word.text).collect())
}

/// Writes a word such that it is split into itself.
pub(crate) fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split(line.as_bytes())?;
        Some(words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect())
    }

    #[test]
    fn lines_are_split() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" \t \n", &[]),
            ("list", &["list"]),
            ("  a \t b\nc ", &["a", "b", "c"]),
            (r#"run --script "ps xf""#, &["run", "--script", "ps xf"]),
            (r#"'a b'c"d e"\ f"#, &["a bcd e f"]),
            (r#"'' """#, &["", ""]),
            (r#"'a\b' "a\b" a\b"#, &[r"a\b", r"a\b", "ab"]),
            (r#""\"\\\$\`""#, &[r#""\$`"#]),
            (r#"'"' "'""#, &["\"", "'"]),
            (r"'it'\''s'", &["it's"]),
            ("'a\nb'", &["a\nb"]),
            ("a\\\nb c \\\n d", &["ab", "c", "d"]),
            ("\"a\\\nb\"", &["ab"]),
            ("$HOME * ~ `x` #y ; | &", &["$HOME", "*", "~", "`x`", "#y", ";", "|", "&"]),
            ("é 'ü ö'", &["é", "ü ö"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), *expected, "{line:?}");
        }
        assert_eq!(split(b"\xff '\xfe \x00'").unwrap(), [&b"\xff"[..], b"\xfe \x00"]);
    }

    #[test]
    fn an_open_end_is_seen() {
        for line in ["'", "\"", "a 'b", "a \"b", "\\", "a\\", "a \\\n\\", "\"a\\\"", "'a\\'\\''"] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_last_word_is_known_with_its_start() {
        let last =
            |line: &str| Line::scan(line.as_bytes()).into_words().1.map(|word| (word.start, word.text));
        assert_eq!(last(""), None);
        assert_eq!(last("list "), None);
        assert_eq!(last("list"), Some((0, b"list".to_vec())));
        assert_eq!(last("info 'a b"), Some((5, b"a b".to_vec())));
        assert_eq!(last(r"info \'x"), Some((5, b"'x".to_vec())));
        assert_eq!(last("info ''"), Some((5, Vec::new())));
    }

    #[test]
    fn quoted_words_are_split_into_themselves() {
        for word in
            ["a", "", "a b", "it's", "\"", "\\", "a\nb", "$x", "--bind_mounts[0].mode", "é", "'", "''"]
        {
            assert_eq!(words(&quote(word)).unwrap(), [word], "{word:?}");
        }
        assert_eq!(quote("17r47v9ocsp"), "17r47v9ocsp");
        assert_eq!(quote("a b"), "'a b'");
    }
}
