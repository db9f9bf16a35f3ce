//! Every effective setting with the layer it came from, and what is worth a warning.

use std::fmt;

use serde_json::Value;

use super::{
    layer::Layers,
    place::{Place, Provenance},
    schema::{self, Kind, Mark},
    values::MASK,
};

/// One leaf of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its dotted name, such as `cache.memory.size_mb`.
    pub path: String,
    /// Its value; `***` for a secret and for what came from `${VAR}`, `null` for none.
    pub value: String,
    /// The layer that gave it.
    pub from: Provenance,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({})", self.path, self.value, self.from)
    }
}

/// Something that was accepted and should still be known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The dotted name of the setting.
    pub setting: String,
    /// What is to be known about it.
    pub message: String,
    /// Where it was written.
    pub from: Provenance,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.from, self.setting, self.message)
    }
}

/// `config` is the effective configuration as JSON, in which secrets are masked already.
pub(super) fn settings(config: &Value, layers: &Layers) -> Vec<Setting> {
    let mut found = Vec::new();
    collect(schema::CACHE, config, layers, &mut vec!["cache".to_owned()], &mut found);
    found
}

fn collect(
    kind: Kind,
    value: &Value,
    layers: &Layers,
    path: &mut Vec<String>,
    found: &mut Vec<Setting>,
) {
    match (kind, value) {
        (Kind::Section(fields), Value::Object(map)) => {
            for field in fields {
                path.push(field.name.to_owned());
                let value = map.get(field.name).unwrap_or(&Value::Null);
                collect(field.kind, value, layers, path, found);
                path.pop();
            }
        }
        (Kind::Map(inner), Value::Object(map)) => {
            for (name, value) in map {
                path.push(name.clone());
                collect(*inner, value, layers, path, found);
                path.pop();
            }
        }
        _ => {
            let item = layers.get(path);
            let tainted = item.is_some_and(|item| item.leaves().iter().any(|leaf| leaf.tainted));
            found.push(Setting {
                path: schema::dotted(path),
                value: if tainted { MASK.to_owned() } else { shown(value) },
                from: item.map_or(&Place::Nowhere, |item| item.place()).into(),
            });
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Number(number) => {
            number.as_f64().map_or_else(|| number.to_string(), |n| n.to_string())
        }
        other => other.to_string(),
    }
}

/// Settings that were given although nothing reads them.
pub(super) fn warnings(layers: &Layers) -> Vec<Warning> {
    let mut found = Vec::new();
    schema::leaves(schema::ROOT, &mut Vec::new(), &mut |path| {
        let Some(Kind::Leaf(Mark::Unused) | Kind::Number(Mark::Unused, ..)) = schema::kind_at(path)
        else {
            return;
        };
        if let Some(item) = layers.get(path) {
            found.push(Warning {
                setting: schema::dotted(path),
                message: "accepted, not used yet by this version".to_owned(),
                from: item.place().into(),
            });
        }
    });
    found
}
