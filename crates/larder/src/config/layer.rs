//! One layer of settings: a tree of text under canonical names, each with its place.

use std::collections::{BTreeMap, btree_map::Entry};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{
    error::ConfigError,
    interpolate::Missing,
    place::Place,
    schema::{self, Kind, Mark},
};

/// A part of a layer.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Leaf(Leaf),
    List(Vec<Leaf>, Place),
    Branch(Branch),
}

/// One scalar.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) text: String,
    /// Whether the value of a variable is in the text.
    pub(super) tainted: bool,
    pub(super) missing: Option<Missing>,
    pub(super) place: Place,
}

/// A section or a map, with the place of its key.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) place: Place,
    /// By canonical name, with the spelling the layer used.
    pub(super) items: BTreeMap<String, (String, Item)>,
}

impl Branch {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, items: BTreeMap::new() }
    }

    /// Adds an item, unless the layer has it already.
    pub(super) fn insert(
        &mut self,
        name: &str,
        spelled: &str,
        item: Item,
        path: &[String],
    ) -> Result<(), ConfigError> {
        match self.items.entry(name.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert((spelled.to_owned(), item));
                Ok(())
            }
            Entry::Occupied(entry) => Err(twice(path, &entry.get().0, spelled, item.place())),
        }
    }
}

fn twice(path: &[String], first: &str, second: &str, place: &Place) -> ConfigError {
    let setting = schema::dotted(path);
    let message = if first == second {
        format!("`{setting}` is given twice; keep one of them")
    } else {
        let (first, second) = (schema::dotted(&[first]), schema::dotted(&[second]));
        format!(
            "`{first}` and `{second}` are two names of one switch, `{setting}`; keep one of them"
        )
    };
    ConfigError::new(place.clone(), message).about(setting)
}

impl Item {
    pub(super) fn place(&self) -> &Place {
        match self {
            Self::Leaf(leaf) => &leaf.place,
            Self::List(_, place) => place,
            Self::Branch(branch) => &branch.place,
        }
    }

    /// The scalars in this item, itself or in its list.
    pub(super) fn leaves(&self) -> &[Leaf] {
        match self {
            Self::Leaf(leaf) => std::slice::from_ref(leaf),
            Self::List(leaves, _) => leaves,
            Self::Branch(_) => &[],
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Leaf(leaf) => Value::from(leaf.text.clone()),
            Self::List(leaves, _) => {
                Value::from(leaves.iter().map(|leaf| leaf.text.clone()).collect::<Vec<_>>())
            }
            Self::Branch(branch) => Value::from(branch.to_dict()),
        }
    }
}

impl Branch {
    fn to_dict(&self) -> Dict {
        self.items.iter().map(|(name, (_, item))| (name.clone(), item.to_value())).collect()
    }

    pub(super) fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Item> {
        let (first, rest) = path.split_first()?;
        let (_, item) = self.items.get(first.as_ref())?;
        match item {
            _ if rest.is_empty() => Some(item),
            Item::Branch(branch) => branch.get(rest),
            _ => None,
        }
    }

    pub(super) fn remove<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.items.remove(first.as_ref());
        } else if let Some((_, Item::Branch(branch))) = self.items.get_mut(first.as_ref()) {
            branch.remove(rest);
        }
    }

    /// Calls `visit` with each leaf and list and its path.
    pub(super) fn visit(&self, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Item)) {
        for (name, (_, item)) in &self.items {
            path.push(name.clone());
            match item {
                Item::Branch(branch) => branch.visit(path, visit),
                _ => visit(path, item),
            }
            path.pop();
        }
    }
}

/// All layers, the weakest first.
#[derive(Debug, Default)]
pub(super) struct Layers(pub(super) Vec<Branch>);

impl Layers {
    /// The item of the strongest layer that has one at the path.
    pub(super) fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Item> {
        self.0.iter().rev().find_map(|layer| layer.get(path))
    }

    /// A name of a map as an earlier layer spells it: a variable's name has lost its case.
    pub(super) fn spelling<S: AsRef<str>>(&self, map: &[S], name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|layer| match layer.get(map)? {
            Item::Branch(branch) => {
                branch.items.keys().find(|key| key.eq_ignore_ascii_case(name)).map(String::as_str)
            }
            _ => None,
        })
    }

    /// The text of the item at the path, if it may be repeated in an error.
    pub(super) fn shown(&self, path: &[String]) -> Option<String> {
        if let Some(Kind::Leaf(mark) | Kind::Number(mark, ..)) = schema::kind_at(path)
            && matches!(mark, Mark::Secret | Mark::Url)
        {
            return None;
        }
        match self.list_item(path) {
            Some(leaf) => joined(std::slice::from_ref(leaf)),
            None => joined(self.get(path)?.leaves()),
        }
    }

    /// The leaf of a list whose index ends the path.
    fn list_item(&self, path: &[String]) -> Option<&Leaf> {
        let (index, list) = path.split_last()?;
        match self.get(list)? {
            Item::List(leaves, _) => leaves.get(index.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The place of the item at the path, or of the longest part of the path that any layer has.
    pub(super) fn place(&self, path: &[String]) -> Place {
        if let Some(leaf) = self.list_item(path) {
            return leaf.place.clone();
        }
        let known = (1..=path.len()).rev().find_map(|len| self.get(&path[..len]));
        known.map_or(Place::Nowhere, |item| item.place().clone())
    }
}

fn joined(leaves: &[Leaf]) -> Option<String> {
    if leaves.iter().any(|leaf| leaf.tainted) || leaves.is_empty() {
        return None;
    }
    Some(leaves.iter().map(|leaf| leaf.text.as_str()).collect::<Vec<_>>().join(", "))
}

impl Provider for Branch {
    fn metadata(&self) -> Metadata {
        Metadata::named("settings")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.to_dict()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer with one setting.
    fn with(path: &[&str], tainted: bool) -> Layers {
        let (last, sections) = path.split_last().expect("a path");
        let place = Place::Code;
        let leaf = Leaf { text: "text".into(), tainted, missing: None, place: place.clone() };
        let around = |item, name: &str| {
            let items = [(name.to_owned(), (name.to_owned(), item))].into();
            Branch { place: place.clone(), items }
        };
        let inner = around(Item::Leaf(leaf), last);
        let root = sections.iter().rev().fold(inner, |it, name| around(Item::Branch(it), name));
        Layers(vec![root])
    }

    #[test]
    fn errors_repeat_no_text_that_may_be_secret() {
        for (path, shown) in [
            (vec!["cache", "redis", "host"], true),
            (vec!["cache", "redis", "password"], false),
            (vec!["cache", "sources", "a", "url"], false),
            (vec!["cache", "sources", "a", "params", "p"], false),
            (vec!["cache", "sources", "a", "query", "q"], false),
            (vec!["cache", "sources", "a", "headers", "h"], false),
        ] {
            let owned: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
            assert_eq!(with(&path, false).shown(&owned).is_some(), shown, "{path:?}");
            assert_eq!(with(&path, true).shown(&owned), None, "{path:?} from a variable");
        }
    }
}
