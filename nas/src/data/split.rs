//! Which images are held out for validation, and parts of a set.
//!
//! Every class is ordered by a keyed hash of its records' ids, so the choice is balanced, depends
//! on the seed, and hardly moves when images come or go: a record is held out because of what it
//! is called, not of where it stands.

use engine::Rng;

use super::config::Subset;
use super::{Error, Result, View};

/// (the rest, held out): `per_class` images of each class go to the second view. Both keep the
/// order of `view`.
///
/// # Errors
/// A class without an image left over for training.
pub fn hold_out(view: &View, per_class: usize, seed: u64) -> Result<(View, View)> {
    let held = choose(view, per_class, Rng::new(seed, "split"), 1)?;
    let part = |wanted: bool| View {
        dataset: view.dataset.clone(),
        indices: keep(view, |position| held[position] == wanted),
    };
    Ok((part(false), part(true)))
}

/// The part of `view` that `subset` names; all of it without one.
///
/// # Errors
/// Fewer images than asked for.
pub fn subset(view: View, subset: Option<Subset>, seed: u64) -> Result<View> {
    let indices = match subset {
        None => return Ok(view),
        Some(Subset::First(n)) => {
            if n == 0 || n > view.len() {
                return Err(Error::Config {
                    key: "subset.first",
                    value: n.to_string(),
                    expected: "from 1 to the number of images",
                });
            }
            view.indices[..n].into()
        }
        Some(Subset::PerClass(n)) => {
            if n == 0 {
                return Err(Error::Config {
                    key: "subset.per-class",
                    value: n.to_string(),
                    expected: "at least 1",
                });
            }
            let chosen = choose(&view, n, Rng::new(seed, "subset"), 0)?;
            keep(&view, |position| chosen[position])
        }
    };
    Ok(View { dataset: view.dataset, indices })
}

/// For every position of `view`, whether it is among the first `per_class` of its class by hash.
/// A class must have at least `leave` images more than that.
fn choose(view: &View, per_class: usize, rng: Rng, leave: usize) -> Result<Vec<bool>> {
    let mut chosen = vec![false; view.len()];
    if per_class == 0 {
        return Ok(chosen);
    }

    let mut key = [0; blake3::KEY_LEN];
    for (bytes, word) in key.chunks_exact_mut(4).zip(rng.words([0; 4])) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let dataset = &view.dataset;
    let mut by_class: Vec<Vec<(u64, usize)>> = vec![Vec::new(); dataset.classes().len()];
    for (position, &index) in view.indices.iter().enumerate() {
        let hash = blake3::keyed_hash(&key, &dataset.id(index as usize).to_le_bytes());
        let hash = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"));
        by_class[dataset.label(index as usize) as usize].push((hash, position));
    }
    for (class, mut records) in by_class.into_iter().enumerate() {
        if records.len() < per_class.saturating_add(leave) {
            return Err(Error::ClassTooSmall {
                class: dataset.classes()[class].clone(),
                images: records.len(),
                wanted: per_class,
                leave,
            });
        }
        records.sort_unstable();
        records[..per_class].iter().for_each(|&(_, position)| chosen[position] = true);
    }
    Ok(chosen)
}

fn keep(view: &View, wanted: impl Fn(usize) -> bool) -> std::sync::Arc<[u32]> {
    let indices = view.indices.iter().enumerate();
    indices.filter(|&(position, _)| wanted(position)).map(|(_, &index)| index).collect()
}
