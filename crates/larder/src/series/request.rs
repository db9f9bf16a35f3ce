//! Requests for ranges of sources that have them.

use cache_core::{Load, OriginError, OriginErrorKind, Request};
use futures_util::{StreamExt, stream};

use super::{DateRange, Run, Series, plan::Plan};
use crate::{Cache, Error, Hit, ReadMode, ReadOptions, inner::Inner, requests::MOST_AT_ONCE};

impl Cache {
    /// The answer for a range of time, of the chunks that it is cut into.
    pub(crate) async fn request_range(
        &self,
        series: &Series,
        request: &Request,
        range: DateRange,
        mut options: ReadOptions,
    ) -> Result<Hit, Error> {
        let origin = self.inner.origin(request.source());
        let lacks_origin =
            origin.is_err() && !self.inner.offline && options.mode != ReadMode::CachedOnly;
        if lacks_origin {
            // What is stored can still be served.
            options.mode = ReadMode::CachedOnly;
        }
        let load = move |run: Run| {
            let origin = origin.clone();
            async move {
                let source = run.request.source().to_owned();
                let origin = origin
                    .map_err(|error| OriginError::new(OriginErrorKind::Request, &source, error))?;
                // What is stored of several chunks is not what one call asks about.
                let stored = match &*run.chunks {
                    [one] => one.stored.clone(),
                    _ => None,
                };
                origin.load(Load::new(run.request).with_stored(stored)).await
            }
        };
        match self.series_with(series, request, range, options, load).await {
            Ok(hit) => Ok(hit.into_hit()),
            Err(Error::NotCached { .. }) if lacks_origin => {
                Err(self.inner.no_origin(request.source()))
            }
            Err(error) => Err(error),
        }
    }

    /// Calls that the missing chunks of a range take.
    pub(crate) async fn calls_for_range(
        &self,
        series: &Series,
        request: &Request,
        (range, renews): (DateRange, bool),
    ) -> Result<usize, Error> {
        let problem = |problem| Error::Series { name: request.source().to_owned(), problem };
        let plan = Plan::new(series, request, range).map_err(problem)?;
        let stored = self.get_many(&plan.keys()).await?;
        let is_missing = |hit: &Result<Option<Hit>, Error>| renews || !matches!(hit, Ok(Some(_)));
        let missing: Vec<bool> = stored.iter().map(is_missing).collect();
        let runs = missing.chunk_by(|one, next| one == next).filter(|run| run[0]);
        Ok(runs.map(|run| run.len().div_ceil(plan.per_call)).sum())
    }

    /// The answers to several requests, some of them for ranges.
    pub(crate) async fn request_ranges(
        &self,
        requests: &[Request],
        options: ReadOptions,
    ) -> Result<Vec<Result<Hit, Error>>, Error> {
        let (ranged, plain): (Vec<usize>, Vec<usize>) =
            (0..requests.len()).partition(|place| self.inner.is_ranged(&requests[*place]));
        let others: Vec<Request> = plain.iter().map(|place| requests[*place].clone()).collect();
        let of_ranges = ranged
            .into_iter()
            .map(async |place| (place, self.request_with(&requests[place], options.clone()).await));
        let of_ranges: Vec<_> = of_ranges.collect();
        let of_ranges = stream::iter(of_ranges).buffer_unordered(MOST_AT_ONCE).collect::<Vec<_>>();
        let (others, of_ranges) =
            futures_util::join!(self.request_all(&others, options.clone()), of_ranges);
        let mut answers: Vec<_> = plain.into_iter().zip(others?).chain(of_ranges).collect();
        answers.sort_unstable_by_key(|(place, _)| *place);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

impl Inner {
    /// The range that a request asks for, and how it is cut, if its source has ranges.
    pub(crate) fn range_of(
        &self,
        request: &Request,
    ) -> Result<Option<(&Series, DateRange)>, Error> {
        let Some(series) = self.series.get(request.source()) else { return Ok(None) };
        match series.range_of(request) {
            Ok(range) => Ok(range.map(|range| (series, range))),
            Err(error) => {
                let (name, problem) = (request.source().to_owned(), error.to_string());
                Err(Error::Series { name, problem })
            }
        }
    }

    /// Whether a request is not to be answered as it is.
    pub(crate) fn is_ranged(&self, request: &Request) -> bool {
        !matches!(self.range_of(request), Ok(None))
    }
}
