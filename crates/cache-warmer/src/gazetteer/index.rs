//! Which names and slugs the markets of a gazetteer go by.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    market::Market,
    names::{canonical, fold},
};

/// Markets that share city and state take the slugs of their titles; the code settles what is left.
pub(super) fn make_slugs_unique(markets: &mut [Market]) {
    let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
    for market in markets.iter() {
        *wanted.entry(market.slug().to_owned()).or_default() += 1;
    }
    // What only one market wants is its own: no other market's title may take it away.
    wanted.retain(|_, count| *count == 1);
    let mut taken: BTreeSet<String> = wanted.keys().cloned().collect();
    for market in markets {
        if wanted.contains_key(market.slug()) {
            continue;
        }
        let mut slug = fold(market.title());
        if taken.contains(&slug) {
            slug = format!("{slug}-{}", market.cbsa());
        }
        taken.insert(slug.clone());
        market.set_slug(slug);
    }
}

/// How directly a name means a market; the first variant wins where markets share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// Its title or slug.
    Exact,
    /// The city it is named after.
    Anchor,
    /// Another of its cities.
    Principal,
}

/// Maps every name a market goes by, in canonical form, to the market's place.
pub(super) fn names(markets: &[Market]) -> BTreeMap<String, usize> {
    let mut claims = BTreeMap::new();
    for (place, market) in markets.iter().enumerate() {
        let size = Reverse(market.anchor_population().unwrap_or(0));
        let mut claim = |name: &str, claim: Claim| {
            let claim = (claim, size, place);
            claims
                .entry(canonical(name))
                .and_modify(|best| *best = claim.min(*best))
                .or_insert(claim);
        };
        claim(market.title(), Claim::Exact);
        claim(market.slug(), Claim::Exact);
        let joined = market.title().rsplit_once(", ").map_or("", |(cities, _)| cities);
        let others = market.cities().iter().skip(1).map(|city| (city.as_str(), Claim::Principal));
        let anchors =
            [market.city(), market.anchor_city(), joined].map(|city| (city, Claim::Anchor));
        for (city, kind) in anchors.into_iter().chain(others) {
            for state in market.states() {
                claim(&format!("{city}, {state}"), kind);
            }
        }
    }
    claims.into_iter().map(|(name, (_, _, place))| (name, place)).collect()
}

#[cfg(test)]
mod tests {
    use crate::Gazetteer;

    /// A gazetteer of `(code, title, population)`, all in one place.
    fn gazetteer(markets: &[(u32, &str, u64)]) -> Gazetteer {
        let header = "cbsa,title,kind,lat,lon,anchor_city,anchor_pop\n".to_owned();
        let file = markets.iter().fold(header, |file, (cbsa, title, population)| {
            let anchor = title.split(['-', ',']).next().unwrap();
            format!("{file}{cbsa},\"{title}\",Micro,40,-100,{anchor},{population}\n")
        });
        Gazetteer::from_csv(file.as_bytes()).expect("sound markets")
    }

    #[test]
    fn of_two_equal_claims_the_larger_market_wins() {
        let two = gazetteer(&[(10_001, "Alpha-Twin, CO", 5), (10_002, "Beta-Twin, CO", 6)]);
        assert_eq!(two.resolve("Twin, CO").unwrap().cbsa(), 10_002);
    }

    #[test]
    fn colliding_slugs_take_the_longer_form_then_the_code() {
        let slugs = |markets: &[(u32, &str, u64)]| -> Vec<String> {
            gazetteer(markets).markets().iter().map(|m| m.slug().to_owned()).collect()
        };
        assert_eq!(
            slugs(&[(10_001, "Twin, CO", 1), (10_002, "Twin-Falls, CO", 1)]),
            ["twin-co", "twin-falls-co"]
        );
        assert_eq!(
            slugs(&[(10_001, "Twin, CO", 1), (10_002, "Twin, CO", 1)]),
            ["twin-co", "twin-co-10002"]
        );
        assert_eq!(
            slugs(&[
                (10_001, "Twin-Falls, CO", 1),
                (10_002, "Twin, CO", 1),
                (10_003, "Twin Falls, CO", 1),
            ]),
            ["twin-falls-co-10001", "twin-co", "twin-falls-co"],
            "a title never takes the short slug of another market"
        );
    }
}
