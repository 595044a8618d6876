//! "Did you mean": the nearest known name for an unknown one.

/// The candidate nearest to `name`, if it is near enough to be meant: at most a third of its letters
/// differ.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (distance(name, c), c))
        .filter(|(d, c)| *d <= (c.chars().count().max(name.chars().count()) / 3).max(1))
        .min()
        .map(|(_, c)| c)
}

/// Appends the nearest known name to serde's message about an unknown field or variant.
pub fn explain(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let is_unknown = message.contains("unknown field") || message.contains("unknown variant");
    match names.split_first() {
        // The message may quote the line of the file first; the names follow the word "unknown".
        Some(_) if is_unknown => {
            let at = message.find("unknown").expect("is_unknown looked for it");
            let names: Vec<&str> = message[at..].split('`').skip(1).step_by(2).collect();
            match names.split_first().and_then(|(name, known)| nearest(name, known.iter().copied())) {
                Some(meant) => format!("{}; did you mean `{meant}`?", message.trim_end()),
                None => message.to_owned(),
            }
        }
        _ => message.to_owned(),
    }
}

/// Levenshtein's distance over characters, bounded: only the first 64 count.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["epochs", "batch", "weight-decay"];
        assert_eq!(nearest("epoch", known), Some("epochs"));
        assert_eq!(nearest("weigth-decay", known), Some("weight-decay"));
        assert_eq!(nearest("zzz", known), None);
    }

    #[test]
    fn serdes_message_gains_the_name() {
        let text = explain("unknown field `epoch`, expected one of `epochs`, `batch`");
        assert!(text.ends_with("did you mean `epochs`?"), "{text}");
        assert_eq!(explain("missing field `epochs`"), "missing field `epochs`");
    }
}
