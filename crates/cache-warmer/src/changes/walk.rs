//! Walking through two documents at once.

use serde_json::{Map, Value};

use super::{
    compare::{Delta, MAX_DELTAS},
    content_hash::Numeric,
    rule::{ChangeRule, Place, Scope},
    text,
};

/// Finds differences, and counts them all.
#[derive(Debug, Default)]
pub(super) struct Walk<'d> {
    path: Vec<Place<'d>>,
    deltas: Vec<Delta>,
    changed: u64,
}

impl<'d> Walk<'d> {
    /// How many differences there are, and the first of them.
    pub(super) fn over(old: &'d Value, new: &'d Value, rule: &ChangeRule) -> (u64, Vec<Delta>) {
        let mut walk = Self::default();
        walk.value(Some(old), Some(new), &rule.root());
        (walk.changed, walk.deltas)
    }

    fn value(&mut self, old: Option<&'d Value>, new: Option<&'d Value>, scope: &Scope<'_>) {
        match (old, new) {
            (Some(Value::Array(old)), Some(Value::Array(new))) => self.items(old, new, scope),
            (Some(Value::Object(old)), Some(Value::Object(new))) => self.members(old, new, scope),
            _ if scope.is_whole() => {
                if !is_same(old, new) {
                    self.note(old, new, scope);
                }
            }
            // Only what is below counts, and nothing below one is at a place below the other.
            _ => {
                self.below(old, scope, |walk, part, scope| walk.value(Some(part), None, scope));
                self.below(new, scope, |walk, part, scope| walk.value(None, Some(part), scope));
            }
        }
    }

    fn items(&mut self, old: &'d [Value], new: &'d [Value], scope: &Scope<'_>) {
        for at in 0..old.len().max(new.len()) {
            self.step(Place::Item(at), scope, |walk, scope| {
                walk.value(old.get(at), new.get(at), scope);
            });
        }
    }

    fn members(
        &mut self,
        old: &'d Map<String, Value>,
        new: &'d Map<String, Value>,
        scope: &Scope<'_>,
    ) {
        // A map may be in the order of the document.
        let mut names: Vec<_> = old.keys().chain(new.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.step(Place::Member(name), scope, |walk, scope| {
                walk.value(old.get(name), new.get(name), scope);
            });
        }
    }

    /// Visits what is below one document and not the other.
    fn below(
        &mut self,
        value: Option<&'d Value>,
        scope: &Scope<'_>,
        visit: impl Fn(&mut Self, &'d Value, &Scope<'_>),
    ) {
        match value {
            Some(Value::Array(items)) => {
                for (at, item) in items.iter().enumerate() {
                    self.step(Place::Item(at), scope, |walk, scope| visit(walk, item, scope));
                }
            }
            Some(Value::Object(members)) => {
                for (name, member) in sorted(members) {
                    self.step(Place::Member(name), scope, |walk, scope| visit(walk, member, scope));
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, to: Place<'d>, scope: &Scope<'_>, go: impl FnOnce(&mut Self, &Scope<'_>)) {
        if let Some(scope) = scope.below(to) {
            self.path.push(to);
            go(self, &scope);
            self.path.pop();
        }
    }

    fn note(&mut self, old: Option<&Value>, new: Option<&Value>, scope: &Scope<'_>) {
        self.changed += 1;
        if self.deltas.len() < MAX_DELTAS {
            let text = |value: Option<&Value>| value.map(|value| text::of(value, scope));
            let pointer = text::pointer(&self.path);
            self.deltas.push(Delta { pointer, old: text(old), new: text(new) });
        }
    }
}

/// Whether two parts that are not both arrays or both objects are the same.
fn is_same(old: Option<&Value>, new: Option<&Value>) -> bool {
    match (old, new) {
        (Some(Value::Number(old)), Some(Value::Number(new))) => {
            Numeric::of(old) == Numeric::of(new)
        }
        (old, new) => old == new,
    }
}

/// The members by name.
pub(super) fn sorted(members: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut sorted: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value)).collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    sorted
}
