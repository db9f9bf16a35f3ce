//! Which parts of a document count: JSON pointers, with `*` for every member or item.

use larder::Escaped;

/// Which parts of a source's documents are compared. By default the whole of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeRule {
    pointers: Vec<Pattern>,
    ignore: Vec<Pattern>,
}

/// A text that is no JSON pointer, or one that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` in `{list}` {problem}", Escaped(.text))]
#[non_exhaustive]
pub struct InvalidPointer {
    /// The list that holds it: `pointers` or `ignore`.
    pub list: &'static str,
    /// The text.
    pub text: String,
    problem: String,
}

impl ChangeRule {
    /// Compares what `pointers` lead to, or the whole document if there are none, without what
    /// `ignore` leads to.
    ///
    /// Both hold JSON pointers (RFC 6901): `/data/0/rent`, with `~1` for a `/` in a name and `~0`
    /// for a `~`. A step that is `*` stands for every member or item, also for a member that is
    /// called so. Pointers may lead to nothing.
    ///
    /// # Errors
    /// When a text is no pointer, or when `ignore` holds the empty one, which is the whole document.
    pub fn new(
        pointers: impl IntoIterator<Item = impl Into<String>>,
        ignore: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, InvalidPointer> {
        let patterns = |list, text: String| {
            Pattern::parse(&text).map_err(|problem| InvalidPointer { list, text, problem })
        };
        let pointers = pointers.into_iter().map(|text| patterns("pointers", text.into()));
        let ignore = ignore.into_iter().map(|text| match text.into() {
            text if text.is_empty() => {
                let problem = "is the whole document, of which nothing would be left to compare; \
                               name the parts that are volatile";
                Err(InvalidPointer { list: "ignore", text, problem: problem.into() })
            }
            text => patterns("ignore", text),
        });
        Ok(Self {
            pointers: pointers.collect::<Result<_, _>>()?,
            ignore: ignore.collect::<Result<_, _>>()?,
        })
    }

    /// The pointers to what is compared; empty for the whole document.
    pub fn pointers(&self) -> impl Iterator<Item = &str> {
        self.pointers.iter().map(|pattern| pattern.text.as_str())
    }

    /// The pointers to what is left out.
    pub fn ignore(&self) -> impl Iterator<Item = &str> {
        self.ignore.iter().map(|pattern| pattern.text.as_str())
    }

    /// What it says about a document as a whole.
    pub(super) fn root(&self) -> Scope<'_> {
        let steps = |pattern| -> &[Step] { Pattern::steps(pattern) };
        let mut scope = Scope {
            is_whole: self.pointers.is_empty(),
            select: self.pointers.iter().map(steps).collect(),
            ignore: self.ignore.iter().map(steps).collect(),
        };
        scope.settle();
        scope
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Any,
    Named {
        name: String,
        /// The name as a place in an array.
        index: Option<usize>,
    },
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self { text: String::new(), steps: Vec::new() });
        }
        let Some(steps) = text.strip_prefix('/') else {
            return Err(no_slash(text));
        };
        let steps = steps.split('/').map(Step::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), steps })
    }

    fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Why a text that does not begin with `/` is no pointer, with what may have been meant.
fn no_slash(text: &str) -> String {
    let path = text.strip_prefix(['$', '#']).unwrap_or(text);
    let steps: Vec<_> = path.split(['.', '/', '[', ']']).filter(|step| !step.is_empty()).collect();
    let meant = format!("/{}", steps.join("/"));
    format!(
        "is no JSON pointer: one begins with `/`, as `{}` does, or is empty for the whole document",
        Escaped(&meant)
    )
}

impl Step {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('~') {
            if !after.starts_with(['0', '1']) {
                return Err(
                    "is no JSON pointer: write `~0` for a `~` in a name, and `~1` for a `/`"
                        .to_owned(),
                );
            }
            rest = after;
        }
        // In this order: `~01` is `~1`, not `/`.
        let name = text.replace("~1", "/").replace("~0", "~");
        // RFC 6901: no sign, and no zeros before it.
        let is_index = name == "0" || name.starts_with(|first| matches!(first, '1'..='9'));
        let index = name.parse().ok().filter(|_| is_index);
        Ok(Self::Named { name, index })
    }

    fn leads_to(&self, place: Place<'_>) -> bool {
        match (self, place) {
            (Self::Any, _) => true,
            (Self::Named { name, .. }, Place::Member(member)) => name == member,
            (Self::Named { index, .. }, Place::Item(item)) => *index == Some(item),
        }
    }
}

/// One step down from an object or an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<'d> {
    Member(&'d str),
    Item(usize),
}

/// What a rule says about one part of a document and what is below it.
#[derive(Debug)]
pub(super) struct Scope<'r> {
    /// Whether all of it counts, but for what is ignored.
    is_whole: bool,
    /// The steps from here to what counts.
    select: Vec<&'r [Step]>,
    /// The steps from here to what is left out.
    ignore: Vec<&'r [Step]>,
}

impl Scope<'_> {
    /// Whether the part itself counts, not only something below it.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What it says about the part at `place` below; `None` if neither that nor anything below it
    /// counts.
    pub(super) fn below(&self, place: Place<'_>) -> Option<Self> {
        let ignore = after(&self.ignore, place);
        if ignore.iter().any(|steps| steps.is_empty()) {
            return None;
        }
        let select = after(&self.select, place);
        if !self.is_whole && select.is_empty() {
            return None;
        }
        let mut below = Self { is_whole: self.is_whole, select, ignore };
        below.settle();
        Some(below)
    }

    /// Where all counts there is nothing more to select.
    fn settle(&mut self) {
        self.is_whole |= self.select.iter().any(|steps| steps.is_empty());
        if self.is_whole {
            self.select = Vec::new();
        }
    }
}

/// What is left of the patterns that lead to `place`.
fn after<'r>(patterns: &[&'r [Step]], place: Place<'_>) -> Vec<&'r [Step]> {
    let rest = |steps: &&'r [Step]| {
        steps.split_first().filter(|(first, _)| first.leads_to(place)).map(|(_, rest)| rest)
    };
    patterns.iter().filter_map(rest).collect()
}
