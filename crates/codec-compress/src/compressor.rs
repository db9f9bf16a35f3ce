//! Which value is compressed how, and how all that was is read.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Instant};

use bytes::Bytes;
use cache_core::{
    Codec, CodecError, CodecId, CodecStats, CodecUse, Compression, Dictionary, DictionaryId,
    Escaped, Form, Packed,
};

use crate::{dictionaries::Dictionaries, statistics::Statistics};

/// Smallest value that is compressed with a dictionary, in bytes.
pub const DICTIONARY_THRESHOLD: usize = 256;

/// Largest value that is compressed with a dictionary although it is large enough for its source's
/// codec alone, in bytes.
///
/// At the default level a dictionary saves 12 to 16 % at 12 KB and 8 to 15 % at 16 KB, for up to half
/// as much time again; at 24 KB and above it saves as little as 4 %.
const DICTIONARY_MAX: usize = 16 << 10;

/// A codec, and the length from which on values are compressed.
type Choice = (Arc<dyn Codec>, usize);

/// Codecs, which source uses which, dictionaries, statistics.
///
/// A value from [`DICTIONARY_THRESHOLD`] to 16 KiB, or up to its source's threshold if that is higher,
/// is compressed with the source's dictionary, if there is one and the source's codec is Zstandard.
/// Else it is compressed from the threshold on. What would not shrink by 5 % is kept as it is.
#[derive(Debug)]
pub struct Compressor {
    default: Option<Choice>,
    sources: HashMap<Box<str>, Option<Choice>>,
    decoders: HashMap<CodecId, Arc<dyn Codec>>,
    uses_dictionaries: bool,
    /// Of sources that are told otherwise.
    uses_dictionaries_of: HashMap<Box<str>, bool>,
    dictionaries: Dictionaries,
    statistics: Statistics,
}

/// How a value is to be compressed.
enum Plan<'a> {
    Plain(&'a dyn Codec),
    Dictionary(crate::dictionaries::Encoder),
}

impl Plan<'_> {
    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        match self {
            Self::Plain(codec) => codec.encode(raw),
            Self::Dictionary(encoder) => encoder.encode(raw),
        }
    }

    fn with(&self) -> (CodecId, DictionaryId) {
        match self {
            Self::Plain(codec) => (codec.id(), DictionaryId::NONE),
            Self::Dictionary(encoder) => (CodecId::ZSTD, encoder.id()),
        }
    }
}

impl Compressor {
    /// Compresses nothing; reads everything whose codec was compiled in.
    pub fn new() -> Self {
        let decoders = compiled().into_iter().map(|codec| (codec.id(), codec)).collect();
        Self {
            default: None,
            sources: HashMap::new(),
            decoders,
            uses_dictionaries: true,
            uses_dictionaries_of: HashMap::new(),
            dictionaries: Dictionaries::default(),
            statistics: Statistics::default(),
        }
    }

    /// Compresses values from `threshold` bytes on, of every source that is not told otherwise.
    #[must_use]
    pub fn codec(mut self, codec: Arc<dyn Codec>, threshold: usize) -> Self {
        self.default = Some((Arc::clone(&codec), threshold));
        self.dictionaries.forget_encoders();
        self.decoder(codec)
    }

    /// Says otherwise for one source: another codec and threshold, or none, to keep its values as
    /// they are.
    #[must_use]
    pub fn source(mut self, source: &str, choice: Option<Choice>) -> Self {
        let codec = choice.as_ref().map(|(codec, _)| Arc::clone(codec));
        self.sources.insert(source.into(), choice);
        self.dictionaries.forget_encoders();
        match codec {
            Some(codec) => self.decoder(codec),
            None => self,
        }
    }

    /// Also reads what this codec wrote. Of two with the same number the last is used.
    #[must_use]
    pub fn decoder(mut self, codec: Arc<dyn Codec>) -> Self {
        self.decoders.insert(codec.id(), codec);
        self
    }

    /// Whether dictionaries are used for new values; what they were used for is read in any case.
    #[must_use]
    pub fn dictionaries(mut self, used: bool) -> Self {
        self.uses_dictionaries = used;
        self
    }

    /// The same for one source.
    #[must_use]
    pub fn dictionaries_of(mut self, source: &str, used: bool) -> Self {
        self.uses_dictionaries_of.insert(source.into(), used);
        self
    }

    /// Lengths of the values of a source that are compressed with its dictionary, if it has one, in
    /// bytes; empty if none are.
    pub fn dictionary_lengths(&self, source: &str) -> RangeInclusive<usize> {
        match self.choice(source) {
            Some((_, threshold)) if self.uses_dictionaries(source) => {
                DICTIONARY_THRESHOLD..=DICTIONARY_MAX.max(threshold.saturating_sub(1))
            }
            _ => RangeInclusive::new(1, 0),
        }
    }

    /// Length that a value of a source would be stored in; that is not counted.
    pub fn packed_len(&self, source: &str, raw: &[u8]) -> usize {
        let packed = self.plan(source, raw.len()).and_then(|plan| plan.encode(raw).ok().flatten());
        packed.map_or(raw.len(), |packed| packed.len())
    }

    /// The dictionary that is known for new values of a source.
    pub fn current_dictionary(&self, source: &str) -> Option<DictionaryId> {
        let (codec, _) = self.choice(source)?;
        self.dictionaries.encoder(source, &**codec).map(|encoder| encoder.id())
    }

    fn may_use_dictionaries(&self, source: &str) -> bool {
        self.uses_dictionaries_of.get(source).copied().unwrap_or(self.uses_dictionaries)
    }

    /// Whether a dictionary of this source would be used: its codec is Zstandard, and dictionaries
    /// are on.
    pub fn uses_dictionaries(&self, source: &str) -> bool {
        let usable = |(codec, _): &Choice| Dictionaries::usable_by(&**codec);
        self.may_use_dictionaries(source) && self.choice(source).is_some_and(usable)
    }

    fn choice(&self, source: &str) -> Option<&Choice> {
        self.sources.get(source).unwrap_or(&self.default).as_ref()
    }

    fn plan(&self, source: &str, raw_len: usize) -> Option<Plan<'_>> {
        let (codec, threshold) = self.choice(source)?;
        let large = raw_len >= *threshold;
        let dictionary = raw_len >= DICTIONARY_THRESHOLD
            && (!large || raw_len <= DICTIONARY_MAX)
            && self.may_use_dictionaries(source);
        let encoder = dictionary.then(|| self.dictionaries.encoder(source, &**codec)).flatten();
        encoder.map(Plan::Dictionary).or_else(|| large.then(|| Plan::Plain(&**codec)))
    }

    fn decode(&self, form: Form, stored: &[u8], limit: u64) -> Result<Bytes, CodecError> {
        if form.raw_len > limit {
            return Err(CodecError::TooLarge { declared: form.raw_len, limit });
        }
        if form.dictionary != DictionaryId::NONE {
            return self.dictionaries.decode(form, stored, limit).map(Bytes::from);
        }
        if form.codec == CodecId::RAW {
            if stored.len() as u64 != form.raw_len {
                let reason = "it is not as long as declared".to_owned();
                return Err(CodecError::Corrupt { codec: "raw", reason });
            }
            return Ok(Bytes::copy_from_slice(stored));
        }
        let codec = self.decoders.get(&form.codec).ok_or(CodecError::UnknownCodec(form.codec))?;
        codec.decode(stored, form.raw_len, limit).map(Bytes::from)
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compression for Compressor {
    fn pack(&self, source: &str, raw: &[u8]) -> Option<Packed> {
        let plan = self.plan(source, raw.len())?;
        let (codec, dictionary) = plan.with();
        let counts = self.statistics.of(source, codec, dictionary);
        let started = Instant::now();
        match plan.encode(raw) {
            Ok(Some(stored)) => {
                counts.packed(raw.len(), stored.len(), started.elapsed());
                let form = Form { codec, dictionary, raw_len: raw.len() as u64 };
                Some(Packed { form, bytes: Bytes::from(stored) })
            }
            Ok(None) => {
                counts.kept_raw(started.elapsed());
                None
            }
            Err(error) => {
                if counts.failed() {
                    let (source, bytes) = (Escaped(source), raw.len());
                    tracing::warn!(
                        %source, %codec, %dictionary, bytes, %error,
                        "a value could not be compressed and is stored as it is; \
                         more failures of this kind are only counted"
                    );
                }
                None
            }
        }
    }

    fn unpack(
        &self,
        source: &str,
        form: Form,
        stored: &[u8],
        limit: u64,
    ) -> Result<Bytes, CodecError> {
        let started = Instant::now();
        let raw = self.decode(form, stored, limit)?;
        if form.codec != CodecId::RAW {
            self.statistics.of(source, form.codec, form.dictionary).unpacked(started.elapsed());
        }
        Ok(raw)
    }

    fn inspect(&self, form: Form, stored: &[u8], limit: u64) -> Result<Bytes, CodecError> {
        self.decode(form, stored, limit)
    }

    fn learn(&self, dictionary: &Dictionary) -> Result<(), CodecError> {
        self.dictionaries.learn(dictionary)
    }

    fn dictionary(&self, id: DictionaryId) -> Option<Dictionary> {
        self.dictionaries.get(id)
    }

    fn stats(&self) -> Vec<(CodecUse, CodecStats)> {
        self.statistics.read()
    }
}

/// A codec of each kind that was compiled in. The level does not matter for reading.
fn compiled() -> Vec<Arc<dyn Codec>> {
    vec![
        #[cfg(feature = "zlib")]
        Arc::new(crate::Zlib::READER),
        #[cfg(feature = "zstd")]
        Arc::new(crate::Zstd::READER),
    ]
}
