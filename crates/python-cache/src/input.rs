//! Reading a pickle's bytes: arguments of its instructions, never beyond its end.

use std::borrow::Cow;

use num_bigint::BigInt;

use crate::graph::{Node, Refusal, Result, refuse};

/// Most digits of an int: as many as Python itself converts to text.
const MAX_DIGITS: usize = 4_300;
/// Bytes that so many digits need.
const MAX_INT_BYTES: usize = 1_786;

const TRUNCATED: &str = "the pickle is cut short";

/// The bytes that have not been read yet.
#[derive(Debug)]
pub(crate) struct Input<'p> {
    rest: &'p [u8],
}

impl<'p> Input<'p> {
    pub(crate) fn new(pickle: &'p [u8]) -> Self {
        Self { rest: pickle }
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'p [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| Refusal(TRUNCATED.into()))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| Refusal(TRUNCATED.into()))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A length in so many bytes, of what must still be there.
    pub(crate) fn len_of(&mut self, bytes: usize) -> Result<usize> {
        let mut wide = [0; 8];
        for (to, from) in wide.iter_mut().zip(self.take(bytes)?) {
            *to = *from;
        }
        match usize::try_from(u64::from_le_bytes(wide)) {
            Ok(len) if len <= self.rest.len() => Ok(len),
            _ => refuse(TRUNCATED),
        }
    }

    /// Bytes after their length.
    pub(crate) fn counted(&mut self, bytes: usize) -> Result<&'p [u8]> {
        let len = self.len_of(bytes)?;
        self.take(len)
    }

    /// Bytes up to the end of a line.
    pub(crate) fn line(&mut self) -> Result<&'p [u8]> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or_else(|| Refusal(TRUNCATED.into()))?)?;
        self.take(1)?;
        Ok(line)
    }

    pub(crate) fn ascii_line(&mut self) -> Result<&'p str> {
        ascii(self.line()?)
    }
}

pub(crate) fn ascii(bytes: &[u8]) -> Result<&str> {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => refuse("text of Python 2 is not ASCII"),
    }
}

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str> {
    str::from_utf8(bytes)
        .map_err(|_error| Refusal("a str holds a lone surrogate, which JSON cannot".into()))
}

/// An int in digits, with or without the `L` of Python 2.
pub(crate) fn int_of_text<'p>(text: &str) -> Result<Node<'p>> {
    let digits = text.strip_suffix('L').unwrap_or(text);
    if digits.len() > MAX_DIGITS + 1 {
        return refuse(format!("an int has more than {MAX_DIGITS} digits"));
    }
    if let Ok(int) = digits.parse() {
        return Ok(Node::Int(int));
    }
    // `BigInt` would take underscores too.
    if !digits.strip_prefix('-').unwrap_or(digits).bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse("an int is no number");
    }
    let int: BigInt = digits.parse().map_err(|_error| Refusal("an int is no number".into()))?;
    Ok(Node::Big(int.to_string().into()))
}

/// An int in two's complement, least significant byte first.
pub(crate) fn int_of_bytes<'p>(bytes: &[u8]) -> Result<Node<'p>> {
    if bytes.len() > MAX_INT_BYTES {
        return refuse(format!("an int has more than {MAX_DIGITS} digits"));
    }
    let int = BigInt::from_signed_bytes_le(bytes);
    Ok(match i64::try_from(&int) {
        Ok(int) => Node::Int(int),
        Err(_) => Node::Big(int.to_string().into()),
    })
}

/// Latin-1 with `\uXXXX` and `\UXXXXXXXX` escapes.
pub(crate) fn raw_unicode(line: &[u8]) -> Result<Cow<'_, str>> {
    if let Ok(text) = str::from_utf8(line)
        && line.iter().all(|byte| byte.is_ascii() && *byte != b'\\')
    {
        return Ok(text.into());
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                continue;
            }
        };
        let hex = after.get(1..=digits).and_then(|hex| str::from_utf8(hex).ok());
        let code = hex
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let Some(char) = code.and_then(char::from_u32) else {
            return refuse("a str holds a lone surrogate or a broken escape");
        };
        text.push(char);
        rest = after.get(digits + 1..).unwrap_or_default();
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_reserved() {
        let mut input = Input::new(&[0, 0, 0, 0, 0, 1, 0, 0, b'x']);
        assert_eq!(input.counted(8), refuse(TRUNCATED));
    }

    #[test]
    fn ints_keep_all_their_digits() {
        let digits = |node| match node {
            Ok(Node::Int(int)) => int.to_string(),
            Ok(Node::Big(digits)) => digits.into_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(digits(int_of_bytes(&[])), "0");
        assert_eq!(digits(int_of_bytes(&[0xff])), "-1");
        assert_eq!(digits(int_of_bytes(&[0; 8].map(|_: u8| 0xff))), "-1");
        assert_eq!(digits(int_of_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 1])), "18446744073709551616");
        assert_eq!(digits(int_of_text("-18446744073709551616L")), "-18446744073709551616");
        assert_eq!(digits(int_of_text("007")), "7");
        let longest = "9".repeat(MAX_DIGITS);
        assert_eq!(digits(int_of_text(&longest)), longest);
        assert!(int_of_text(&"9".repeat(MAX_DIGITS + 2)).is_err());
        assert!(int_of_bytes(&[1; MAX_INT_BYTES + 1]).is_err());
        assert!(int_of_text("1_000").is_err() && int_of_text("").is_err());
    }

    #[test]
    fn raw_unicode_is_latin_1_with_escapes() {
        let read = |line: &[u8]| raw_unicode(line).map(Cow::into_owned);
        assert_eq!(read(b"a\\u000ab\xe9\\U0001f600\\n"), Ok("a\nb\u{e9}\u{1f600}\\n".into()));
        for broken in [&b"\\ud83d"[..], b"\\u12", b"\\u+123", b"\\U00110000"] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
    }
}
