//! Turns what was written into a layer: names checked against the table, switches under one name.

use std::sync::Arc;

use super::{
    error::ConfigError,
    interpolate::{self, Vars},
    layer::{Branch, Item, Layers, Leaf},
    place::Place,
    schema::{self, Kind},
    yaml::{Node, Yaml},
};

/// Reads a parsed file.
pub(super) struct FileReader<'a> {
    pub(super) name: Arc<str>,
    pub(super) vars: &'a Vars,
}

impl FileReader<'_> {
    pub(super) fn read(&self, yaml: Yaml) -> Result<Branch, ConfigError> {
        let place = self.place(yaml.line, yaml.column);
        match self.item(yaml, schema::ROOT, &mut Vec::new(), &place)? {
            Some(Item::Branch(branch)) => Ok(branch),
            _ => Ok(Branch::new(place)),
        }
    }

    fn place(&self, line: u64, column: u64) -> Place {
        Place::File { name: Arc::clone(&self.name), line, column }
    }

    /// `None` for null, which leaves the defaults as they are.
    fn item(
        &self,
        yaml: Yaml,
        kind: Kind,
        path: &mut Vec<String>,
        key: &Place,
    ) -> Result<Option<Item>, ConfigError> {
        let here = self.place(yaml.line, yaml.column);
        let item = match (kind, yaml.node) {
            (_, Node::Null) => return Ok(None),
            (Kind::Section(_) | Kind::Map(_), Node::Map(entries)) => {
                let mut branch = Branch::new(key.clone());
                for (name, line, column, value) in entries {
                    self.entry(&mut branch, kind, path, (name, self.place(line, column)), value)?;
                }
                Item::Branch(branch)
            }
            (Kind::Map(Kind::Section(_)), Node::List(items)) => {
                self.named(items, kind, path, key)?
            }
            (Kind::Leaf(_) | Kind::Number(..), Node::Scalar(text)) => {
                Item::Leaf(self.leaf(&text, here, path)?)
            }
            (Kind::List(_), Node::Scalar(text)) => split(&self.leaf(&text, here, path)?),
            (Kind::List(_), Node::List(items)) => {
                let leaves = items.into_iter().map(|item| {
                    let here = self.place(item.line, item.column);
                    match item.node {
                        Node::Scalar(text) => self.leaf(&text, here, path),
                        _ => Err(wrong_shape(here, "a list of plain values is expected", path)),
                    }
                });
                Item::List(leaves.collect::<Result<_, _>>()?, here)
            }
            (Kind::Section(fields), _) => return Err(not_a_section(here, fields, path)),
            (Kind::Map(_), _) => {
                return Err(wrong_shape(here, "write `name: value` pairs below it", path));
            }
            (Kind::Leaf(_) | Kind::Number(..), _) => {
                return Err(wrong_shape(
                    here,
                    "one value is expected, not a list or mapping",
                    path,
                ));
            }
            (Kind::List(example), _) => {
                let message = format!("a list is expected, such as {example}");
                return Err(wrong_shape(here, &message, path));
            }
        };
        Ok(Some(item))
    }

    /// A list of sections, each of which says its name.
    fn named(
        &self,
        items: Vec<Yaml>,
        kind: Kind,
        path: &mut Vec<String>,
        key: &Place,
    ) -> Result<Item, ConfigError> {
        let mut branch = Branch::new(key.clone());
        for Yaml { line, column, node } in items {
            let here = self.place(line, column);
            let nameless =
                || wrong_shape(here.clone(), "each item of this list needs a `name`", path);
            let Node::Map(mut entries) = node else { return Err(nameless()) };
            let at = entries.iter().position(|(field, ..)| field == "name").ok_or_else(nameless)?;
            let (_, line, column, value) = entries.remove(at);
            let Node::Scalar(name) = value.node else { return Err(nameless()) };
            let name = (name, self.place(line, column));
            let section = Yaml { line, column, node: Node::Map(entries) };
            self.entry(&mut branch, kind, path, name, section)?;
        }
        Ok(Item::Branch(branch))
    }

    fn entry(
        &self,
        branch: &mut Branch,
        kind: Kind,
        path: &mut Vec<String>,
        (spelled, key): (String, Place),
        value: Yaml,
    ) -> Result<(), ConfigError> {
        let in_map = matches!(kind, Kind::Map(_));
        let (name, kind) = child(kind, &spelled, path, &key)?;
        path.push(name.clone());
        let item = match (self.item(value, kind, path, &key)?, kind) {
            (None, Kind::Section(_)) if in_map => Some(Item::Branch(Branch::new(key))),
            (None, _) if in_map => return Err(no_value(key, path, &spelled)),
            (item, _) => item,
        };
        if let Some(item) = item {
            branch.insert(&name, &spelled, item, path)?;
        }
        path.pop();
        Ok(())
    }

    fn leaf(&self, raw: &str, place: Place, path: &[String]) -> Result<Leaf, ConfigError> {
        match interpolate::fill(raw, self.vars) {
            Ok(filled) => Ok(Leaf {
                text: filled.text,
                tainted: filled.tainted,
                missing: filled.missing,
                place,
            }),
            Err(message) => Err(ConfigError::new(place, message).about(schema::dotted(path))),
        }
    }
}

/// The items of a list that was written as one text with commas.
fn split(leaf: &Leaf) -> Item {
    let parts = leaf.text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let one = |text: &str| Leaf { text: text.to_owned(), ..leaf.clone() };
    // A reference without a value is an item, so that its error is not lost with it.
    let items: Vec<Leaf> = match leaf.missing {
        Some(_) => vec![leaf.clone()],
        None => parts.map(one).collect(),
    };
    Item::List(items, leaf.place.clone())
}

/// The canonical name and the kind of a key; an error for one that the table lacks.
fn child(
    kind: Kind,
    spelled: &str,
    path: &[String],
    key: &Place,
) -> Result<(String, Kind), ConfigError> {
    match kind {
        Kind::Section(fields) => {
            if let Some(field) = schema::find(fields, spelled) {
                return Ok((field.name.to_owned(), field.kind));
            }
            let name = name_alone(spelled);
            let setting = schema::dotted(&[path, &[name.to_owned()]].concat());
            let advice = if name.len() < spelled.len() {
                "; write `name: value`, with a space after the `:`".to_owned()
            } else {
                schema::advice(spelled, fields)
            };
            let message = format!("unknown setting `{setting}`{advice}");
            Err(ConfigError::new(key.clone(), message).about(setting))
        }
        Kind::Map(inner) => Ok((spelled.to_owned(), *inner)),
        Kind::Leaf(_) | Kind::Number(..) | Kind::List(_) => {
            Err(wrong_shape(key.clone(), "this setting has no settings of its own", path))
        }
    }
}

/// What stands before the first `:` or `=`: after it may be a secret that lacks its space.
pub(super) fn name_alone(key: &str) -> &str {
    key.split([':', '=']).next().unwrap_or_default().trim_end()
}

fn no_value(key: Place, path: &[String], spelled: &str) -> ConfigError {
    let mut path = path.to_vec();
    path.pop();
    path.push(name_alone(spelled).to_owned());
    wrong_shape(key, "a value is missing here; write `name: value`, with a space", &path)
}

fn wrong_shape(place: Place, message: &str, path: &[String]) -> ConfigError {
    ConfigError::new(place, message).about(schema::dotted(path))
}

fn not_a_section(place: Place, fields: &'static [schema::Field], path: &[String]) -> ConfigError {
    let names = fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
    if path.is_empty() {
        return ConfigError::new(place, "the file must begin with `cache:` and settings below it");
    }
    let message = format!("this is a section; write its settings below it (valid: {names})");
    wrong_shape(place, &message, path)
}

const PREFIX: &str = "LARDER_";

/// Reads the variables whose names hold settings; the others are not ours or not settings.
pub(super) fn from_env(vars: &Vars, below: &Layers) -> Result<Branch, ConfigError> {
    let mut root = Branch::new(Place::Nowhere);
    for (variable, text) in vars {
        let upper = variable.to_ascii_uppercase();
        let Some(name) = upper.strip_prefix(PREFIX).filter(|name| name.contains("__")) else {
            continue;
        };
        let place = Place::Env { variable: variable.clone() };
        let lower = name.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split("__").collect();
        add(&mut root, &parts, text, &place, below)?;
    }
    Ok(root)
}

/// Reads settings given by dotted name; of two for one name the later counts.
pub(super) fn from_code(set: &[(String, String)], below: &Layers) -> Result<Branch, ConfigError> {
    let mut root = Branch::new(Place::Code);
    for (position, (path, text)) in set.iter().enumerate() {
        if set[position + 1..].iter().all(|(later, _)| later != path) {
            let parts: Vec<&str> = path.split('.').collect();
            add(&mut root, &parts, text, &Place::Code, below)?;
        }
    }
    Ok(root)
}

fn add(
    root: &mut Branch,
    parts: &[&str],
    text: &str,
    place: &Place,
    below: &Layers,
) -> Result<(), ConfigError> {
    let mut kind = schema::ROOT;
    let mut path = Vec::new();
    let mut spelled = Vec::new();
    for part in parts {
        let next = match kind {
            Kind::Section(fields) => {
                schema::find(fields, part).map(|field| (field.name, field.kind))
            }
            Kind::Map(inner) if !part.is_empty() => Some((*part, *inner)),
            _ => None,
        };
        let (name, inner) = next.ok_or_else(|| unknown(parts, place))?;
        // Only a variable has lost its case; code says what it means.
        let known = match (kind, place) {
            (Kind::Map(_), Place::Env { .. }) => spelling(below, &path, name),
            _ => None,
        };
        path.push(known.unwrap_or_else(|| name.to_owned()));
        spelled.push(*part);
        kind = inner;
    }
    if let Kind::Section(_) | Kind::Map(_) = kind {
        return Err(names_a_section(&path, place));
    }
    let leaf = Leaf { text: text.to_owned(), tainted: false, missing: None, place: place.clone() };
    let item = if let Kind::List(_) = kind { split(&leaf) } else { Item::Leaf(leaf) };
    insert(root, &path, &spelled, item, place)
}

/// A name of a map as an earlier layer spells it, there or in the other map of sources.
fn spelling(below: &Layers, map: &[String], name: &str) -> Option<String> {
    const BY_SOURCE: [[&str; 2]; 2] = [["cache", "sources"], ["cache", "ttl_policies"]];
    let others = if BY_SOURCE.iter().any(|by| by == map) { &BY_SOURCE[..] } else { &[] };
    let own = below.spelling(map, name);
    own.or_else(|| others.iter().find_map(|map| below.spelling(map, name))).map(str::to_owned)
}

/// Walks down, making branches; the table has made sure that none of them is a leaf.
fn insert(
    root: &mut Branch,
    path: &[String],
    spelled: &[&str],
    item: Item,
    place: &Place,
) -> Result<(), ConfigError> {
    let mut branch = root;
    let last = path.len().saturating_sub(1);
    for (name, part) in path[..last].iter().zip(spelled) {
        let entry = branch.items.entry(name.clone());
        let made = || ((*part).to_owned(), Item::Branch(Branch::new(place.clone())));
        match entry.or_insert_with(made) {
            (_, Item::Branch(inner)) => branch = inner,
            _ => return Ok(()),
        }
    }
    branch.insert(&path[last], spelled[last], item, path)
}

fn names_a_section(path: &[String], place: &Place) -> ConfigError {
    let mut inside = Vec::new();
    let owned: Vec<&str> = path.iter().map(String::as_str).collect();
    if let Some(kind) = schema::kind_at(path) {
        schema::leaves(kind, &mut Vec::new(), &mut |rest| {
            inside.push(spell(&[owned.as_slice(), rest].concat(), place));
        });
    }
    inside.truncate(3);
    let message = format!("this is a section; set a setting in it, such as {}", inside.join(", "));
    ConfigError::new(place.clone(), message).about(schema::dotted(path))
}

fn unknown(parts: &[&str], place: &Place) -> ConfigError {
    let setting = schema::dotted(parts);
    let advice = match respaced(parts).or_else(|| corrected(parts)).or_else(|| most_alike(parts)) {
        Some(parts) => {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            format!("did you mean `{}`?", spell(&parts, place))
        }
        None => {
            format!("settings are named like `{}`", spell(&["cache", "memory", "size_mb"], place))
        }
    };
    let message = format!("unknown setting `{setting}`; {advice}");
    ConfigError::new(place.clone(), message).about(setting)
}

/// The path with each unknown part replaced by the nearest one in its section, if that is a leaf.
fn corrected(parts: &[&str]) -> Option<Vec<String>> {
    let mut kind = schema::ROOT;
    let mut path = Vec::new();
    for part in parts {
        let (name, inner) = match kind {
            Kind::Section(fields) => {
                let field = schema::find(fields, part).or_else(|| schema::nearest(part, fields))?;
                (field.name, field.kind)
            }
            Kind::Map(inner) if !part.is_empty() => (*part, *inner),
            _ => return None,
        };
        path.push(name.to_owned());
        kind = inner;
    }
    matches!(kind, Kind::Leaf(_) | Kind::Number(..) | Kind::List(_)).then_some(path)
}

/// The leaf that is named by the same letters, if only separators went wrong.
fn respaced(parts: &[&str]) -> Option<Vec<String>> {
    let letters = |parts: &[&str]| parts.concat().replace('_', "");
    let given = letters(parts);
    let mut found = None;
    schema::leaves(schema::ROOT, &mut Vec::new(), &mut |path| {
        if letters(path) == given {
            found = Some(path.iter().map(|&part| part.to_owned()).collect());
        }
    });
    found
}

/// The leaf whose whole name is most like the given one.
fn most_alike(parts: &[&str]) -> Option<Vec<String>> {
    let given = parts.join("__");
    let mut best = (0.7, None);
    schema::leaves(schema::ROOT, &mut Vec::new(), &mut |path| {
        let score = strsim::normalized_levenshtein(&given, &path.join("__"));
        if score > best.0 && !path.contains(&"*") {
            best = (score, Some(path.iter().map(|&part| part.to_owned()).collect()));
        }
    });
    best.1
}

/// A path in the way the layer writes it.
fn spell(parts: &[&str], place: &Place) -> String {
    match place {
        Place::Env { .. } => {
            let name = parts.join("__").to_ascii_uppercase();
            format!("{PREFIX}{}", schema::dotted(&[name]))
        }
        _ => schema::dotted(parts),
    }
}
