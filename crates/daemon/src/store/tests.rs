//! What is committed is there again, and nothing else ever is.

use std::path::Path;

use model::Config;
use proptest::prelude::*;

use super::*;

const PLAIN: Forwarding = Forwarding {
    io: crate::up::Io::Plain,
    waiting: crate::Waiting::Spin,
    cpu: Some(1),
    under_way_bytes: 1 << 20,
};

fn config(text: &str) -> Config {
    let source = model::Source::Text {
        name: "test".to_owned(),
        text: text.to_owned(),
    };
    model::load(source).unwrap().config
}

/// `vnets` VNets in a row, each peered with the next where `peered` says so.
fn lab(vnets: usize, peered: &[bool]) -> Config {
    let mut text = String::from("apiVersion: peerlane/v1\nkind: Lab\nname: store\nvnets:\n");
    for number in 0..vnets {
        text += &format!("  v{number}: {{ addressSpace: [10.{number}.0.0/16] }}\n");
    }
    text += "peerings:\n";
    for (number, _) in peered.iter().enumerate().filter(|(_, peered)| **peered) {
        text += &format!("  - v{number} <-> v{}\n", number + 1);
    }
    if !peered.contains(&true) {
        text = text.replace("peerings:\n", "");
    }
    config(&text)
}

fn wanted(config: &Config, generation: u64) -> Wanted<'_> {
    Wanted {
        generation,
        file: "/labs/store.vnet.yaml",
        forwarding: PLAIN,
        config,
        text: None,
    }
}

fn declared(stored: &Stored) -> Config {
    config(&stored.declared)
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("state-store-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn open(path: &Path) -> Result<(Store, Stored)> {
    Store::open_at(path)
}

#[test]
fn the_last_commit_is_what_the_next_daemon_begins_with() {
    let directory = directory("last");
    let path = directory.join(FILE);
    let labs = [
        lab(4, &[true, true, true]),
        lab(4, &[false, true]),
        lab(5, &[]),
        lab(2, &[true]),
    ];
    let mut store = Store::create_at(&path).unwrap();
    for (number, config) in labs.iter().enumerate() {
        let text = (number == 1).then_some("the user's words");
        let generation = number as u64 + 7;
        let all = Wanted {
            text,
            ..wanted(config, generation)
        };
        store.commit(all).unwrap();
        drop(store);
        let (again, stored) = open(&path).unwrap();
        assert_eq!(declared(&stored), *config);
        assert_eq!((stored.generation, stored.forwarding), (generation, PLAIN));
        assert_eq!(stored.text.as_deref(), text);
        assert_eq!(stored.file, "/labs/store.vnet.yaml");
        store = again;
    }
    store.count(99).unwrap();
    drop(store);
    let (_, stored) = open(&path).unwrap();
    assert_eq!((stored.generation, declared(&stored)), (99, labs[3].clone()));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_second_process_is_refused() {
    let directory = directory("second");
    let path = directory.join(FILE);
    let mut store = Store::create_at(&path).unwrap();
    store.commit(wanted(&lab(2, &[]), 1)).unwrap();
    let error = open(&path).unwrap_err();
    assert!(error.message.contains(FILE), "{error:?}");
    drop(store);
    open(&path).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

/// A copy of the file at any moment is what a process that is killed leaves behind.
#[test]
fn a_process_killed_between_two_writes_leaves_one_of_the_two_labs() {
    let directory = directory("killed");
    let (path, copy) = (directory.join(FILE), directory.join("copy.redb"));
    let labs: Vec<Config> = (0..20_usize)
        .map(|bits| lab(6, &[0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1)))
        .collect();
    let mut store = Store::create_at(&path).unwrap();
    store.commit(wanted(&labs[0], 1)).unwrap();
    for (number, config) in labs.iter().enumerate().skip(1) {
        store.commit(wanted(config, number as u64 + 1)).unwrap();
        std::fs::copy(&path, &copy).unwrap();
        let (_, stored) = open(&copy).unwrap();
        assert_eq!(stored.generation, number as u64 + 1);
        assert_eq!(declared(&stored), *config);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_empty_or_foreign_file_is_reported() {
    let directory = directory("foreign");
    let path = directory.join(FILE);
    let other = b"not a database, and long enough to look like one ".repeat(1000);
    for bytes in [&b""[..], &other] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.message.contains("state.redb"), "{error:?}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(open(&path).unwrap_err().message.contains("state.redb"));
    let database = builder().create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(NUMBERS)
        .unwrap()
        .insert("version", VERSION + 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(open(&path).unwrap_err().message.contains("version 2"));
    std::fs::remove_dir_all(directory).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Whatever a disk does to the file: it is refused, or it still says exactly what was written.
    #[test]
    fn a_damaged_store_is_never_half_read(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let directory = directory(&format!("damaged-{:?}", std::thread::current().id()));
        let path = directory.join(FILE);
        let config = lab(8, &[true, false, true, true, true]);
        let mut store = Store::create_at(&path).unwrap();
        store.commit(wanted(&config, 5)).unwrap();
        drop(store);
        let mut bytes = std::fs::read(&path).unwrap();
        // Where something is: most of the file is free.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, value) in &damage {
            bytes[used[at.index(used.len())]] ^= value | 1;
        }
        if let Some(cut) = cut {
            bytes.truncate(used[cut.index(used.len())]);
        }
        std::fs::write(&path, bytes).unwrap();
        // A panic ends the process that only checks.
        if let Ok(Ok((_, stored))) = std::panic::catch_unwind(|| open(&path)) {
            prop_assert_eq!(stored.generation, 5);
            prop_assert_eq!(declared(&stored), config);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
