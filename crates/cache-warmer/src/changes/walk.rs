//! Walking through two documents at once.

use std::borrow::Cow;

use super::{
    compare::{Delta, MAX_DELTAS},
    node::Node,
    rule::{ChangeRule, Place, Scope},
    text,
};

type Member<'d> = (Cow<'d, str>, Node<'d>);

/// Finds differences, and counts them all.
#[derive(Debug, Default)]
pub(super) struct Walk<'d> {
    path: Vec<Place<'d>>,
    deltas: Vec<Delta>,
    changed: u64,
}

impl<'d> Walk<'d> {
    /// How many differences there are, and the first of them.
    pub(super) fn over(
        old: &'d Node<'d>,
        new: &'d Node<'d>,
        rule: &ChangeRule,
    ) -> (u64, Vec<Delta>) {
        let mut walk = Self::default();
        walk.part(Some(old), Some(new), &rule.root());
        (walk.changed, walk.deltas)
    }

    fn part(&mut self, old: Option<&'d Node<'d>>, new: Option<&'d Node<'d>>, scope: &Scope<'_>) {
        match (old, new) {
            (Some(Node::Array(old)), Some(Node::Array(new))) => {
                for at in 0..old.len().max(new.len()) {
                    self.step(Place::Item(at), old.get(at), new.get(at), scope);
                }
            }
            (Some(Node::Object(old)), Some(Node::Object(new))) => {
                let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
                // Both are sorted.
                while let Some(name) = first_name(old.peek(), new.peek()) {
                    let old = old.next_if(|(it, _)| it == name).map(|(_, member)| member);
                    let new = new.next_if(|(it, _)| it == name).map(|(_, member)| member);
                    self.step(Place::Member(name), old, new, scope);
                }
            }
            _ if scope.is_whole() => {
                if old != new {
                    self.note(old, new, scope);
                }
            }
            // Only what is below counts, and nothing below one is at a place below the other.
            _ => {
                if let Some(old) = old {
                    old.each(scope, |at, part, scope| self.enter(at, Some(part), None, scope));
                }
                if let Some(new) = new {
                    new.each(scope, |at, part, scope| self.enter(at, None, Some(part), scope));
                }
            }
        }
    }

    fn step(
        &mut self,
        to: Place<'d>,
        old: Option<&'d Node<'d>>,
        new: Option<&'d Node<'d>>,
        scope: &Scope<'_>,
    ) {
        if let Some(scope) = scope.below(to) {
            self.enter(to, old, new, &scope);
        }
    }

    fn enter(
        &mut self,
        to: Place<'d>,
        old: Option<&'d Node<'d>>,
        new: Option<&'d Node<'d>>,
        scope: &Scope<'_>,
    ) {
        self.path.push(to);
        self.part(old, new, scope);
        self.path.pop();
    }

    fn note(&mut self, old: Option<&Node<'_>>, new: Option<&Node<'_>>, scope: &Scope<'_>) {
        self.changed += 1;
        if self.deltas.len() < MAX_DELTAS {
            let text = |part: Option<&Node<'_>>| part.map(|part| text::of(part, scope));
            let pointer = text::pointer(&self.path);
            self.deltas.push(Delta { pointer, old: text(old), new: text(new) });
        }
    }
}

/// The first name in order of those that come next.
fn first_name<'d>(old: Option<&&'d Member<'d>>, new: Option<&&'d Member<'d>>) -> Option<&'d str> {
    let names = old.into_iter().chain(new).map(|(name, _)| name.as_ref());
    names.min()
}
