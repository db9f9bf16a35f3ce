//! Entries and the compressed form of their values.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Entry;
use crate::{Compression, Form, Packed};

/// How an entry has to do with compression.
#[derive(Clone, Debug)]
pub(super) enum Packing {
    /// Its value is the compressed form.
    Packed(Form),
    /// It was made of this one, whose value is the compressed form.
    UnpackedFrom(Entry),
    /// The compressed form, once one tier has made it for all.
    Shared(Arc<OnceLock<Option<Packed>>>),
}

impl Entry {
    fn packing(&self) -> Option<&Packing> {
        self.0.details.as_ref()?.packing.as_ref()
    }

    fn with_packing(&self, value: Bytes, packing: Packing) -> Self {
        let mut copy = self.to_builder();
        copy.inner.value = value;
        if !matches!(packing, Packing::Shared(_)) {
            copy.inner.decoded = OnceLock::new();
            copy.inner.counts_decoded = false;
        }
        copy.packing = Some(packing);
        let copy = copy.build();
        copy.note_refresh_at(self.refresh_at());
        copy
    }

    /// The same entry, of which tiers share the compressed form: it is made when the first of them
    /// asks for it, and kept as long as a copy of this entry is.
    #[must_use]
    pub fn sharing_packed(&self) -> Self {
        match self.packing() {
            Some(Packing::Shared(_)) => self.clone(),
            _ => self.with_packing(self.value().clone(), Packing::Shared(Arc::default())),
        }
    }

    /// The compressed form of its value, as `compression` makes it for a source unless another tier
    /// has had it made before; `None`: the value is to be stored as it is.
    pub fn pack(&self, source: &str, compression: &dyn Compression) -> Option<Packed> {
        match self.packing() {
            Some(Packing::Shared(made)) => {
                made.get_or_init(|| compression.pack(source, self.value())).clone()
            }
            _ => compression.pack(source, self.value()),
        }
    }

    /// Whether [`Entry::pack`] need not compress any more.
    pub fn is_packed_for_all(&self) -> bool {
        matches!(self.packing(), Some(Packing::Shared(made)) if made.get().is_some())
    }

    /// The same entry with the compressed form for its value, for a tier in memory. It is not to be
    /// served before [`Entry::to_unpacked`].
    #[must_use]
    pub fn to_packed(&self, packed: &Packed) -> Self {
        self.with_packing(packed.bytes.clone(), Packing::Packed(packed.form))
    }

    /// How its value is compressed, if it is what [`Entry::to_packed`] gave.
    pub fn packed_form(&self) -> Option<Form> {
        match self.packing() {
            Some(Packing::Packed(form)) => Some(*form),
            _ => None,
        }
    }

    /// The entry that [`Entry::to_packed`] was called on, given its value. Refreshes of all that are
    /// made of one entry are claimed together.
    #[must_use]
    pub fn to_unpacked(&self, value: Bytes) -> Self {
        self.with_packing(value, Packing::UnpackedFrom(self.clone()))
    }

    pub(super) fn unpacked_from(&self) -> Option<&Self> {
        match self.packing() {
            Some(Packing::UnpackedFrom(packed)) => Some(packed),
            _ => None,
        }
    }
}
