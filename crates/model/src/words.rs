//! Words of the file in messages: shown safely, and the known word nearest to an unknown one.

/// Text of the file inside a message: bounded, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80; // one line of a terminal
    let mut short: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

/// The known word a person most likely meant.
pub(crate) fn closest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 80; // longer words are no typing mistake, and distance costs the product of lengths
    if wanted.len() > LONGEST {
        return None;
    }
    let wanted_lower = wanted.to_lowercase();
    known
        .filter(|word| word.len() <= LONGEST)
        .map(|word| (distance(&wanted_lower, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Edits (insert, delete, replace, swap of neighbours) between two short words.
fn distance(left: &str, right: &str) -> usize {
    let [left, right] = [left, right].map(|word| word.chars().collect::<Vec<char>>());
    // Rows of the table of all prefixes: the one being filled, the one before, and the one before that.
    let mut row: Vec<usize> = (0..=right.len()).collect();
    let mut above = row.clone();
    for (i, a) in left.iter().enumerate() {
        let two_above = std::mem::replace(&mut above, row.clone());
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = above[j] + usize::from(a != b);
            row[j + 1] = replaced.min(row[j] + 1).min(above[j + 1] + 1);
            if i > 0 && j > 0 && left[i - 1] == *b && right[j - 1] == *a {
                row[j + 1] = row[j + 1].min(two_above[j - 1] + 1);
            }
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn edits_are_counted() {
        for (left, right, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("hub", "hub", 0),
            ("gw-tr", "gw-rt", 1),
            ("wbe", "web", 1),
            ("kitten", "sitting", 3),
            ("abcd", "badc", 2),
        ] {
            assert_eq!(distance(left, right), edits, "{left} {right}");
            assert_eq!(distance(right, left), edits, "{right} {left}");
        }
    }

    #[test]
    fn a_swap_of_letters_in_a_short_name_is_understood() {
        assert_eq!(closest("gw-tr", ["spoke-rt", "gw-rt"].into_iter()), Some("gw-rt"));
        assert_eq!(closest("wbe", ["sql", "web"].into_iter()), Some("web"));
        assert_eq!(closest("wbe", ["sql", "hub"].into_iter()), None);
    }
}
