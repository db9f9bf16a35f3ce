//! What is sent: method, URL, headers and body, made of a source's description and a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use cache_core::Request;
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::{
    Auth, HttpSource, SetupError,
    client::same_server,
    fault::Fault,
    source::place,
    template::{self, Doubled, Pattern, Template},
};

/// How a source is asked.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// POST with this body. It is taken for a question: it is sent again whenever a GET would be.
    Post(Body),
}

/// The body of a POST.
///
/// Names of values in braces in it are parameters as those of the URL are; there, `{{` and `}}` stand
/// for braces. `Debug` shows none of its text: it may hold keys.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// JSON. Its strings may name values, the names of its fields do not.
    Json(Value),
    /// Pairs as a form sends them. The second of each pair may name values.
    Form(BTreeMap<String, String>),
    /// Text of any kind, sent as it is: braces in it are only braces, because a value could end its
    /// place in a text whose syntax is not known.
    Text {
        /// Its media type.
        content_type: String,
        /// The text.
        text: String,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(_) => f.debug_tuple("Json").finish_non_exhaustive(),
            Self::Form(pairs) => f.debug_tuple("Form").field(&pairs.keys()).finish(),
            Self::Text { content_type, text: _ } => {
                f.debug_struct("Text").field("content_type", content_type).finish_non_exhaustive()
            }
        }
    }
}

/// One call, ready to be sent.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) method: reqwest::Method,
    pub(crate) url: Url,
    /// What any server may see.
    pub(crate) headers: HeaderMap,
    /// The source's own, which may hold keys and replace the others.
    pub(crate) own: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl Message {
    /// Method and server, for errors.
    pub(crate) fn place(&self) -> String {
        format!("{} {}", self.method, place(&self.url))
    }
}

/// How a source's messages are made.
pub(crate) struct Recipe {
    template: Template,
    names: BTreeSet<String>,
    defaults: BTreeMap<String, String>,
    optional: BTreeSet<String>,
    query: BTreeMap<String, String>,
    own: HeaderMap,
    body: Option<Plan>,
}

/// A body, parsed.
enum Plan {
    Json(Shape),
    Form(Vec<(String, Pattern)>),
    Text(HeaderValue, Bytes),
}

/// JSON with names of values in its strings.
enum Shape {
    Fixed(Value),
    Text(Pattern),
    List(Vec<Shape>),
    Fields(Vec<(String, Shape)>),
}

impl Recipe {
    pub(crate) fn new(source: &HttpSource) -> Result<Self, SetupError> {
        let template = Template::parse(&source.url)?;
        let mut names = template.names().clone();
        let (mut query, mut own) = (source.query.clone(), header_map(&source.headers)?);
        let mut posted = match &source.method {
            Method::Get => None,
            Method::Post(body) => Some(body.clone()),
        };
        match &source.auth {
            None => {}
            Some(Auth::Header { name, value }) => {
                let (name, value) = header(name, value)?;
                own.insert(name, value);
            }
            Some(Auth::Query { name, value }) => {
                query.insert(name.clone(), value.clone());
            }
            Some(Auth::Body { field, value }) => {
                // It is no template.
                let value = value.replace('{', "{{").replace('}', "}}");
                match &mut posted {
                    Some(Body::Json(Value::Object(fields))) => {
                        fields.insert(field.clone(), Value::String(value));
                    }
                    Some(Body::Form(pairs)) => {
                        pairs.insert(field.clone(), value);
                    }
                    _ => return Err(SetupError::AuthBody),
                }
            }
        }
        let body = posted.map(|body| Plan::new(&body, &mut names)).transpose()?;
        let defaults = source.params.clone();
        let optional = source.optional.clone();
        Ok(Self { template, names, defaults, optional, query, own, body })
    }

    /// Names of the values that the URL and the body need.
    pub(crate) fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    pub(crate) fn template(&self) -> &Template {
        &self.template
    }

    /// The request to `source` about `values`: those that a template names, the defaults, and what
    /// else is sent where it is given.
    pub(crate) fn request(
        &self,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Request, Fault> {
        let defaults = self.defaults.iter();
        let mut request = defaults
            .fold(Request::new(source), |request, (name, value)| request.param(name, value));
        for name in &self.names {
            let value = values.get(name).or_else(|| self.defaults.get(name));
            request = request.param(name, value.ok_or_else(|| self.missing(name))?);
        }
        let given = self.optional.iter().filter_map(|name| values.get_key_value(name));
        Ok(given.fold(request, |request, (name, value)| request.param(name, value)))
    }

    /// The message that asks for a document at `url`; on the source's own server with what it sends
    /// with each request but in a body: no other is to see its keys.
    pub(crate) fn aside(&self, method: reqwest::Method, url: &Url) -> Message {
        let (mut url, mut own) = (url.clone(), HeaderMap::new());
        if self.template.sample().is_some_and(|at| same_server(&at, &url)) {
            own.clone_from(&self.own);
            if !self.query.is_empty() {
                url.query_pairs_mut().extend_pairs(&self.query);
            }
        }
        Message { method, url, headers: HeaderMap::new(), own, body: None }
    }

    /// The message that asks for the answer to `request`.
    pub(crate) fn message(&self, request: &Request) -> Result<Message, Fault> {
        let value = |name: &str| {
            request.value(name).or_else(|| self.defaults.get(name).map(String::as_str))
        };
        let missing = |name: String| self.missing(&name);
        let url = self.url(request, &self.template.fill(value).map_err(missing)?)?;
        let mut headers = HeaderMap::new();
        let body = match &self.body {
            None => None,
            Some(plan) => {
                headers.insert(CONTENT_TYPE, plan.content_type());
                Some(plan.fill(&value, url.clone()).map_err(missing)?)
            }
        };
        let method = if body.is_some() { reqwest::Method::POST } else { reqwest::Method::GET };
        Ok(Message { method, url, headers, own: self.own.clone(), body })
    }

    /// The URL of `text`, in which each value is encoded, with what goes to the query.
    fn url(&self, request: &Request, text: &str) -> Result<Url, Fault> {
        if template::climbs(text) {
            let what = "a value makes `.` or `..` a part of its URL's path, which leads elsewhere";
            return Err(Fault::request(what));
        }
        let mut url = Url::parse(text).map_err(Fault::request)?;
        {
            let mut query = url.query_pairs_mut();
            let extra = request.params().iter().filter(|(name, _)| !self.names.contains(*name));
            query.extend_pairs(extra);
            query.extend_pairs(&self.query);
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }

    fn missing(&self, name: &str) -> Fault {
        let of = if self.template.names().contains(name) { "URL" } else { "body" };
        Fault::request(format_args!(
            "its {of} needs `{name}`, which the request does not have; give a default under \
             `params` of the source"
        ))
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Plan {
    /// Adds the names in `body` to `names`.
    fn new(body: &Body, names: &mut BTreeSet<String>) -> Result<Self, SetupError> {
        match body {
            Body::Json(value) => Shape::new(value, names).map(Self::Json),
            Body::Form(pairs) => {
                let pair =
                    |(name, text): (&String, &String)| Ok((name.clone(), pattern(text, names)?));
                pairs.iter().map(pair).collect::<Result<_, _>>().map(Self::Form)
            }
            Body::Text { content_type, text } => {
                let content_type = HeaderValue::from_str(content_type)
                    .map_err(|_bad| SetupError::HeaderValue(CONTENT_TYPE.to_string()))?;
                Ok(Self::Text(content_type, Bytes::copy_from_slice(text.as_bytes())))
            }
        }
    }

    fn content_type(&self) -> HeaderValue {
        match self {
            Self::Json(_) => HeaderValue::from_static("application/json"),
            Self::Form(_) => HeaderValue::from_static("application/x-www-form-urlencoded"),
            Self::Text(content_type, _) => content_type.clone(),
        }
    }

    /// `form` is any URL: a query is written as a form is.
    fn fill<'v>(
        &self,
        value: &impl Fn(&str) -> Option<&'v str>,
        mut form: Url,
    ) -> Result<Bytes, String> {
        match self {
            Self::Json(shape) => Ok(shape.fill(value)?.to_string().into()),
            Self::Form(pairs) => {
                form.set_query(None);
                for (name, pattern) in pairs {
                    form.query_pairs_mut().append_pair(name, &pattern.fill(value)?);
                }
                Ok(Bytes::copy_from_slice(form.query().unwrap_or_default().as_bytes()))
            }
            Self::Text(_, text) => Ok(text.clone()),
        }
    }
}

impl Shape {
    fn new(value: &Value, names: &mut BTreeSet<String>) -> Result<Self, SetupError> {
        Ok(match value {
            Value::String(text) => Self::Text(pattern(text, names)?),
            Value::Array(items) => Self::List(
                items.iter().map(|item| Self::new(item, names)).collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => {
                let field =
                    |(name, value): (&String, &Value)| Ok((name.clone(), Self::new(value, names)?));
                Self::Fields(fields.iter().map(field).collect::<Result<_, SetupError>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Fixed(value.clone()),
        })
    }

    fn fill<'v>(&self, value: &impl Fn(&str) -> Option<&'v str>) -> Result<Value, String> {
        Ok(match self {
            Self::Fixed(fixed) => fixed.clone(),
            Self::Text(pattern) => Value::String(pattern.fill(value)?),
            Self::List(items) => {
                items.iter().map(|item| item.fill(value)).collect::<Result<Value, _>>()?
            }
            Self::Fields(fields) => {
                let field = |(name, shape): &(String, Self)| Ok((name.clone(), shape.fill(value)?));
                Value::Object(fields.iter().map(field).collect::<Result<_, String>>()?)
            }
        })
    }
}

fn pattern(text: &str, names: &mut BTreeSet<String>) -> Result<Pattern, SetupError> {
    let pattern = Pattern::parse(text, Doubled::Literal).map_err(SetupError::Body)?;
    names.extend(pattern.names().iter().cloned());
    Ok(pattern)
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, SetupError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let (name, value) = header(name, value)?;
        map.insert(name, value);
    }
    Ok(map)
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), SetupError> {
    // Neither error text shows the value.
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_bad| SetupError::HeaderName(name.to_owned()))?;
    let mut value =
        HeaderValue::from_str(value).map_err(|_bad| SetupError::HeaderValue(name.to_owned()))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}
