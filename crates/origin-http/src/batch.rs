//! Batches: several members of one list asked for by one HTTP request, and its answer taken apart.

mod group;
mod split;

use std::collections::HashSet;

use cache_core::{Answer, Load, Loaded, Origin, OriginError, OriginErrorKind, Request};

use crate::{Asked, HttpOrigin, HttpSource, json::Pointer, message::Recipe};

/// How one HTTP request asks for several members, and how its answer says which row is whose.
///
/// Requests that differ in nothing but their value of `param` are asked for together. Each of them
/// gets a document of the form that it would have got alone: the whole answer, with the rows of its
/// member only. Rows stay as they were written, digit for digit.
///
/// Every value of `param` must name one member, and rows must write it in the same way: a value
/// such as `*` that the API takes for many is not told apart, and finds no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The value of the URL, or parameter, that may name several members at once: `cbsa`.
    pub param: String,
    /// Most members in one request; at least 2.
    pub max: usize,
    /// Stands between two members: `,`. It is percent-encoded like the members themselves. A value
    /// that has it is asked for alone.
    pub separator: String,
    /// JSON pointer to the array of rows in an answer, such as `/Results/series`; empty if the
    /// answer is that array.
    pub rows: String,
    /// Where a row names its member. Of rows that are objects: the name of a field or, if it begins
    /// with `/`, a JSON pointer. Of rows that are arrays, of which the first is a header: the name of
    /// a column. Numbers count as they are written, and so do zeros at the front of texts.
    pub member: String,
}

impl Batch {
    /// At most `max` members in `param`, with commas between them; `rows` and `member` say where
    /// an answer has them.
    pub fn new(
        param: impl Into<String>,
        max: usize,
        rows: impl Into<String>,
        member: impl Into<String>,
    ) -> Self {
        Self {
            param: param.into(),
            max,
            separator: ",".to_owned(),
            rows: rows.into(),
            member: member.into(),
        }
    }
}

/// The description of a batch makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Nothing of the source has the name.
    #[error("`param`: neither `url`, body nor `params` of the source has `{0}`")]
    Param(String),
    /// It would hold one member, or none.
    #[error("`max`: a batch has at least 2 members")]
    Max,
    /// Members would run together.
    #[error("`separator`: write what stands between two members, such as a comma")]
    Separator,
    /// The text is no JSON pointer.
    #[error("`rows`: a JSON pointer is empty or begins with `/`, such as /data/rows; not `{0}`")]
    Rows(String),
}

/// A [`Batch`] that makes sense.
#[derive(Debug)]
pub(crate) struct Batcher {
    batch: Batch,
    rows: Pointer,
    /// Where rows that are objects name their member.
    member: Pointer,
}

impl Batcher {
    /// That of `source`, if it has one.
    pub(crate) fn of(source: &HttpSource, recipe: &Recipe) -> Result<Option<Self>, BatchError> {
        let Some(batch) = &source.batch else { return Ok(None) };
        if !recipe.names().contains(&batch.param) && !source.params.contains_key(&batch.param) {
            return Err(BatchError::Param(batch.param.clone()));
        }
        Self::new(batch.clone()).map(Some)
    }

    fn new(batch: Batch) -> Result<Self, BatchError> {
        if batch.max < 2 {
            return Err(BatchError::Max);
        }
        if batch.separator.is_empty() {
            return Err(BatchError::Separator);
        }
        let rows = Pointer::parse(&batch.rows);
        let rows = rows.ok_or_else(|| BatchError::Rows(batch.rows.clone()))?;
        let member = Pointer::parse(&batch.member);
        let member = member.unwrap_or_else(|| Pointer::field(&batch.member));
        Ok(Self { batch, rows, member })
    }

    /// The one member that `request` asks for; `None` if it must be asked on its own.
    fn member_of<'r>(&self, request: &'r Request) -> Option<&'r str> {
        // Not from the context, of which nothing reaches the key.
        let member = request.params().get(&self.batch.param)?;
        (!member.is_empty() && !member.contains(&self.batch.separator)).then_some(member)
    }
}

/// For the implementation of `Origin`.
impl HttpOrigin {
    pub(crate) fn grouped<'r>(
        &self,
        requests: impl ExactSizeIterator<Item = &'r Request>,
    ) -> Vec<Vec<usize>> {
        match &self.batcher {
            Some(batcher) => batcher.groups(self.recipe.names(), requests),
            None => (0..requests.len()).map(|place| vec![place]).collect(),
        }
    }

    /// The loads of one group by one request; any others one after the other.
    pub(crate) async fn load_group(
        &self,
        loads: Vec<Load>,
    ) -> Result<Vec<Result<Loaded, OriginError>>, OriginError> {
        let Some((batcher, members)) = self.members(&loads) else {
            return Ok(self.load_each(loads).await);
        };
        let mut seen = HashSet::new();
        let distinct: Vec<&str> =
            members.iter().copied().filter(|member| seen.insert(*member)).collect();
        let Some(first) = loads.first() else { return Ok(Vec::new()) };
        let joined = distinct.join(&batcher.batch.separator);
        let request = first.request.clone().param(&batcher.batch.param, joined);
        // Without what is stored: its validators are those of one member.
        let Asked { loaded: whole, by_status } = self.ask(&Load::new(request)).await?;
        if distinct.len() == 1 {
            return Ok(loads.iter().map(|_| Ok(whole.clone())).collect());
        }
        let Some(body) = whole.value() else {
            if by_status {
                // A status says it, maybe because of one of them. Asking for each would be more calls
                // than the one that there is leave for.
                let count = distinct.len();
                let what = format!("the answer for {count} members at once is that there is none");
                return Err(OriginError::new(OriginErrorKind::Unusable, &self.source.name, what));
            }
            return Ok(loads.iter().map(|_| Ok(whole.clone())).collect());
        };
        let most = self.source.max_body_bytes;
        let documents = batcher.split(body, &members, most).map_err(|error| {
            let what = format!("the answer for {} members at once: {error}", distinct.len());
            OriginError::new(OriginErrorKind::Unusable, &self.source.name, what)
        })?;
        let one = |document: Option<_>| {
            let Some(value) = document else {
                let mut absent = Loaded::absent();
                // The lifetime is that of values.
                (absent.version, absent.store) = (whole.version.clone(), whole.store);
                return absent;
            };
            let mut one = whole.clone();
            one.answer = Answer::Value(value);
            // They are those of the whole list.
            (one.etag, one.source_last_modified) = (None, None);
            one
        };
        Ok(documents.into_iter().map(one).map(Ok).collect())
    }

    async fn load_each(&self, loads: Vec<Load>) -> Vec<Result<Loaded, OriginError>> {
        let mut answers = Vec::with_capacity(loads.len());
        for load in loads {
            answers.push(self.load(load).await);
        }
        answers
    }

    /// The member of each load, if they are several that one request may ask for.
    fn members<'l>(&self, loads: &'l [Load]) -> Option<(&Batcher, Vec<&'l str>)> {
        let batcher = self.batcher.as_ref()?;
        let groups = self.grouped(loads.iter().map(|load| &load.request));
        let members = loads.iter().map(|load| batcher.member_of(&load.request));
        let alone = loads.len() < 2 || groups.len() != 1;
        if alone { None } else { Some((batcher, members.collect::<Option<_>>()?)) }
    }
}
