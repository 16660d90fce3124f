//! A lab that is written back is the same lab.
#![expect(clippy::unwrap_used, reason = "a test may panic, its functions too")]

use std::path::{Path, PathBuf};

use model::Source;

fn lab_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = ["examples", "tests/lab/cases"].iter().flat_map(|folder| {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    files
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".vnet.yaml")))
        .collect()
}

#[test]
fn what_is_exported_is_read_back_as_the_same_lab() {
    let mut read = 0;
    for path in lab_files() {
        let Ok(loaded) = model::load(Source::Path(path.clone())) else {
            // A case may be one of a file that is refused.
            continue;
        };
        let text = model::export(&loaded.config).unwrap();
        let again = model::load(Source::Text {
            name: path.display().to_string(),
            text: text.clone(),
        });
        let again = again.unwrap_or_else(|errors| panic!("{}: {errors}\n{text}", path.display()));
        assert_eq!(again.config, loaded.config, "{}\n{text}", path.display());
        read += 1;
    }
    assert!(read > 20, "only {read} files");
}
