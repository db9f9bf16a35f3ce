//! Reading a range: chunks that are cached, and loads of those that are missing.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use cache_core::{Entry, Key, Loaded, OriginError, OriginErrorKind, Request, Ttl};
use futures_util::future::join_all;

use super::{DateRange, Part, Run, Series, SeriesHit, plan::Plan};
use crate::{
    Cache, Error, Hit, LoadContext, ReadOptions, asking::Asker, guard::Guard, load::Terms,
    note::By, reads::Reads,
};

impl Cache {
    /// What is stored of a range, and what `load` brings for the rest, which is stored then: chunk by
    /// chunk, under the keys that `request` has with the chunks' bounds as parameters.
    ///
    /// `load` is called once for each missing chunk, or for several neighbouring ones if the series
    /// allows it, at the same time. Chunks that are being loaded already are waited for. What it brings
    /// is stored also if another chunk fails.
    ///
    /// # Errors
    /// Those of [`Cache::get_or_load`], of the first chunk that failed; [`Error::Series`] if the series
    /// or the range makes no sense; [`Error::Origin`] if the rows of a chunk are not where the series
    /// says.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn series<F, Fut>(
        &self,
        series: &Series,
        request: &Request,
        range: DateRange,
        load: F,
    ) -> Result<SeriesHit, Error>
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        self.series_with(series, request, range, ReadOptions::default(), load).await
    }

    /// [`Cache::series`] in another way.
    ///
    /// # Errors
    /// As [`Cache::series`]; [`Error::NotCached`] if it is not to load and a chunk is missing;
    /// [`Error::UnknownTier`]; [`Error::Policy`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn series_with<F, Fut>(
        &self,
        series: &Series,
        request: &Request,
        range: DateRange,
        options: ReadOptions,
        load: F,
    ) -> Result<SeriesHit, Error>
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Loaded, OriginError>> + Send + 'static,
    {
        let source = request.source();
        let problem = |problem| Error::Series { name: source.to_owned(), problem };
        let plan = Arc::new(Plan::new(series, request, range).map_err(problem)?);
        let mut reads = Reads::new(&self.inner, &plan.keys(), &options)?;
        reads.peek(&self.inner);
        let loads = {
            let (plan, clock) = (Arc::clone(&plan), Arc::clone(&self.inner.clock));
            let asker = self.inner.asker(source);
            move |contexts: Vec<LoadContext>| async move {
                let mut loaded = load_runs(&plan, &contexts, asker.as_deref(), &load).await;
                let now = clock.now();
                for LoadContext { key, policy, .. } in &contexts {
                    if let Some(limit) = plan.limit(key, now)
                        && let Some(Ok(loaded)) = loaded.get_mut(key)
                    {
                        loaded.ttl = Some(Ttl::For(match loaded.ttl.unwrap_or(policy.ttl) {
                            Ttl::Never => limit,
                            Ttl::For(ttl) => ttl.min(limit),
                        }));
                    }
                }
                let mut answer = |key: &Key| {
                    loaded.remove(key).unwrap_or_else(|| Err(crate::fly::no_answer(key)))
                };
                contexts.iter().map(|context| answer(&context.key)).collect()
            }
        };
        let tags = request.tags().to_vec();
        self.inner.answer(&mut reads, tags, &options, loads).await?;
        let hits = reads.answers(&self.inner).into_iter().collect::<Result<Vec<Hit>, Error>>()?;
        let part = |(chunk, hit): (&super::plan::Chunk, Hit)| Part { range: chunk.range, hit };
        let parts: Vec<Part> = plan.chunks.iter().zip(hits).map(part).collect();
        let joined = self.joined(&plan, &parts).map_err(|why| malformed(source, &why))?;
        Ok(SeriesHit { joined, parts })
    }

    /// The chunks as one hit, as good as the worst of them.
    fn joined(&self, plan: &Plan, parts: &[Part]) -> Result<Hit, String> {
        let entries = || parts.iter().map(|part| part.hit.entry());
        let chunks = plan.chunks.iter().zip(entries());
        let there: Vec<_> = chunks.filter(|(_, entry)| !entry.is_absent()).collect();
        let value = if there.is_empty() { Bytes::new() } else { plan.join.join(&there)?.into() };
        let same = |of: fn(&Entry) -> Option<&str>| {
            let mut all = entries().map(of);
            let first = all.next().flatten();
            first.filter(|_| all.all(|one| one == first)).map(str::to_owned)
        };
        let oldest = entries().map(Entry::as_of).min().unwrap_or_default();
        let entry = Entry::builder(value, oldest)
            .absent(there.is_empty())
            .loaded_at(entries().map(Entry::loaded_at).min().unwrap_or(oldest.instant()))
            .expires_at(entries().map(Entry::expires_at).min().unwrap_or(oldest.instant()))
            .stale_until(entries().map(Entry::stale_until).min().unwrap_or(oldest.instant()))
            .expired(entries().any(Entry::is_expired))
            .version(same(Entry::version))
            .source_last_modified(same(Entry::source_last_modified))
            .content_type(same(Entry::content_type))
            .tags(entries().flat_map(Entry::tags).cloned())
            .build();
        let tiers = &self.inner.chain.tiers;
        let distance = |by: &By| {
            tiers.iter().map(Guard::by).position(|tier| tier == *by).unwrap_or(tiers.len())
        };
        let by = parts.iter().map(|part| part.hit.by()).max_by_key(distance).unwrap_or(By::ORIGIN);
        // Only if nothing that the origin was asked about has changed.
        let mut asked = parts.iter().filter(|part| part.hit.by() == By::ORIGIN).peekable();
        let revalidated = asked.peek().is_some() && asked.all(|part| part.hit.is_revalidated());
        let hit = Hit::new(entry, by, self.inner.clock.now()).revalidated(revalidated);
        let stale =
            parts.iter().find_map(|part| Some((part.hit.stale_reason()?, part.hit.failure())));
        Ok(match stale {
            Some((reason, failure)) => hit.stale(reason, failure.cloned()),
            None => hit,
        })
    }
}

/// Loads chunks, neighbours together as far as the series allows, all at the same time.
async fn load_runs<F, Fut>(
    plan: &Plan,
    contexts: &[LoadContext],
    asker: Option<&Asker>,
    load: &F,
) -> HashMap<Key, Result<Loaded, Error>>
where
    F: Fn(Run) -> Fut,
    Fut: Future<Output = Result<Loaded, OriginError>>,
{
    let by_key: HashMap<&Key, &LoadContext> = contexts.iter().map(|it| (&it.key, it)).collect();
    let places: Vec<usize> = plan
        .chunks
        .iter()
        .enumerate()
        .filter(|(_, chunk)| by_key.contains_key(&chunk.key))
        .map(|(place, _)| place)
        .collect();
    let runs = places
        .chunk_by(|one, next| one + 1 == *next)
        .flat_map(|neighbours| neighbours.chunks(plan.per_call));
    let loads = runs.map(async |run| {
        let chunks: Vec<_> = run.iter().filter_map(|place| plan.chunks.get(*place)).collect();
        let contexts = chunks.iter().filter_map(|chunk| by_key.get(&chunk.key).copied().cloned());
        let contexts: Vec<LoadContext> = contexts.collect();
        let source = contexts.first().map_or("", |context| context.key.source());
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
            return Vec::new();
        };
        let answer = match plan.request(first, last) {
            Err(problem) => Err(Error::Series { name: source.to_owned(), problem }),
            Ok((range, request)) => {
                let terms = Terms::of(&contexts);
                let run =
                    || load(Run { request: request.clone(), range, chunks: contexts.clone() });
                let loaded = match asker {
                    None => match terms.slot(source).await {
                        Ok(_slot) => run().await,
                        Err(stopped) => Err(stopped),
                    },
                    Some(asker) => asker.ask(&terms, run).await,
                };
                loaded.map_err(Error::from).and_then(|loaded| {
                    plan.join.split(&loaded, &chunks).map_err(|why| malformed(source, &why))
                })
            }
        };
        let keys = contexts.iter().map(|context| context.key.clone());
        match answer {
            Ok(loaded) => keys.zip(loaded.into_iter().map(Ok)).collect(),
            Err(error) => keys.map(|key| (key, Err(error.clone()))).collect::<Vec<_>>(),
        }
    });
    join_all(loads).await.into_iter().flatten().collect()
}

/// The origin's answer is not of the form that the series says.
fn malformed(source: &str, why: &str) -> Error {
    OriginError::new(OriginErrorKind::Other, source, why).into()
}
