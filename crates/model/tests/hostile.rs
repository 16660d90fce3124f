//! Input that means harm: always an answer, soon, never a panic.
#![expect(clippy::unwrap_used, reason = "a test may panic, its functions too")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::topology::GatewayIndex;
use model::{Errors, Loaded, Source, find_lab_file};
use proptest::prelude::*;

fn load(text: &str) -> Result<Loaded, Errors> {
    model::load(Source::Text {
        name: "lab.vnet.yaml".to_owned(),
        text: text.to_owned(),
    })
}

fn folder(path: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.to_string_lossy().ends_with(".vnet.yaml"));
    files.sort();
    files
}

/// The examples and the lab cases, which are all good.
fn good_files() -> Vec<PathBuf> {
    let mut files = folder("../../examples");
    files.extend(folder("../../tests/lab/cases"));
    files
}

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("peerlane-model-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn only_error(source: Source) -> (String, usize, usize) {
    let errors = model::load(source).unwrap_err().errors;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].code, "Sim.Syntax");
    (errors[0].message.clone(), errors[0].line, errors[0].column)
}

#[test]
fn every_example_and_case_loads_and_comes_back() {
    let files = good_files();
    assert!(files.len() > 10, "{files:?}");
    for path in files {
        let loaded = model::load(Source::Path(path.clone())).unwrap_or_else(|errors| panic!("{errors}"));
        let json = serde_json::to_string(&loaded.config).unwrap();
        // Under the file's own name, which other files it names are relative to.
        let text = Source::Text {
            name: path.display().to_string(),
            text: json,
        };
        let again = model::load(text).unwrap_or_else(|errors| panic!("{}: {errors}", path.display()));
        assert_eq!(again.config, loaded.config, "{}", path.display());
    }
}

#[test]
fn refuses_what_is_no_text() {
    let scratch = Scratch::new("text");
    let path = scratch.file("bad.vnet.yaml", b"name: ok\nkind: L\xffab\n");
    assert_eq!(
        only_error(Source::Path(path)),
        ("the file is not UTF-8 text".to_owned(), 2, 8)
    );
    let missing = scratch.0.join("none.vnet.yaml");
    assert!(only_error(Source::Path(missing)).0.contains("No such file"));
    let huge = scratch.file("huge.vnet.yaml", &vec![b'#'; (8 << 20) + 1]);
    assert!(only_error(Source::Path(huge)).0.contains("larger than 8 MiB"));
    let endless = only_error(Source::Path("/dev/zero".into()));
    assert!(endless.0.contains("larger than 8 MiB"), "{endless:?}");
}

/// A byte order mark is no character of the first line.
#[test]
fn places_stand_behind_a_byte_order_mark() {
    let errors = load("\u{feff}colour: 1\napiVersion: peerlane/v1\nkind: Lab\nname: x\n").unwrap_err();
    let error = &errors.errors[0];
    assert_eq!((error.code, error.line, error.column), ("Sim.UnknownField", 1, 1));
    assert_eq!(&errors.text[error.span.clone()], "colour");
}

#[test]
fn a_folder_means_its_only_lab_file() {
    let scratch = Scratch::new("folder");
    assert!(
        find_lab_file(&scratch.0)
            .unwrap_err()
            .to_string()
            .contains("holds no *.vnet.yaml")
    );
    let one = scratch.file("one.vnet.yaml", b"name: a\n");
    scratch.file("other.yaml", b"");
    assert_eq!(find_lab_file(&scratch.0).unwrap(), one);
    assert_eq!(find_lab_file(&one).unwrap(), one);
    scratch.file("two.vnet.yaml", b"");
    assert!(
        find_lab_file(&scratch.0)
            .unwrap_err()
            .to_string()
            .contains("several lab files")
    );
}

/// A hub with 499 spokes, each with a VM, every peering in both directions.
fn star(spokes: usize) -> String {
    let mut text = "apiVersion: peerlane/v1\nkind: Lab\nname: star\nprofile: azure-2025\nvnets:\n".to_owned();
    text.push_str("  hub: { addressSpace: [10.0.0.0/16] }\n");
    for spoke in 0..spokes {
        let net = format!("{}.{}", 10 + (spoke + 1) / 256, (spoke + 1) % 256);
        writeln!(text, "  v{spoke}: {{ addressSpace: [{net}.0.0/16], subnets: {{ s: {{ addressPrefix: {net}.0.0/24 }} }} }}")
            .unwrap();
    }
    text.push_str("peerings:\n");
    for spoke in 0..spokes {
        writeln!(text, "  - hub <-> v{spoke}").unwrap();
    }
    text.push_str("vms:\n");
    for spoke in 0..spokes {
        writeln!(text, "  m{spoke}: {{ subnet: v{spoke}/s }}").unwrap();
    }
    text
}

/// Debug builds are about twenty times slower than the shipped one; a quadratic check would take minutes.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn large_labs_take_no_quadratic_time() {
    let start = Instant::now();
    let loaded = load(&star(499)).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.topology.peerings.len(), 998);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

/// Gateways of which each speaks BGP with each other one.
fn mesh(gateways: usize) -> String {
    let mut text = "apiVersion: peerlane/v1\nkind: Lab\nname: mesh\nprofile: azure-2018\nvnets:\n".to_owned();
    for at in 0..gateways {
        writeln!(text, "  v{at}: {{ addressSpace: [10.{at}.0.0/16], subnets: {{ GatewaySubnet: {{ addressPrefix: 10.{at}.0.0/27 }} }} }}")
            .unwrap();
    }
    text.push_str("gateways:\n");
    for at in 0..gateways {
        writeln!(text, "  g{at}: {{ vnet: v{at}, asn: {} }}", 65_100 + at).unwrap();
    }
    text.push_str("connections:\n");
    for (one, other) in (0..gateways).flat_map(|one| (0..one).map(move |other| (one, other))) {
        writeln!(text, "  c{one}-{other}: {{ gateway: g{one}, remoteGateway: g{other}, connectionType: Vnet2Vnet, enableBgp: true }}")
            .unwrap();
    }
    text
}

#[test]
fn a_mesh_of_speakers_tells_no_path_but_the_best() {
    let start = Instant::now();
    let loaded = load(&mesh(16)).unwrap_or_else(|errors| panic!("{errors}"));
    let first = GatewayIndex(0);
    let others = 15;
    // Each of the others says where it is itself, and where the rest are; all have a range and an address.
    assert!(loaded.topology.heard(first).len() <= others * others * 2);
    let paths = loaded.topology.behind(first);
    for at in 1..=others {
        let prefix = format!("10.{at}.0.0/16").parse().unwrap();
        let found = paths.iter().find(|behind| behind.prefix == prefix).unwrap();
        assert_eq!(found.as_path, [65_100 + u32::try_from(at).unwrap()]);
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn long_lists_of_selectors_are_refused_before_they_are_multiplied() {
    let ranges = |first: u8| -> String {
        let each = |at: usize| format!("{first}.{}.{}.0/24", at / 256, at % 256);
        (0..30_000).map(each).collect::<Vec<_>>().join(", ")
    };
    let text = format!(
        "apiVersion: peerlane/v1\nkind: Lab\nname: wide\nprofile: azure-2018\n\
         vnets: {{ a: {{ addressSpace: [10.0.0.0/16], subnets: {{ GatewaySubnet: {{ addressPrefix: 10.0.0.0/27 }} }} }} }}\n\
         gateways: {{ one: {{ vnet: a }} }}\nsites: {{ dc1: {{ addressPrefixes: [192.168.0.0/16] }} }}\n\
         connections: {{ c: {{ gateway: one, site: dc1, usePolicyBasedTrafficSelectors: true, trafficSelectorPolicies: \
         [{{ localAddressRanges: [{}], remoteAddressRanges: [{}] }}] }} }}\n",
        ranges(10),
        ranges(11)
    );
    let errors = load(&text).unwrap_err().errors;
    let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
    assert_eq!(codes, ["Sim.GW-12"]);
}

#[test]
fn one_mistake_repeated_is_refused_soon_and_in_bounded_memory() {
    let start = Instant::now();
    let header = "apiVersion: peerlane/v1\nkind: Lab\nname: x\n";
    let overlapping = format!(
        "{header}vnets: {{ a: {{ addressSpace: [{}] }} }}\n",
        "10.0.0.0/8, ".repeat(20_000)
    );
    let same_vnets: String = (0..1000).fold(format!("{header}vnets:\n"), |mut text, index| {
        writeln!(text, "  v{index}: {{ addressSpace: [10.0.0.0/8] }}").unwrap();
        text
    });
    let unknown = format!(
        "{header}{}",
        (0..20_000).fold(String::new(), |text, index| text + &format!("k{index}: 1\n"))
    );
    let flow = format!("vnets: {}", "[".repeat(100_000));
    let keys = format!("{header}vnets: {{ {} }}\n", "a: 1, ".repeat(20_000));
    for text in [overlapping, unknown, flow, keys] {
        let errors = load(&text).unwrap_err().errors;
        assert!(errors.len() <= 1000, "{}", errors.len());
    }
    load(&same_vnets).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(start.elapsed() < 4 * SOON, "{:?}", start.elapsed());
}

/// Errors stand in the order of the text and point into it.
fn sound(text: &str) {
    let Err(errors) = load(text) else { return };
    assert!(!errors.errors.is_empty());
    let mut last = 0;
    for error in &errors.errors {
        assert!(
            error.span.start >= last && error.line >= 1 && error.column >= 1,
            "{error:?}"
        );
        assert!(errors.text.get(error.span.clone()).is_some(), "{error:?}");
        assert!(
            !error.message.contains('\n') && !error.message.contains('\u{1b}'),
            "{error:?}"
        );
        last = error.span.start;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        sound(&text);
    }

    #[test]
    fn arbitrary_yaml_never_panics(text in "([a-z:{}\\[\\]\"'*&|>#!, \n-]|vnets|addressSpace|10\\.0\\.0\\.0/8|\t){0,80}") {
        sound(&text);
    }

    /// A good file with a piece cut out, doubled, or replaced by a word that means something.
    #[test]
    fn spoilt_files_never_panic(
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        length in 0_usize..40,
        word in prop::sample::select(vec![
            "", "::", "0.0.0.0/0", "::/0", "fd00::/64", "10.0.0.0/33", "65536", "-1", "{", "]", "*", "&a", "*a", "<<: ",
            "Classic", "null", "~", "\u{202e}", "é", "\"", "host", "internet", "azure-2025", "Disconnected", "\n",
        ]),
        twice in any::<bool>(),
    ) {
        let files = good_files();
        let text = std::fs::read_to_string(file.get(&files)).unwrap();
        let letters: Vec<char> = text.chars().collect();
        let start = at.index(letters.len());
        let end = (start + length).min(letters.len());
        let piece: String = letters[start..end].iter().collect();
        let tail = if twice { start } else { end };
        let spoilt: String = letters[..start].iter().collect::<String>()
            + &(if twice { piece } else { word.to_owned() })
            + &letters[tail..].iter().collect::<String>();
        sound(&spoilt);
    }
}
