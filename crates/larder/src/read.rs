//! Reading, and loading what is missing.

use std::{
    any::{Any, type_name},
    collections::{BTreeSet, HashMap},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use cache_core::{AsKey, Entry, Key, Loaded, OriginError, Tag};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::{
    Cache, Error, Hit, LoadContext, ReadMode, ReadOptions, StaleReason,
    asking::{Asker, under_way},
    fly::no_answer,
    load::Terms,
    reads::Reads,
};

impl Cache {
    /// What is stored under `key` and fresh. A hit in memory is that of the call, not of the wait.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    #[inline]
    pub fn get<'a, Q>(
        &'a self,
        key: &Q,
    ) -> impl Future<Output = Result<Option<Hit>, Error>> + Send + use<'a, Q>
    where
        Q: AsKey + ?Sized,
    {
        // Memory answers inside this call: a hit there costs no state machine and no allocation.
        match self.peek(key) {
            Some(hit) => Answer::Now(hit),
            // Boxed: what a hit returns stays as small as a hit.
            None => Answer::Later(self.get_waiting(key.to_key())),
        }
    }

    #[cold]
    fn get_waiting(&self, key: Key) -> BoxFuture<'_, Result<Option<Hit>, Error>> {
        Box::pin(async move {
            let wanted = self.inner.usual(key.source());
            let mut reads = Reads::of_one(&key, wanted);
            self.inner.find(&mut reads, Some(StaleReason::Asked)).await?;
            reads.found(&self.inner).pop().unwrap_or(Ok(None))
        })
    }

    /// [`Cache::get`] in another way.
    ///
    /// # Errors
    /// As [`Cache::get`]; [`Error::UnknownTier`]; [`Error::Policy`].
    pub async fn get_with(&self, key: &Key, options: ReadOptions) -> Result<Option<Hit>, Error> {
        let mut found = self.get_many_with(std::slice::from_ref(key), options).await?;
        found.pop().unwrap_or(Ok(None))
    }

    /// [`Cache::get`] for several keys, with one read in each tier. Results are in the order of the
    /// keys; each repetition counts as a read.
    ///
    /// # Errors
    /// [`Error::Closed`]; of each key, in strict mode, [`Error::Tier`].
    pub async fn get_many(&self, keys: &[Key]) -> Result<Vec<Result<Option<Hit>, Error>>, Error> {
        self.get_many_with(keys, ReadOptions::default()).await
    }

    /// [`Cache::get_many`] in another way.
    ///
    /// # Errors
    /// As [`Cache::get_many`]; [`Error::UnknownTier`]; [`Error::Policy`].
    pub async fn get_many_with(
        &self,
        keys: &[Key],
        options: ReadOptions,
    ) -> Result<Vec<Result<Option<Hit>, Error>>, Error> {
        let inner = &self.inner;
        let mut reads = Reads::new(inner, keys, &options)?;
        if matches!(options.mode, ReadMode::Bypass | ReadMode::Refresh) {
            inner.open()?;
        } else {
            reads.peek(inner);
            inner.find(&mut reads, Some(StaleReason::Asked)).await?;
        }
        if options.purge_expired {
            inner.purge_dead(&mut reads).await;
        }
        Ok(reads.found(inner))
    }

    /// What is stored under `key`, decoded from JSON once per stored entry and shared. `None` also
    /// if the answer is that there is none.
    ///
    /// # Errors
    /// As [`Cache::get`]; [`Error::Decode`] if the value is no such JSON; [`Error::TypeMismatch`]
    /// if it was read as another type before.
    pub async fn get_as<T>(
        &self,
        key: &(impl AsKey + Sync + ?Sized),
    ) -> Result<Option<Arc<T>>, Error>
    where
        T: DeserializeOwned + Any + Send + Sync,
    {
        match self.get(key).await? {
            Some(hit) if !hit.is_absent() => self.decode(key, hit.entry()).map(Some),
            _ => Ok(None),
        }
    }

    /// What an entry holds, decoded; memory is told that it has more to hold.
    fn decode<T>(&self, key: &(impl AsKey + ?Sized), entry: &Entry) -> Result<Arc<T>, Error>
    where
        T: DeserializeOwned + Any + Send + Sync,
    {
        let mut is_first = false;
        let decoded = entry.decoded(|value| {
            is_first = true;
            serde_json::from_slice(value)
        });
        if is_first && decoded.is_ok() {
            self.inner.chain.weigh_again(key.key_text(), entry);
        }
        decoded.map_err(|error| undecoded::<T>(key.to_key(), error))
    }

    /// What is stored under `key`, or else what `load` brings, which is stored then.
    ///
    /// Of all who ask for one key at a time only one loads; the others wait for it. The load runs
    /// in a task of its own: it goes on, and its value is stored, when its callers have gone. What
    /// is stale is served where the source's [`Policy`](crate::Policy) says so.
    ///
    /// # Errors
    /// [`Error::Origin`] with what `load` returned, [`Error::LoadPanicked`] if it panicked,
    /// [`Error::LoadTimedOut`], [`Error::LoadAborted`] if its runtime was shut down,
    /// [`Error::LeftAlone`], [`Error::Offline`], [`Error::Closed`]; in strict mode
    /// [`Error::Tier`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn get_or_load<'a, Q, F, Fut>(
        &'a self,
        key: &Q,
        load: F,
    ) -> impl Future<Output = Result<Hit, Error>> + Send + use<'a, Q, F, Fut>
    where
        Q: AsKey + ?Sized,
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        let peeked = match self.peek(key) {
            Some(hit) if hit.at() < hit.entry().refresh_at() => {
                return Answer::Now(hit);
            }
            due_or_missing => due_or_missing,
        };
        let key = key.to_key();
        let mut reads = Reads::of_one(&key, self.inner.usual(key.source()));
        if let Some(hit) = peeked {
            reads.note_peeked(hit);
        }
        let load = self.asked_once(key.source(), load);
        Answer::Later(Box::pin(async move {
            let options = ReadOptions::default();
            self.inner.answer(&mut reads, Vec::new(), &options, one(load)).await?;
            reads.answer(&self.inner)
        }))
    }

    /// [`Cache::get_or_load`] in another way.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]; [`Error::NotCached`] if it is not to load and nothing usable is
    /// stored; [`Error::UnknownTier`]; [`Error::Policy`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn get_or_load_with<F, Fut>(
        &self,
        key: &Key,
        options: ReadOptions,
        load: F,
    ) -> Result<Hit, Error>
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        let load = self.asked_once(key.source(), load);
        self.read(key, Vec::new(), options, one(load)).await
    }

    /// A loader that its caller brings, which can be called once, when its source's turn has come.
    fn asked_once<F, Fut>(
        &self,
        source: &str,
        load: F,
    ) -> impl FnOnce(LoadContext) -> BoxFuture<'static, Result<Loaded, OriginError>> + Send + use<F, Fut>
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        let asker = self.inner.asker(source);
        move |context| -> BoxFuture<'static, _> {
            // Called inside: no part of a load happens before its turn.
            Box::pin(async move {
                let terms = Terms::of(std::slice::from_ref(&context));
                let Some(asker) = asker else {
                    let _slot = terms.slot(context.key.source()).await?;
                    return load(context).await;
                };
                asker.once(&terms, async move { load(context).await }).await
            })
        }
    }

    pub(crate) async fn read<L, Fut>(
        &self,
        key: &Key,
        tags: Vec<Tag>,
        options: ReadOptions,
        load: L,
    ) -> Result<Hit, Error>
    where
        L: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<Result<Loaded, Error>>> + Send + 'static,
    {
        let mut reads = Reads::new(&self.inner, std::slice::from_ref(key), &options)?;
        reads.peek(&self.inner);
        self.inner.answer(&mut reads, tags, &options, load).await?;
        reads.answer(&self.inner)
    }

    /// What is stored under each key, or else what one call of `load` brings for all that are
    /// missing. Results are in the order of the keys; one key's failure is that key's.
    ///
    /// `load` is given the missing keys, each once, and those to be refreshed, and answers in any
    /// order; a key it leaves out has failed. Keys that are being loaded already are waited for.
    ///
    /// # Errors
    /// [`Error::Closed`]; of each key, those of [`Cache::get_or_load`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn get_or_load_many<F, Fut>(
        &self,
        keys: &[Key],
        load: F,
    ) -> Result<Vec<Result<Hit, Error>>, Error>
    where
        F: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<(Key, Result<Loaded, OriginError>)>, OriginError>>
            + Send
            + 'static,
    {
        self.get_or_load_many_with(keys, ReadOptions::default(), load).await
    }

    /// [`Cache::get_or_load_many`] in another way.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_many`]; [`Error::UnknownTier`]; [`Error::Policy`]; of each key,
    /// [`Error::NotCached`] if it is not to load and nothing usable is stored.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn get_or_load_many_with<F, Fut>(
        &self,
        keys: &[Key],
        options: ReadOptions,
        load: F,
    ) -> Result<Vec<Result<Hit, Error>>, Error>
    where
        F: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<(Key, Result<Loaded, OriginError>)>, OriginError>>
            + Send
            + 'static,
    {
        let mut reads = Reads::new(&self.inner, keys, &options)?;
        reads.peek(&self.inner);
        let askers = self.askers_of(keys);
        self.inner.answer(&mut reads, Vec::new(), &options, many(askers, load)).await?;
        Ok(reads.answers(&self.inner))
    }

    /// What stands before the sources of `keys`.
    fn askers_of(&self, keys: &[Key]) -> Vec<Arc<Asker>> {
        if self.inner.askers.is_empty() {
            return Vec::new();
        }
        let sources: BTreeSet<&str> = keys.iter().map(Key::source).collect();
        sources.into_iter().filter_map(|source| self.inner.asker(source)).collect()
    }
}

/// A loader of one key as one of several.
pub(crate) fn one<F, Fut>(
    load: F,
) -> impl FnOnce(Vec<LoadContext>) -> BoxFuture<'static, Vec<Result<Loaded, Error>>> + Send + 'static
where
    F: FnOnce(LoadContext) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
{
    |mut contexts| {
        Box::pin(async move {
            match contexts.pop() {
                Some(context) => vec![load(context).await.map_err(Error::from)],
                None => Vec::new(),
            }
        })
    }
}

/// What one loader brought for several keys, or why it brought nothing.
type Answers = Result<Vec<(Key, Result<Loaded, OriginError>)>, OriginError>;

/// One call of a loader that is a call to each of these sources.
async fn asked<Fut>(askers: &[Arc<Asker>], terms: &Terms, call: impl FnOnce() -> Fut) -> Answers
where
    Fut: Future<Output = Answers>,
{
    let mut leaves = Vec::with_capacity(askers.len());
    // In the order of their names: two calls do not wait for each other.
    for asker in askers {
        leaves.push(asker.leave(terms).await.map_err(|error| {
            // The others are not asked to be left alone.
            if askers.len() > 1 { error.with_retry_after(None) } else { error }
        })?);
    }
    let patience = askers.iter().map(|asker| asker.patience()).min().flatten();
    let (answers, leaves) = under_way(patience, leaves, call()).await;
    let named = |error: &OriginError| leaves.iter().any(|leave| leave.source() == error.origin());
    let blamed = answers.as_ref().err().filter(|error| named(error)).map(OriginError::origin);
    for leave in leaves {
        match answers.as_ref().err() {
            // Of this one nothing is known.
            Some(_) if blamed.is_some_and(|source| source != leave.source()) => drop(leave),
            error => leave.end(error).await,
        }
    }
    answers
}

/// A loader that answers in any order as one that answers in the order it was asked. It is one call
/// to each of the sources that it is asked about.
fn many<F, Fut>(
    askers: Vec<Arc<Asker>>,
    load: F,
) -> impl FnOnce(Vec<LoadContext>) -> BoxFuture<'static, Vec<Result<Loaded, Error>>> + Send + 'static
where
    F: FnOnce(Vec<LoadContext>) -> Fut + Send + 'static,
    Fut: Future<Output = Answers> + Send + 'static,
{
    |contexts| {
        Box::pin(async move {
            let keys: Vec<Key> = contexts.iter().map(|context| context.key.clone()).collect();
            let terms = Terms::of(&contexts);
            let sources: BTreeSet<&str> = keys.iter().map(Key::source).collect();
            let askers: Vec<_> =
                askers.into_iter().filter(|asker| sources.contains(asker.source())).collect();
            let answers = asked(&askers, &terms, || load(contexts)).await;
            let mut answers: HashMap<Key, Result<Loaded, Error>> = match answers {
                Ok(answers) => answers
                    .into_iter()
                    .map(|(key, answer)| (key, answer.map_err(Error::from)))
                    .collect(),
                Err(error) => {
                    // Who is not to blame is not to be left alone.
                    let blamed = sources.get(error.origin()).map(|source| (*source).to_owned());
                    let others = OriginError::new(error.kind(), error.origin(), error.message());
                    let (error, others) = (Error::from(error), Error::from(others));
                    let of = |key: &Key| match &blamed {
                        Some(blamed) if blamed != key.source() => others.clone(),
                        _ => error.clone(),
                    };
                    return keys.iter().map(|key| Err(of(key))).collect();
                }
            };
            let answer = |key| answers.remove(key).unwrap_or_else(|| Err(no_answer(key)));
            keys.iter().map(answer).collect()
        })
    }
}

/// Why an entry could not be decoded as a `T`.
#[cold]
fn undecoded<T>(key: Key, error: Result<&'static str, serde_json::Error>) -> Error {
    match error {
        Ok(stored) => Error::TypeMismatch { key, stored, asked: type_name::<T>() },
        // Not the decoder's own text, which may hold the whole value.
        Err(error) => Error::Decode {
            key,
            type_name: type_name::<T>(),
            reason: format!(
                "{} at line {}, column {}",
                match error.classify() {
                    Category::Data => "it is JSON of another form",
                    Category::Eof => "it ends too early",
                    Category::Io | Category::Syntax => "it is no JSON",
                },
                error.line(),
                error.column()
            ),
        },
    }
}

/// An answer that is there, or one that has to be waited for.
enum Answer<F> {
    Now(Hit),
    /// It has been given.
    Given,
    Later(F),
}

impl<T, F> Future for Answer<F>
where
    T: From<Hit>,
    F: Future<Output = Result<T, Error>> + Unpin,
{
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.get_mut();
        if let Self::Later(later) = answer {
            return Pin::new(later).poll(context);
        }
        match std::mem::replace(answer, Self::Given) {
            Self::Now(hit) => Poll::Ready(Ok(hit.into())),
            Self::Given | Self::Later(_) => Poll::Pending,
        }
    }
}
