//! Dictionaries that are known, digested for reading and, the last of each source, for writing.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use cache_core::{Codec, CodecError, CodecId, Dictionary, DictionaryId, Form};
use zstd::{
    dict::{DecoderDictionary, EncoderDictionary},
    zstd_safe::get_dict_id_from_dict,
};

use crate::{
    frame::corrupt,
    zstd::{self as codec, Zstd},
};

/// The longest content that is accepted, in bytes: far above what training makes, since others may
/// have made it, and far below what would hurt.
const MAX_CONTENT: usize = 1 << 20;

/// A dictionary, ready to read with.
struct Known {
    dictionary: Dictionary,
    decoder: DecoderDictionary<'static>,
}

impl Known {
    fn new(dictionary: &Dictionary) -> Result<Self, CodecError> {
        let id = dictionary.id;
        let bad = |reason: &str| CodecError::BadDictionary { id, reason: reason.to_owned() };
        if dictionary.content.len() > MAX_CONTENT {
            return Err(bad("it is longer than 1 MiB"));
        }
        match get_dict_id_from_dict(&dictionary.content) {
            None => return Err(bad("it is no dictionary of Zstandard")),
            Some(own) if own.get() != id.0 => return Err(bad("its content has another number")),
            Some(_) => {}
        }
        let decoder = DecoderDictionary::try_copy(&dictionary.content)
            .map_err(|err| bad(&err.to_string()))?;
        Ok(Self { dictionary: dictionary.clone(), decoder })
    }

    /// Of two dictionaries of a source, that with the greater rank is used: on every node the same.
    fn rank(&self) -> impl Ord + use<> {
        (self.dictionary.version, self.dictionary.created_at, self.dictionary.id)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dictionary { id, source, version, .. } = &self.dictionary;
        write!(f, "dictionary {id}, version {version} of {source:?}")
    }
}

/// A source's last dictionary.
struct Last {
    known: Arc<Known>,
    /// Digested when it is first used: a program that only reads does not need it.
    encoder: OnceLock<Option<EncoderDictionary<'static>>>,
}

impl Last {
    fn new(known: Arc<Known>) -> Arc<Self> {
        Arc::new(Self { known, encoder: OnceLock::new() })
    }
}

impl fmt::Debug for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known.fmt(f)
    }
}

/// A dictionary, ready to compress with.
#[derive(Debug)]
pub(crate) struct Encoder {
    last: Arc<Last>,
    codec: Zstd,
}

impl Encoder {
    pub(crate) fn id(&self) -> DictionaryId {
        self.last.known.dictionary.id
    }

    /// As [`Codec::encode`].
    pub(crate) fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        let digested = self
            .last
            .encoder
            .get_or_init(|| self.codec.digest(&self.last.known.dictionary.content).ok());
        match digested {
            Some(dictionary) => self.codec.encode_with(raw, dictionary.as_cdict()),
            None => Err(CodecError::Encode {
                codec: self.codec.name(),
                reason: format!("its dictionary {} could not be digested", self.id()),
            }),
        }
    }
}

#[derive(Debug, Default)]
struct Shelf {
    known: HashMap<DictionaryId, Arc<Known>>,
    /// By source.
    last: HashMap<Box<str>, Arc<Last>>,
}

/// The dictionaries known.
#[derive(Debug, Default)]
pub(crate) struct Dictionaries(RwLock<Shelf>);

impl Dictionaries {
    /// Whether what this codec compresses can be compressed with a dictionary.
    pub(crate) fn usable_by(codec: &dyn Codec) -> bool {
        (codec as &dyn Any).is::<Zstd>()
    }

    /// The dictionary for new values of `source`, if there is one and `codec` can use it.
    pub(crate) fn encoder(&self, source: &str, codec: &dyn Codec) -> Option<Encoder> {
        let codec = *(codec as &dyn Any).downcast_ref::<Zstd>()?;
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Encoder { last: Arc::clone(all.last.get(source)?), codec })
    }

    /// The value that `stored`, made with a dictionary, is a form of.
    pub(crate) fn decode(
        &self,
        form: Form,
        stored: &[u8],
        limit: u64,
    ) -> Result<Vec<u8>, CodecError> {
        if form.codec != CodecId::ZSTD {
            let codec = form.codec.name().unwrap_or("foreign");
            return Err(corrupt(codec, "its codec has no dictionaries"));
        }
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = all.known.get(&form.dictionary).map(Arc::clone);
        drop(all);
        let known = known.ok_or(CodecError::MissingDictionary(form.dictionary))?;
        let dictionary = Some((form.dictionary, known.decoder.as_ddict()));
        codec::decode(stored, form.raw_len, limit, dictionary)
    }

    pub(crate) fn learn(&self, dictionary: &Dictionary) -> Result<(), CodecError> {
        let new = Arc::new(Known::new(dictionary)?);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Shelf { known, last } = &mut *all;
        let before = known.entry(dictionary.id).or_insert_with(|| Arc::clone(&new));
        if before.dictionary.content != dictionary.content {
            let reason = "another one of its number is known".to_owned();
            return Err(CodecError::BadDictionary { id: dictionary.id, reason });
        }
        if last.get(&dictionary.source).is_none_or(|last| last.known.rank() < new.rank()) {
            last.insert(dictionary.source.clone(), Last::new(new));
        }
        Ok(())
    }

    pub(crate) fn get(&self, id: DictionaryId) -> Option<Dictionary> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.known.get(&id).map(|known| known.dictionary.clone())
    }

    /// Sources may have codecs of another level from now on.
    pub(crate) fn forget_encoders(&mut self) {
        let all = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for last in all.last.values_mut() {
            *last = Last::new(Arc::clone(&last.known));
        }
    }
}
