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

/// Edits (insert, delete, replace) between two short words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
