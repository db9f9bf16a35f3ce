//! Asking for what requests describe, and loading it from the origins of their sources.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cache_core::{Key, Load, Loaded, Origin, OriginError, Request};
use futures_util::{StreamExt, stream};

use crate::{
    Cache, Error, Hit, Limits, LoadContext, ReadMode, ReadOptions, asking::Asker, fly::no_answer,
    load::Terms, read::one, reads::Reads,
};

/// Most calls that one call of `request_many` has under way; a source's own limits may be lower.
pub(crate) const MOST_AT_ONCE: usize = 16;

impl Cache {
    /// The answer to `request`: stored, or loaded from the origin of its source and stored. One for a
    /// range of time, of a source that has them ([`CacheBuilder::series`](crate::CacheBuilder::series)),
    /// is made of the chunks that are stored and those that are loaded.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]; [`Error::NoOrigin`] if nothing is stored and the source has none;
    /// [`Error::Series`] if its range makes no sense.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn request(&self, request: &Request) -> Result<Hit, Error> {
        self.request_with(request, ReadOptions::default()).await
    }

    /// [`Cache::request`] in another way.
    ///
    /// # Errors
    /// As [`Cache::request`]; [`Error::NotCached`] if it is not to load and nothing usable is
    /// stored; [`Error::UnknownTier`]; [`Error::Policy`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn request_with(
        &self,
        request: &Request,
        options: ReadOptions,
    ) -> Result<Hit, Error> {
        #[cfg(feature = "series")]
        if let Some((series, range)) = self.inner.range_of(request)? {
            return self.request_range(series, request, range, options).await;
        }
        let key = request.key();
        let tags = request.tags().to_vec();
        let Ok(origin) = self.inner.origin(request.source()) else {
            // What is stored can still be served.
            let never_loads = self.inner.offline || options.mode == ReadMode::CachedOnly;
            return match self.get_with(&key, options).await? {
                Some(hit) => Ok(hit),
                None if never_loads => Err(self.inner.missing(&key)),
                None => Err(self.inner.no_origin(request.source())),
            };
        };
        let request = request.clone();
        let asker = self.inner.asker(request.source());
        let load = move |context: LoadContext| async move {
            let terms = Terms::of(std::slice::from_ref(&context));
            let load = Load::new(request).with_stored(context.stored);
            match asker {
                None => {
                    let _slot = terms.slot(load.request.source()).await?;
                    origin.load(load).await
                }
                Some(asker) => asker.ask(&terms, || origin.load(load.clone())).await,
            }
        };
        self.read(&key, tags, options, one(load)).await
    }

    /// [`Cache::request`] for several, with one read in each tier. Of what is missing, an origin is asked
    /// for as much at a time as it can answer by one call; each answer is stored by itself. Results are
    /// in the order of the requests; one request's failure is that request's.
    ///
    /// # Errors
    /// [`Error::Closed`]; of each request, those of [`Cache::request`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn request_many(
        &self,
        requests: &[Request],
    ) -> Result<Vec<Result<Hit, Error>>, Error> {
        self.request_many_with(requests, ReadOptions::default()).await
    }

    /// [`Cache::request_many`] in another way.
    ///
    /// # Errors
    /// As [`Cache::request_many`]; [`Error::UnknownTier`]; [`Error::Policy`]; of each request,
    /// [`Error::NotCached`] if it is not to load and nothing usable is stored.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn request_many_with(
        &self,
        requests: &[Request],
        options: ReadOptions,
    ) -> Result<Vec<Result<Hit, Error>>, Error> {
        #[cfg(feature = "series")]
        if requests.iter().any(|request| self.inner.is_ranged(request)) {
            return self.request_ranges(requests, options).await;
        }
        self.request_all(requests, options).await
    }

    /// The same for requests of which none asks for a range that is cut into chunks.
    pub(crate) async fn request_all(
        &self,
        requests: &[Request],
        options: ReadOptions,
    ) -> Result<Vec<Result<Hit, Error>>, Error> {
        let keys: Vec<Key> = requests.iter().map(Request::key).collect();
        let mut reads = Reads::new(&self.inner, &keys, &options)?;
        reads.peek(&self.inner);
        let asked: HashMap<Key, Request> =
            keys.iter().cloned().zip(requests.iter().cloned()).collect();
        let mut ways = HashMap::new();
        for request in requests {
            let source = request.source();
            if !ways.contains_key(source) {
                let way =
                    Way { origin: self.inner.origin(source), asker: self.inner.asker(source) };
                ways.insert(source.to_owned(), way);
            }
        }
        let load = |contexts| load_groups(asked, ways, contexts);
        self.inner.answer(&mut reads, Vec::new(), &options, load).await?;
        Ok(reads.answers(&self.inner))
    }

    /// How requests are best asked together: the places of those that one call answers, each place
    /// once. Those of one source only, and those for ranges of time on their own.
    pub fn batches(&self, requests: &[Request]) -> Vec<Vec<usize>> {
        let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for (place, request) in requests.iter().enumerate() {
            #[cfg(feature = "series")]
            if self.inner.is_ranged(request) {
                batches.push(vec![place]);
                continue;
            }
            by_source.entry(request.source()).or_default().push(place);
        }
        for (source, places) in by_source {
            let Ok(origin) = self.inner.origin(source) else {
                batches.extend(places.into_iter().map(|place| vec![place]));
                continue;
            };
            let asked: Vec<Request> = places.iter().map(|at| requests[*at].clone()).collect();
            let placed = |group: Vec<usize>| -> Vec<usize> {
                group.into_iter().filter_map(|at| places.get(at).copied()).collect()
            };
            batches.extend(origin.groups(&asked).into_iter().map(placed));
        }
        batches.sort_unstable_by_key(|batch| batch.first().copied());
        batches
    }

    /// Calls to origins that requests need which are not stored: one for each of
    /// [`Cache::batches`], and for a range as many as its missing chunks take, or all of them if it
    /// `renews` what is stored.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    #[cfg_attr(
        not(feature = "series"),
        expect(clippy::unused_async, unused_variables, reason = "ranges are looked up")
    )]
    pub async fn calls_for(&self, requests: &[Request], renews: bool) -> Result<usize, Error> {
        let mut calls = 0;
        for batch in self.batches(requests) {
            #[cfg(feature = "series")]
            if let [only] = *batch
                && let Some((series, range)) = self.inner.range_of(&requests[only])?
            {
                calls += self.calls_for_range(series, &requests[only], (range, renews)).await?;
                continue;
            }
            calls += usize::from(!batch.is_empty());
        }
        Ok(calls)
    }

    /// Whether a request asks for a range of time that is cut into chunks, each stored by itself.
    #[cfg(feature = "series")]
    pub fn asks_for_range(&self, request: &Request) -> bool {
        self.inner.is_ranged(request)
    }

    /// Whether a request asks for a range of time; none does without the feature `series`.
    #[cfg(not(feature = "series"))]
    pub fn asks_for_range(&self, _request: &Request) -> bool {
        false
    }

    /// What the calls of a source have to keep; `None` if there is nothing.
    pub fn limits(&self, source: &str) -> Option<Limits> {
        self.inner.asker(source).map(|asker| asker.limiter().limits().clone())
    }

    /// The question that the origin of `source` answers about something described by `values`, a
    /// market for example.
    ///
    /// # Errors
    /// [`Error::NoOrigin`]; [`Error::Origin`] if the origin needs a value that is not there.
    pub fn request_for(
        &self,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Request, Error> {
        Ok(self.inner.origin(source)?.request(source, values)?)
    }
}

/// How a source is asked.
#[derive(Clone)]
struct Way {
    origin: Result<Arc<dyn Origin>, Error>,
    asker: Option<Arc<Asker>>,
}

impl Way {
    async fn load(&self, contexts: &[LoadContext], loads: Vec<Load>) -> Vec<Result<Loaded, Error>> {
        let origin = match &self.origin {
            Ok(origin) => origin,
            Err(error) => return loads.iter().map(|_| Err(error.clone())).collect(),
        };
        let count = loads.len();
        let terms = Terms::of(contexts);
        let answers = if let Some(asker) = &self.asker {
            asker.ask(&terms, || call(&**origin, loads.clone())).await
        } else {
            let source = contexts.first().map_or("", |context| context.key.source());
            match terms.slot(source).await {
                Ok(_slot) => call(&**origin, loads).await,
                Err(stopped) => Err(stopped),
            }
        };
        match answers {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(Error::from)).collect(),
            Err(error) => {
                let error = Error::from(error);
                (0..count).map(|_| Err(error.clone())).collect()
            }
        }
    }
}

/// One call. That of a single load fails as a whole, so that it is made again where that may help.
async fn call(
    origin: &dyn Origin,
    mut loads: Vec<Load>,
) -> Result<Vec<Result<Loaded, OriginError>>, OriginError> {
    if loads.len() > 1 {
        return origin.load_many(loads).await;
    }
    match loads.pop() {
        Some(load) => Ok(vec![Ok(origin.load(load).await?)]),
        None => Ok(Vec::new()),
    }
}

/// Loads what is missing, in as few calls as the origins can do with.
async fn load_groups(
    asked: HashMap<Key, Request>,
    ways: HashMap<String, Way>,
    contexts: Vec<LoadContext>,
) -> Vec<Result<Loaded, Error>> {
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, context) in contexts.iter().enumerate() {
        by_source.entry(context.key.source()).or_default().push(place);
    }
    let mut groups: Vec<(&Way, Vec<usize>)> = Vec::new();
    for (source, places) in by_source {
        let Some(way) = ways.get(source) else { continue };
        let requests: Vec<Request> =
            places.iter().filter_map(|place| asked.get(&contexts[*place].key).cloned()).collect();
        let grouped = match &way.origin {
            Ok(origin) => origin.groups(&requests),
            Err(_none) => vec![(0..places.len()).collect()],
        };
        let places = |group: Vec<usize>| -> Vec<usize> {
            group.into_iter().filter_map(|at| places.get(at).copied()).collect()
        };
        groups.extend(grouped.into_iter().map(|group| (way, places(group))));
    }
    let calls = groups.into_iter().map(async |(way, places)| {
        let contexts: Vec<LoadContext> =
            places.iter().filter_map(|place| contexts.get(*place).cloned()).collect();
        let load = |context: &LoadContext| {
            let request = asked.get(&context.key)?.clone();
            Some(Load::new(request).with_stored(context.stored.clone()))
        };
        let loads: Vec<Load> = contexts.iter().filter_map(load).collect();
        let answers = way.load(&contexts, loads).await;
        places.into_iter().zip(answers).collect::<Vec<_>>()
    });
    let calls: Vec<_> = calls.collect();
    let mut answers: HashMap<usize, Result<Loaded, Error>> = stream::iter(calls)
        .buffer_unordered(MOST_AT_ONCE)
        .map(stream::iter)
        .flatten()
        .collect()
        .await;
    let answer = |(place, context): (usize, &LoadContext)| {
        let mut loaded = answers.remove(&place).unwrap_or_else(|| Err(no_answer(&context.key)))?;
        // Each request has tags of its own, which the flight does not know.
        let tags = asked.get(&context.key).map(Request::tags).unwrap_or_default();
        loaded.tags.extend(tags.iter().cloned());
        Ok(loaded)
    };
    contexts.iter().enumerate().map(answer).collect()
}
