//! Writing results to standard output and failures to standard error.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::{args::Format, exit::Failure};

/// Writes text to standard output; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same for bytes.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document and a line end.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(document)
        .map_err(|error| Failure::failed(format!("cannot make JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Says on standard error why the command failed.
pub(crate) fn report(failure: &Failure, format: Format) {
    let Failure { exit, message, hint } = failure;
    let text = match format {
        Format::Json => {
            let document = json!({
                "schema": "larder.error/1",
                "code": exit.name(),
                "message": message,
                "hint": hint,
            });
            format!("{document}\n")
        }
        Format::Table => {
            let hint = hint.as_ref().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
            format!("error: {message}\n{hint}")
        }
    };
    remark(&text);
}

/// Writes to standard error; where that is closed there is nobody to tell.
pub(crate) fn remark(text: &str) {
    crate::progress::suspended(|| _ = io::stderr().write_all(text.as_bytes()));
}
