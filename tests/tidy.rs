//! House rules that the compiler does not know.

use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What was built beside the fuzz crate is not ours.
                if !path.ends_with("target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn unsafe_stays_where_it_is_expected() {
    let word = ["un", "safe"].concat();
    for path in sources("engine/src").into_iter().chain(sources("nas/src")).chain(sources("bin")) {
        let name = path.to_string_lossy();
        let allowed = ["engine/src/cpu/", "engine/src/cuda/"].iter().any(|folder| name.contains(folder))
            || name.ends_with("nas/src/data/packed.rs");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(allowed || !text.contains(&format!("{word} ")), "{}", path.display());
    }
}

#[test]
fn libraries_print_nothing() {
    for path in sources("engine/src").into_iter().chain(sources("nas/src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in ["println!", "eprintln!", "process::exit", "todo!", "unimplemented!"] {
            assert!(!code.contains(word), "{} in {}", word, path.display());
        }
    }
}

#[test]
fn every_source_file_begins_with_what_it_is() {
    for path in ["engine/src", "nas/src", "bin", "tests"].iter().flat_map(|f| sources(f)) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!") || text.starts_with("#!"), "{}", path.display());
    }
}
