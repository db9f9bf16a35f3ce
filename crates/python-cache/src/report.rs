//! What became of the rows of a file.

/// Examples that a report holds.
const EXAMPLES: usize = 20;

/// What an import did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// Rows that were looked at.
    pub rows: u64,
    /// Of these, stored now.
    pub imported: u64,
    /// Of the imported, kept as a pickle: their value cannot be JSON.
    pub kept_as_pickle: u64,
    /// The store has the same, or something later.
    pub superseded: u64,
    /// Invalidated in the store since the row was written.
    pub barred: u64,
    /// Expired.
    pub expired: u64,
    /// Their key, lifetime or value cannot be read or stored.
    pub unreadable: u64,
    /// Their value is larger than what the store takes.
    pub too_large: u64,
    /// Bytes of the imported values.
    pub bytes: u64,
    /// Of what was kept as a pickle, unreadable or too large: key, or what stands for it, and why. At
    /// most 20. Keys are as they are in the file, and may hold anything.
    pub examples: Vec<(String, String)>,
}

impl ImportReport {
    /// Takes note of a value that is kept as a pickle.
    pub fn note_pickle(&mut self, key: &str, reason: &str) {
        self.kept_as_pickle += 1;
        self.example(key, format!("kept as a pickle: {reason}"));
    }

    /// Takes note of a row that cannot be read.
    pub fn note_unreadable(&mut self, key: &str, reason: &str) {
        self.unreadable += 1;
        self.example(key, format!("not imported: {reason}"));
    }

    /// Takes note of a value that is too large.
    pub fn note_too_large(&mut self, key: &str, reason: &str) {
        self.too_large += 1;
        self.example(key, format!("not imported: {reason}"));
    }

    fn example(&mut self, key: &str, reason: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push((key.to_owned(), reason));
        }
    }
}
