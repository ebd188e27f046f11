//! What a misspelt word was meant to be, for hints.

/// Words longer than this are not compared: nobody mistypes a path by one letter.
const LONGEST: usize = 64;

/// The candidate that `word` differs least from, if that is little enough to be a slip: one change
/// in a word of up to five letters, two in a longer one. Case does not count.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = if word.len() <= 5 { 1 } else { 2 };
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= allowed)
        .filter(|candidate| *candidate != word && candidate.len().max(word.len()) <= LONGEST)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(changes, _)| *changes <= allowed)
        // Of two, the one of the same length: letters are swapped more often than left out.
        .min_by_key(|(changes, candidate)| (*changes, candidate.len().abs_diff(word.len())))
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, left out, changed or swapped with the next to make `a` into `b`
/// (the restricted Damerau-Levenshtein distance of their bytes, lower-cased).
fn distance(a: &str, b: &str) -> usize {
    let lower = |text: &str| text.to_ascii_lowercase().into_bytes();
    let (a, b) = (lower(a), lower(b));
    // Distances of the last letters of `a` so far to every beginning of `b`, of one letter less,
    // and of two less.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (row, &letter_a) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut previous_b = None;
        for (column, &letter_b) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let changed = at(&last, column) + usize::from(letter_a != letter_b);
            let inserted = at(&current, column) + 1;
            let left_out = at(&last, column + 1) + 1;
            let mut least = changed.min(inserted).min(left_out);
            if previous_a == Some(letter_b)
                && previous_b == Some(letter_a)
                && let Some(&swapped) = column.checked_sub(1).and_then(|i| before_last.get(i))
            {
                least = least.min(swapped + 1);
            }
            current.push(least);
            previous_b = Some(letter_b);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_a = Some(letter_a);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("match", "match", 0),
            ("Match", "match", 0),
            ("mach", "match", 1),
            ("matches", "match", 2),
            ("form", "from", 1),
            ("relay", "replay", 1),
            ("abcd", "dcba", 3),
            ("abc", "ca", 3),
        ];
        for (a, b, expected) in cases {
            assert_eq!(distance(a, b), expected, "{a:?} {b:?}");
            assert_eq!(distance(b, a), expected, "{b:?} {a:?}");
        }
    }

    #[test]
    fn only_a_slip_is_taken_for_another_word() {
        let words = ["from", "for", "mail-from", "reject", "relay"];
        let cases = [
            ("form", Some("from")),
            ("fro", Some("for")),
            ("rom", Some("from")),
            ("From", Some("from")),
            ("rejct", Some("reject")),
            ("mailfrom", Some("mail-from")),
            ("xyz", None),
            ("from", None),
            ("", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, words), expected, "{word:?}");
        }
    }
}
