//! What is committed belongs together.

use std::path::Path;

use kernels::manifest;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_ptx_was_made_from_these_sources() {
    let committed = std::fs::read_to_string(root().join("ptx/manifest.txt")).expect("it is committed");
    let now = manifest::describe(root()).expect("the files are there");
    for (have, want) in committed.lines().zip(now.lines()) {
        assert_eq!(have, want, "make it again: cargo run -p kernels --bin ptx -- make SITE12");
    }
    assert_eq!(committed, now);
}

#[test]
fn every_source_has_its_ptx_for_the_oldest_driver() {
    for name in manifest::sources(root()).expect("the folder is there") {
        let ptx = std::fs::read_to_string(root().join("ptx").join(format!("{name}.ptx"))).expect(&name);
        assert!(ptx.contains(".version 8.0\n.target sm_80\n"), "{name}");
    }
}
