//! How a place's name is split, compared and shown.

use std::fmt;

use larder::Escaped;

/// Postal codes of the states, the District of Columbia and Puerto Rico.
const STATES: [&str; 52] = [
    "ak", "al", "ar", "az", "ca", "co", "ct", "dc", "de", "fl", "ga", "hi", "ia", "id", "il", "in",
    "ks", "ky", "la", "ma", "md", "me", "mi", "mn", "mo", "ms", "mt", "nc", "nd", "ne", "nh", "nj",
    "nm", "nv", "ny", "oh", "ok", "or", "pa", "pr", "ri", "sc", "sd", "tn", "tx", "ut", "va", "vt",
    "wa", "wi", "wv", "wy",
];

/// The parts of a title such as `Denver-Aurora-Lakewood, CO`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TitleParts<'t> {
    /// The cities as the title joins them.
    pub(crate) joined: &'t str,
    /// The principal cities; the first names the area.
    pub(crate) cities: Vec<&'t str>,
    /// State codes, in the title's order.
    pub(crate) states: Vec<&'t str>,
}

/// Splits `title`; `None` if it is not `cities, states`.
///
/// `anchor` decides whether a hyphen belongs to the first city: `Winston-Salem, NC` is one city,
/// and the title alone does not say so.
pub(crate) fn split_title<'t>(title: &'t str, anchor: &str) -> Option<TitleParts<'t>> {
    let (joined, states) = title.rsplit_once(", ")?;
    let states: Vec<&str> = states.split('-').collect();
    let two_letters = |code: &&str| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
    if !states.iter().all(two_letters) {
        return None;
    }
    let ends_a_city = |rest: &str| rest.is_empty() || rest.starts_with(['-', '/']);
    let first_len = match joined.strip_prefix(anchor) {
        Some(rest) if !anchor.is_empty() && ends_a_city(rest) => anchor.len(),
        _ => joined.find(['-', '/']).unwrap_or(joined.len()),
    };
    let (first, rest) = joined.split_at_checked(first_len)?;
    // A double hyphen separates cities where one of them is itself hyphenated.
    let separator = if joined.contains("--") { "--" } else { "-" };
    let others = rest.split(separator).map(|city| city.trim_matches(['-', '/']));
    let cities: Vec<&str> =
        [first].into_iter().chain(others.filter(|city| !city.is_empty())).collect();
    (!first.is_empty()).then_some(TitleParts { joined, cities, states })
}

/// Lower case, no accents, words joined by single hyphens: the form of a slug.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars().flat_map(char::to_lowercase) {
        let c = match c {
            '\'' | '`' | '.' | '\u{2bb}' | '\u{2018}' | '\u{2019}' | '\u{300}'..='\u{36f}' => {
                continue;
            }
            'á' | 'à' | 'â' | 'ä' | 'ã' | 'ā' => 'a',
            'é' | 'è' | 'ê' | 'ë' | 'ē' => 'e',
            'í' | 'ì' | 'î' | 'ï' | 'ī' => 'i',
            'ó' | 'ò' | 'ô' | 'ö' | 'õ' | 'ō' => 'o',
            'ú' | 'ù' | 'û' | 'ü' | 'ū' => 'u',
            'ñ' => 'n',
            'ç' => 'c',
            c if c.is_alphanumeric() => c,
            _ => {
                gap = true;
                continue;
            }
        };
        if gap && !folded.is_empty() {
            folded.push('-');
        }
        gap = false;
        folded.push(c);
    }
    folded
}

/// The form in which names are compared: folded, with the usual abbreviations written out.
pub(crate) fn canonical(text: &str) -> String {
    let folded = fold(text);
    let mut words: Vec<&str> = folded.split('-').collect();
    // Only words of the city: as a state, MT is Montana.
    let city_len = words.iter().rposition(|word| !STATES.contains(word)).map_or(0, |last| last + 1);
    for word in words.iter_mut().take(city_len) {
        *word = match *word {
            "st" => "saint",
            "ste" => "sainte",
            "ft" => "fort",
            "mt" => "mount",
            other => other,
        };
    }
    words.join("-")
}

/// Shows text of unknown origin on one line, with nothing a terminal would obey.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printable<'t>(pub(crate) &'t str);

impl Printable<'_> {
    /// Longer text is cut: a message must stay readable when a file is not what it should be.
    const MAX_CHARS: usize = 80;
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(Self::MAX_CHARS) {
            Some((end, _)) => write!(f, "{}...", Escaped(self.0.get(..end).unwrap_or_default())),
            None => Escaped(self.0).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cities(title: &'static str, anchor: &str) -> Vec<&'static str> {
        split_title(title, anchor).expect("a sound title").cities
    }

    #[test]
    fn a_title_splits_into_cities_and_states() {
        let parts = split_title("New York-Newark-Jersey City, NY-NJ-PA", "New York City").unwrap();
        assert_eq!(parts.cities, ["New York", "Newark", "Jersey City"]);
        assert_eq!(parts.states, ["NY", "NJ", "PA"]);
    }

    #[test]
    fn hyphenated_cities_stay_whole() {
        assert_eq!(cities("Winston-Salem, NC", "Winston-Salem"), ["Winston-Salem"]);
        assert_eq!(cities("Scranton--Wilkes-Barre, PA", "Scranton"), ["Scranton", "Wilkes-Barre"]);
        assert_eq!(
            cities("Nashville-Davidson--Murfreesboro--Franklin, TN", "Nashville"),
            ["Nashville", "Davidson", "Murfreesboro", "Franklin"]
        );
        assert_eq!(
            cities("Louisville/Jefferson County, KY-IN", "Louisville"),
            ["Louisville", "Jefferson County"]
        );
    }

    #[test]
    fn a_city_that_only_starts_like_the_anchor_keeps_its_name() {
        assert_eq!(cities("Boise City, ID", "Boise"), ["Boise City"]);
    }

    #[test]
    fn what_is_no_title_is_refused() {
        for title in ["", "Boulder", "Boulder, Colorado", ", CO", "Boulder, "] {
            assert_eq!(split_title(title, "Boulder"), None, "{title:?}");
        }
    }

    #[test]
    fn folding_drops_case_accents_and_punctuation() {
        assert_eq!(fold("  Cañon City,  CO "), "canon-city-co");
        assert_eq!(fold("Coeur d'Alene, ID"), "coeur-dalene-id");
        assert_eq!(fold("MAYAGU\u{308}EZ"), "mayaguez");
        assert_eq!(fold(" ,- "), "");
    }

    #[test]
    fn abbreviations_are_written_out_in_cities_but_not_in_states() {
        assert_eq!(canonical("St. Louis, MO-IL"), canonical("Saint Louis, MO-IL"));
        assert_eq!(canonical("Mt. Vernon, WA"), "mount-vernon-wa");
        assert_eq!(canonical("Helena, MT"), "helena-mt");
    }

    #[test]
    fn text_is_printed_harmless_and_short() {
        assert_eq!(Printable("a\u{1b}[2J\nb").to_string(), "a\\u{1b}[2J\\u{a}b");
        assert_eq!(Printable("\u{202e}oc").to_string(), "\\u{202e}oc");
        assert_eq!(Printable("Cañon").to_string(), "Cañon");
        assert_eq!(Printable(&"x".repeat(500)).to_string().len(), 83);
    }
}
