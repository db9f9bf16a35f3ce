//! Which requests one batch answers.

use std::collections::{BTreeSet, HashMap};

use cache_core::Request;

use super::Batcher;

/// What requests of one batch have in common: the source, the other parameters, and what else the
/// URL is made of.
type Common<'r> = (&'r str, Vec<(&'r str, &'r str)>, Vec<Option<&'r str>>);

/// The batches of requests that have the same in common.
#[derive(Default)]
struct Kin<'r> {
    /// The group of each member so far.
    groups: HashMap<&'r str, usize>,
    /// The group that is filled now, and its members.
    open: Option<(usize, usize)>,
}

impl Batcher {
    /// The places of requests that are asked for together, in order of first appearance: at most
    /// `max` members in a group, and all requests for a member in the same one. `names` are those
    /// that the URL and the body need.
    pub(super) fn groups<'r>(
        &self,
        names: &BTreeSet<String>,
        requests: impl Iterator<Item = &'r Request>,
    ) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut kin: HashMap<Common<'r>, Kin<'r>> = HashMap::new();
        for (place, request) in requests.enumerate() {
            let Some(member) = self.member_of(request) else {
                groups.push(vec![place]);
                continue;
            };
            let kin = kin.entry(self.common(names, request)).or_default();
            let next = groups.len();
            let at = *kin.groups.entry(member).or_insert_with(|| {
                let (at, members) = match kin.open {
                    Some((at, members)) if members < self.batch.max => (at, members + 1),
                    _ => (next, 1),
                };
                kin.open = Some((at, members));
                at
            });
            match groups.get_mut(at) {
                Some(group) => group.push(place),
                None => groups.push(vec![place]),
            }
        }
        groups
    }

    fn common<'r>(&self, names: &BTreeSet<String>, request: &'r Request) -> Common<'r> {
        let param = &self.batch.param;
        let params = request.params().iter().filter(|(name, _)| *name != param);
        let params = params.map(|(name, value)| (&**name, &**value)).collect();
        // Some may come from the context.
        let values = names.iter().filter(|name| *name != param);
        (request.source(), params, values.map(|name| request.value(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batch;

    fn groups(max: usize, requests: &[Request]) -> Vec<Vec<usize>> {
        let batcher = Batcher::new(Batch::new("cbsa", max, "", "cbsa")).unwrap();
        let names = ["cbsa", "state"].map(str::to_owned).into();
        batcher.groups(&names, requests.iter())
    }

    fn market(cbsa: &str) -> Request {
        Request::new("census").param("cbsa", cbsa)
    }

    #[test]
    fn groups_hold_at_most_max_members_in_order_of_appearance() {
        let requests = ["1", "2", "3", "4", "5"].map(market);
        assert_eq!(groups(2, &requests), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(groups(5, &requests), [[0, 1, 2, 3, 4]]);
        assert_eq!(groups(2, &[]), [[0; 0]; 0]);
    }

    #[test]
    fn duplicates_share_the_group_of_their_member_even_a_full_one() {
        let requests = ["1", "1", "2", "3", "1", "01", "3"].map(market);
        assert_eq!(groups(2, &requests), [vec![0, 1, 2, 4], vec![3, 5, 6]]);
    }

    #[test]
    fn requests_that_differ_in_anything_else_are_apart() {
        let requests = [
            market("1"),
            market("1").param("year", 2022),
            market("2"),
            market("2").param("year", 2022),
            market("3").param("year", 2023),
            Request::new("other").param("cbsa", 4),
        ];
        assert_eq!(groups(9, &requests), [vec![0, 2], vec![1, 3], vec![4], vec![5]]);
    }

    #[test]
    fn context_counts_where_the_url_is_made_of_it() {
        let requests = [
            market("1").context("state", "CO").context("name", "Boulder"),
            market("2").context("state", "CO").context("name", "Denver"),
            market("3").context("state", "WY"),
        ];
        assert_eq!(groups(9, &requests), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn what_is_not_one_member_goes_alone() {
        let requests = [
            market("1"),
            market(""),
            market("2,3"),
            Request::new("census"),
            Request::new("census").context("cbsa", 4),
            market("5"),
        ];
        assert_eq!(groups(9, &requests), [vec![0, 5], vec![1], vec![2], vec![3], vec![4]]);
    }
}
