//! The spaces that come with the program.

/// Name and file of each; the only place to add one.
const SPACES: [(&str, &str); 8] = [
    ("spos-shufflenet", include_str!("../../spaces/spos-shufflenet.toml")),
    ("spos-cifar", include_str!("../../spaces/spos-cifar.toml")),
    ("mobilenet-se", include_str!("../../spaces/mobilenet-se.toml")),
    ("mobilenet-se-cifar", include_str!("../../spaces/mobilenet-se-cifar.toml")),
    ("proxyless-gpu", include_str!("../../spaces/proxyless-gpu.toml")),
    ("fairnas", include_str!("../../spaces/fairnas.toml")),
    ("nas-bench-macro", include_str!("../../spaces/nas-bench-macro.toml")),
    ("quickstart", include_str!("../../spaces/quickstart.toml")),
];

pub(super) fn text(name: &str) -> Option<&'static str> {
    SPACES.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SPACES.iter().map(|(name, _)| *name)
}

/// Name and a line about each built-in space.
pub fn list() -> Vec<(&'static str, String)> {
    names()
        .map(|name| {
            let about = super::Space::load(name).map_or_else(|e| e.to_string(), |s| s.about().to_owned());
            (name, about)
        })
        .collect()
}
