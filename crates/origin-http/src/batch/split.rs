//! One answer for several members as one for each.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::Batcher;
use crate::json::{Pointer, around, items, text};

/// An answer cannot be taken apart. It says nothing of what the answer holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SplitError {
    #[error("it is no JSON at line {line}, column {column}")]
    Json { line: usize, column: usize },
    #[error("there is no array of rows at `{0}`; check `rows` of `batch`")]
    Rows(Pointer),
    #[error("its header, the first row, has no column `{0}`; check `member` of `batch`")]
    Column(String),
    #[error(
        "row {row} has no text or number at `{member}`, so that nothing says whose it is; check \
         `member` of `batch`"
    )]
    Member { row: usize, member: String },
    #[error(
        "none of its {0} rows is about a member that was asked for; rows must write members as \
         requests do: check `member` of `batch`"
    )]
    Strangers(usize),
    #[error(
        "each member's part repeats what stands around the rows, which together are {0} bytes, more \
         than `max_body` allows; lower `max` of `batch`"
    )]
    Repeats(u64),
}

/// What each member's document has beside its rows.
struct Frame<'a> {
    before: &'a str,
    header: Option<&'a RawValue>,
    after: &'a str,
}

/// Where a row names its member.
enum Naming<'b> {
    Column(usize, &'b str),
    Field(&'b Pointer),
}

impl Batcher {
    /// The document of each of `members`, as it would have been without the others; `None` for one
    /// without rows. Rows of other members are left out. What is around the rows may be repeated up
    /// to this many bytes in all.
    pub(super) fn split(
        &self,
        body: &[u8],
        members: &[&str],
        most_around: u64,
    ) -> Result<Vec<Option<Bytes>>, SplitError> {
        // Not the decoder's own text, which may hold some of the body.
        let document: &RawValue = serde_json::from_slice(body)
            .map_err(|error| SplitError::Json { line: error.line(), column: error.column() })?;
        let no_rows = || SplitError::Rows(self.rows.clone());
        let array = self.rows.find(document).ok_or_else(no_rows)?;
        let rows = items(array).ok_or_else(no_rows)?;
        let (before, after) = around(document, array).ok_or_else(no_rows)?;
        let header = rows.first().copied().filter(|row| row.get().starts_with('['));
        let naming = match header {
            Some(header) => self.column(header)?,
            None => Naming::Field(&self.member),
        };
        let mut by_member: HashMap<&str, Vec<&RawValue>> =
            members.iter().map(|member| (*member, Vec::new())).collect();
        let mut ignored = 0_usize;
        for (place, &row) in rows.iter().enumerate().skip(usize::from(header.is_some())) {
            let member = naming
                .member_of(row)
                .ok_or_else(|| SplitError::Member { row: place, member: naming.to_string() })?;
            match by_member.get_mut(&*member) {
                Some(rows) => rows.push(row),
                None => ignored += 1,
            }
        }
        if ignored > 0 && by_member.values().all(Vec::is_empty) {
            // Taken for answers, they would say of each member that there is nothing.
            return Err(SplitError::Strangers(ignored));
        }
        if ignored > 0 {
            tracing::debug!(
                rows = ignored,
                param = self.batch.param,
                "nobody asked for these rows"
            );
        }
        let frame = Frame { before, header, after };
        let answered = by_member.values().filter(|rows| !rows.is_empty()).count();
        let around = (frame.length() as u64).saturating_mul(answered as u64);
        if around > most_around {
            return Err(SplitError::Repeats(around));
        }
        let documents: HashMap<&str, Bytes> = by_member
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(member, rows)| (member, frame.with(&rows)))
            .collect();
        Ok(members.iter().map(|member| documents.get(member).cloned()).collect())
    }

    fn column(&self, header: &RawValue) -> Result<Naming<'_>, SplitError> {
        let name = &self.batch.member;
        let mut columns = items(header).into_iter().flatten();
        let at = columns.position(|column| text(column).as_ref() == Some(name));
        at.map(|at| Naming::Column(at, name)).ok_or_else(|| SplitError::Column(name.clone()))
    }
}

impl Naming<'_> {
    fn member_of(&self, row: &RawValue) -> Option<String> {
        match self {
            Self::Column(at, _) => text(items(row)?.get(*at)?),
            Self::Field(field) => text(field.find(row)?),
        }
    }
}

impl std::fmt::Display for Naming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Column(_, name) => f.write_str(name),
            Self::Field(field) => field.fmt(f),
        }
    }
}

impl Frame<'_> {
    /// Bytes beside those of a member's rows.
    fn length(&self) -> usize {
        let header = self.header.map_or(0, |header| header.get().len());
        self.before.len() + header + self.after.len()
    }

    fn with(&self, rows: &[&RawValue]) -> Bytes {
        let rows = || self.header.iter().chain(rows).map(|row| row.get().as_bytes());
        // Each row with a comma or, the first one, a bracket.
        let length: usize = rows().map(|row| row.len() + 1).sum();
        let mut document =
            BytesMut::with_capacity(self.before.len() + length + 1 + self.after.len());
        document.put(self.before.as_bytes());
        for (place, row) in rows().enumerate() {
            document.put_u8(if place == 0 { b'[' } else { b',' });
            document.put(row);
        }
        document.put_u8(b']');
        document.put(self.after.as_bytes());
        document.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;
    use crate::Batch;

    fn split(
        (rows, member): (&str, &str),
        body: &str,
        members: &[&str],
    ) -> Result<Vec<Option<String>>, String> {
        let batcher = Batcher::new(Batch::new("id", 50, rows, member)).unwrap();
        let documents =
            batcher.split(body.as_bytes(), members, 1 << 20).map_err(|error| error.to_string());
        let text = |document: Bytes| String::from_utf8(document.to_vec()).unwrap();
        Ok(documents?.into_iter().map(|document| document.map(text)).collect())
    }

    #[test]
    fn a_header_row_stays_with_each_member() {
        let body = r#"[["NAME","B01001_001E","cbsa"],
["Boulder","1.50","14500"],
["Denver",null,"19740"]]"#;
        let boulder = r#"[["NAME","B01001_001E","cbsa"],["Boulder","1.50","14500"]]"#;
        let denver = r#"[["NAME","B01001_001E","cbsa"],["Denver",null,"19740"]]"#;
        let documents = split(("", "cbsa"), body, &["19740", "1", "14500"]).unwrap();
        assert_eq!(documents, [Some(denver.into()), None, Some(boulder.into())]);
    }

    #[test]
    fn all_but_the_rows_stays_as_it_was_written() {
        let body = r#" {"n": 1e2, "Results": {"series": [
            {"seriesID": "A", "data": [{"value": 0.10}]}, {"seriesID":"B","data":[]}, {"seriesID": "A"}
        ], "é": "\u00e9"}, "z": 12345678901234567890.0} "#;
        let documents = split(("/Results/series", "seriesID"), body, &["B", "A"]).unwrap();
        let with = |rows: &str| {
            format!(
                r#"{{"n": 1e2, "Results": {{"series": {rows}, "é": "\u00e9"}}, "z": 12345678901234567890.0}}"#
            )
        };
        let a = with(r#"[{"seriesID": "A", "data": [{"value": 0.10}]},{"seriesID": "A"}]"#);
        assert_eq!(documents, [Some(with(r#"[{"seriesID":"B","data":[]}]"#)), Some(a)]);
    }

    #[test]
    fn numbers_count_as_written_and_zeros_in_front_of_texts_too() {
        let body = r#"[{"a": {"id": 8}}, {"a": {"id": "08"}}, {"a": {"id": 8.0}}]"#;
        let documents = split(("", "/a/id"), body, &["8", "08", "8.0", "008"]).unwrap();
        let rows = [r#"[{"a": {"id": 8}}]"#, r#"[{"a": {"id": "08"}}]"#, r#"[{"a": {"id": 8.0}}]"#];
        assert_eq!(documents.iter().flatten().collect::<Vec<_>>(), rows);
        assert_eq!(documents.last(), Some(&None));
    }

    #[test]
    fn rows_of_others_are_left_out_and_a_repeated_member_is_answered_twice() {
        let body = r#"[{"id":1},{"id":2}]"#;
        let one = Some(r#"[{"id":1}]"#.to_owned());
        assert_eq!(split(("", "id"), body, &["1", "3", "1"]).unwrap(), [one.clone(), None, one]);
        let error = split(("", "id"), body, &["01", "02"]).unwrap_err();
        assert!(error.contains("none of its 2 rows") && error.contains("`member`"), "{error}");
    }

    #[test]
    fn no_rows_are_an_answer() {
        for body in ["[]", r#"[["id"]]"#] {
            assert_eq!(split(("", "id"), body, &["1", "2"]).unwrap(), [None, None], "{body}");
        }
    }

    #[test]
    fn another_form_is_refused_without_a_word_of_the_body() {
        let long = "canary".repeat(99);
        for (rows, body, said) in [
            ("", "[canary", "it is no JSON at line 1, column 2"),
            ("", "{\"canary\": 1}", "no array of rows at ``; check `rows`"),
            ("/data", "[\"canary\"]", "no array of rows at `/data`"),
            ("/data", r#"{"data": "canary"}"#, "no array of rows at `/data`"),
            ("", r#"[["canary"], ["1"]]"#, "no column `id`; check `member`"),
            ("", r#"[["x", "id"], ["canary"]]"#, "row 1 has no text or number at `id`"),
            ("", r#"[["id"], {"id": "canary"}]"#, "row 1 has no text or number at `id`"),
            ("", r#"[{"id": 1}, {"canary": 1}]"#, "row 1 has no text or number at `/id`"),
            ("", r#"[{"id": 1}, ["canary"]]"#, "row 1 has no text or number at `/id`"),
            ("", r#"[{"id": null}]"#, "row 0 has no text or number at `/id`"),
            ("", &format!("[\"{long}\"]"), "row 0 has no text or number at `/id`"),
        ] {
            let error = split((rows, "id"), body, &["1", "2"]).unwrap_err();
            assert!(error.contains(said) && !error.contains("canary"), "{body}: {error}");
        }
    }

    /// Rows: the member, as a number or a text, and what else they hold.
    fn some_rows() -> impl Strategy<Value = Vec<(Value, String)>> {
        let members = select(vec![json!("a"), json!("07"), json!("7"), json!(8), json!("é\"\n")]);
        vec((members, "\\PC{0,8}|[0-9]{1,30}"), 0..24)
    }

    fn name_of(member: &Value) -> String {
        member.as_str().map_or_else(|| member.to_string(), str::to_owned)
    }

    /// The rows of a document of either form, without its header.
    fn rows_of(document: &str, headed: bool) -> Vec<Value> {
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document.pointer("/n"), Some(&json!(1.5)));
        let rows = document.pointer("/at/1").and_then(Value::as_array).unwrap();
        if headed {
            assert_eq!(rows.first(), Some(&json!(["x", "id"])));
        }
        rows.iter().skip(usize::from(headed)).cloned().collect()
    }

    proptest! {
        #[test]
        fn each_document_has_the_rows_of_its_member_and_together_they_have_all(
            rows in some_rows(),
            headed: bool,
        ) {
            let row = |(member, rest): &(Value, String)| {
                if headed { json!([rest, member]) } else { json!({"x": rest, "id": member}) }
            };
            let header = headed.then(|| json!(["x", "id"]));
            let all: Vec<Value> = header.into_iter().chain(rows.iter().map(row)).collect();
            let body = json!({"n": 1.5, "at": [null, all]}).to_string();
            let members = ["a", "07", "7", "8", "é\"\n", "none"];
            let documents = split(("/at/1", "id"), &body, &members).unwrap();
            let mut kept = 0;
            for (member, document) in members.into_iter().zip(documents) {
                let expected: Vec<_> = rows
                    .iter()
                    .filter(|(it, _)| name_of(it) == member)
                    .map(row)
                    .collect();
                kept += expected.len();
                let found = document.map_or_else(Vec::new, |it| {
                    let found = rows_of(&it, headed);
                    assert!(!found.is_empty(), "no rows are no document");
                    found
                });
                prop_assert_eq!(found, expected);
            }
            prop_assert_eq!(kept, rows.len());
        }

        #[test]
        fn whatever_comes_is_split_or_refused(body in "[\\[\\]{}\",:0-9a-z ]{0,40}|\\PC{0,40}") {
            for at in ["", "/a", "/0"] {
                _ = split((at, "a"), &body, &["1", "a"]);
            }
        }
    }
}
