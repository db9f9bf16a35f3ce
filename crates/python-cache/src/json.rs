//! JSON text that cannot grow beyond its limit.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::graph::{Refusal, Result, refuse};

/// What has been written.
#[derive(Debug)]
pub(crate) struct Output {
    text: Vec<u8>,
    max: usize,
}

impl Output {
    pub(crate) fn new(max: usize) -> Self {
        Self { text: Vec::new(), max }
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    pub(crate) fn into_text(self) -> Vec<u8> {
        self.text
    }

    pub(crate) fn since(&self, start: usize) -> &[u8] {
        self.text.get(start..).unwrap_or_default()
    }

    pub(crate) fn range(&self, (start, end): (usize, usize)) -> &[u8] {
        self.text.get(start..end).unwrap_or_default()
    }

    /// Replaces what was written from there on.
    pub(crate) fn replace(&mut self, start: usize, text: &[u8]) -> Result<()> {
        self.text.truncate(start);
        self.put(text)
    }

    pub(crate) fn put(&mut self, text: &[u8]) -> Result<()> {
        self.write_all(text).map_err(|_error| self.full())
    }

    pub(crate) fn str(&mut self, text: &str) -> Result<()> {
        serde_json::to_writer(&mut *self, text).map_err(|_error| self.full())
    }

    /// JSON has no bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        // Before it is encoded.
        if bytes.len() > self.max {
            return Err(self.full());
        }
        self.put(b"{\"base64\":\"")?;
        self.put(STANDARD.encode(bytes).as_bytes())?;
        self.put(b"\"}")
    }

    pub(crate) fn display(&mut self, value: impl std::fmt::Display) -> Result<()> {
        write!(self, "{value}").map_err(|_error| self.full())
    }

    /// As Python's `repr` writes it; JSON has no number for those that are not finite.
    pub(crate) fn float(&mut self, float: f64) -> Result<()> {
        let mut text = String::new();
        let written = match float {
            float if float.is_nan() => text.write_str("\"NaN\""),
            f64::INFINITY => text.write_str("\"Infinity\""),
            f64::NEG_INFINITY => text.write_str("\"-Infinity\""),
            float => write!(text, "{float:?}"),
        };
        written.or_else(|_error| refuse("a float cannot be written"))?;
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) =
                    exponent.strip_prefix('-').map_or(("+", exponent), |e| ("-", e));
                self.display(format_args!("{digits}e{sign}{exponent:0>2}"))
            }
            None => self.put(text.as_bytes()),
        }
    }

    fn full(&self) -> Refusal {
        Refusal(format!("its JSON has more than {} bytes", self.max))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max.saturating_sub(self.text.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (float, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-5, "1e-05"),
            (1e-7, "1e-07"),
            (123_456_789.125, "123456789.125"),
            (5e-324, "5e-324"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            let mut output = Output::new(100);
            output.float(float).unwrap();
            assert_eq!(String::from_utf8(output.into_text()).unwrap(), text);
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_limit() {
        let mut output = Output::new(4);
        assert_eq!(output.str("ab"), Ok(()));
        assert_eq!(output.put(b"1"), refuse("its JSON has more than 4 bytes"));
        assert!(output.bytes(&[0; 5]).is_err());
        assert_eq!(output.into_text(), b"\"ab\"");
    }
}
