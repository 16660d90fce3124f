//! The files of flow logs: Azure's path and envelope, a record per minute, a file per hour. Each is whole JSON at all times.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::Serialize;

use super::tuple::Version;

/// What a file begins and ends with; records stand between.
const OPEN: &[u8] = b"{\"records\":[";
const CLOSE: &[u8] = b"]}";
/// A file takes no more than this: an hour of ten thousand new flows per second would fill the disk.
const LIMIT_BYTES: u64 = 1 << 30;
/// Identifies the writer, as a record's `systemId` does; Azure's is a UUID of the machine.
const SYSTEM_ID: &str = "00000000-0000-0000-0000-000000000000";

/// The lines of one NIC and one NSG, of one minute, by rule (`UserRule_<name>`, `DefaultRule_<name>`: NSG-36).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) lines: BTreeMap<String, Vec<String>>,
}

/// Which log a batch goes to.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    /// The directory of the log.
    pub(crate) storage: &'a Path,
    /// ARM id of the NSG.
    pub(crate) resource_id: &'a str,
    /// Twelve hexadecimal digits. NICs here have no MAC address: theirs is made up from their number.
    pub(crate) mac: &'a str,
    pub(crate) version: Version,
}

#[derive(Serialize)]
struct Record<'a> {
    time: String,
    #[serde(rename = "systemId")]
    system_id: &'static str,
    #[serde(rename = "macAddress")]
    mac_address: &'a str,
    category: &'static str,
    #[serde(rename = "resourceId")]
    resource_id: String,
    #[serde(rename = "operationName")]
    operation_name: &'static str,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Properties<'a> {
    #[serde(rename = "Version")]
    version: u8,
    flows: Vec<OfRule<'a>>,
}

#[derive(Serialize)]
struct OfRule<'a> {
    rule: &'a str,
    flows: [OfMac<'a>; 1],
}

#[derive(Serialize)]
struct OfMac<'a> {
    mac: &'a str,
    #[serde(rename = "flowTuples")]
    flow_tuples: &'a [String],
}

/// Adds a batch to the file of its hour.
///
/// # Errors
/// The directory or file cannot be written, or the file is full; nothing is written then.
pub(crate) fn append(target: &Target<'_>, batch: &Batch, now: Timestamp) -> io::Result<()> {
    let path = path(target, now);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let record = serde_json::to_vec(&record(target, batch, now))?;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    let length = file.metadata()?.len();
    let (at, separator): (u64, &[u8]) = match length.checked_sub(CLOSE.len() as u64) {
        None => (0, OPEN),
        Some(at) if ends_well(&file, at)? => (at, b","),
        Some(_) => {
            let damaged = path.with_extension("damaged.json");
            fs::rename(&path, &damaged)?;
            tracing::warn!(
                "flow log: {} was cut short; it is now {}",
                path.display(),
                damaged.display()
            );
            return append(target, batch, now);
        }
    };
    if length > LIMIT_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "the hour's file is full"));
    }
    // One write, so that a reader or a sudden end finds whole records.
    file.write_all_at(&[separator, &record, CLOSE].concat(), at)
}

/// Removes the files of this log's hours that ended more than `days` ago. Nothing else in its directory, which may hold
/// other logs and what is not ours, is touched.
///
/// # Errors
/// A directory cannot be read or a file not be removed.
pub(crate) fn expire(target: &Target<'_>, days: u16, now: Timestamp) -> io::Result<()> {
    let oldest = now.as_second() - i64::from(days) * 86_400;
    match expire_below(&of_resource(target), oldest) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn expire_below(directory: &Path, oldest: i64) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            expire_below(&entry.path(), oldest)?;
            // Fails where something is left in it.
            let _ = fs::remove_dir(entry.path());
        } else if entry.path().extension().is_some_and(|ending| ending == "json") && meta.mtime() < oldest {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Where all files about an NSG are, and no others.
fn of_resource(target: &Target<'_>) -> PathBuf {
    let id = target.resource_id.to_uppercase();
    target.storage.join(format!("resourceId={id}"))
}

/// `resourceId=/SUBSCRIPTIONS/…/y=2026/m=11/d=23/h=22/m=00/macAddress=…/PT1H.json`
fn path(target: &Target<'_>, now: Timestamp) -> PathBuf {
    let hour = Offset::UTC.to_datetime(now);
    of_resource(target)
        .join(format!("y={:04}", hour.year()))
        .join(format!("m={:02}", hour.month()))
        .join(format!("d={:02}", hour.day()))
        .join(format!("h={:02}", hour.hour()))
        .join("m=00")
        .join(format!("macAddress={}", target.mac))
        .join("PT1H.json")
}

fn record<'a>(target: &Target<'a>, batch: &'a Batch, now: Timestamp) -> Record<'a> {
    let of_rule = |(rule, lines): (&'a String, &'a Vec<String>)| OfRule {
        rule,
        flows: [OfMac {
            mac: target.mac,
            flow_tuples: lines,
        }],
    };
    Record {
        time: format!("{now:.7}"),
        system_id: SYSTEM_ID,
        mac_address: target.mac,
        category: "NetworkSecurityGroupFlowEvent",
        resource_id: target.resource_id.to_uppercase(),
        operation_name: "NetworkSecurityGroupFlowEvents",
        properties: Properties {
            version: match target.version {
                Version::One => 1,
                Version::Two => 2,
            },
            flows: batch.lines.iter().map(of_rule).collect(),
        },
    }
}

/// Whether a record ends where the file does. Inside a record these four never stand together.
fn ends_well(file: &File, at: u64) -> io::Result<bool> {
    const END: &[u8] = b"}}]}";
    let Some(at) = (at + CLOSE.len() as u64).checked_sub(END.len() as u64) else {
        return Ok(false);
    };
    let mut end = [0; END.len()];
    file.read_exact_at(&mut end, at)?;
    Ok(end == END)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use jiff::Timestamp;

    use super::{Batch, Target, append, expire, path};
    use crate::flow_log::tuple::Version;

    const NSG: &str = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/lab/providers/Microsoft.Network/networkSecurityGroups/web";

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("peerlane-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn target(storage: &Path) -> Target<'_> {
        Target {
            storage,
            resource_id: NSG,
            mac: "020000000001",
            version: Version::Two,
        }
    }

    fn batch(rule: &str, line: &str) -> Batch {
        let mut batch = Batch::default();
        batch.lines.insert(rule.to_owned(), vec![line.to_owned()]);
        batch
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn records_of_an_hour_share_a_file_in_azures_envelope() {
        let scratch = Scratch::new("flow-log");
        let target = target(&scratch.0);
        let line = "1542110377,10.5.16.4,203.0.113.118,59831,443,T,O,A,B,,,,";
        append(
            &target,
            &batch("UserRule_web", line),
            at("2018-11-13T12:00:35.5Z"),
        )
        .unwrap();
        append(
            &target,
            &batch("DefaultRule_DenyAllInBound", line),
            at("2018-11-13T12:59:35Z"),
        )
        .unwrap();
        append(&target, &batch("UserRule_web", line), at("2018-11-13T13:00:00Z")).unwrap();
        let first = path(&target, at("2018-11-13T12:30:00Z"));
        assert!(first.ends_with("y=2018/m=11/d=13/h=12/m=00/macAddress=020000000001/PT1H.json"));
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&first).unwrap()).unwrap();
        let records = value["records"].as_array().unwrap();
        assert_eq!(records.len(), 2);
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/vectors/flow_log.json")).unwrap();
        let envelope = &vector["envelope"];
        assert_eq!(records[0]["category"], envelope["category"]);
        assert_eq!(records[0]["operationName"], envelope["operationName"]);
        assert_eq!(
            records[0]["properties"]["Version"],
            envelope["properties.Version"]
        );
        assert_eq!(records[0]["time"], "2018-11-13T12:00:35.5000000Z");
        assert_eq!(records[0]["resourceId"], NSG.to_uppercase());
        assert_eq!(records[0]["properties"]["flows"][0]["rule"], "UserRule_web");
        assert_eq!(
            records[0]["properties"]["flows"][0]["flows"][0]["flowTuples"][0],
            line
        );
        assert_eq!(
            records[1]["properties"]["flows"][0]["rule"],
            "DefaultRule_DenyAllInBound"
        );
        assert!(path(&target, at("2018-11-13T13:00:00Z")).exists());
    }

    #[test]
    fn a_file_that_was_cut_short_is_kept_and_a_new_one_begun() {
        let scratch = Scratch::new("flow-log-cut");
        let target = target(&scratch.0);
        let now = at("2018-11-13T12:00:00Z");
        append(&target, &batch("UserRule_web", "1"), now).unwrap();
        let file = path(&target, now);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 3]).unwrap();
        append(&target, &batch("UserRule_web", "2"), now).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(value["records"].as_array().unwrap().len(), 1);
        assert_eq!(
            fs::read(file.with_extension("damaged.json")).unwrap(),
            whole[..whole.len() - 3]
        );
    }

    #[test]
    fn files_older_than_the_retention_go_and_nothing_else_does() {
        let scratch = Scratch::new("flow-log-old");
        let target = target(&scratch.0);
        let other = Target {
            resource_id: "/subscriptions/0/resourceGroups/lab/providers/Microsoft.Network/networkSecurityGroups/db",
            ..target.clone()
        };
        let now = Timestamp::now();
        append(&target, &batch("UserRule_web", "1"), now).unwrap();
        append(&other, &batch("UserRule_db", "1"), now).unwrap();
        let foreign = scratch.0.join("package.json");
        fs::write(&foreign, "{}").unwrap();
        fs::create_dir(scratch.0.join("empty")).unwrap();
        expire(&target, 1, now).unwrap();
        assert!(path(&target, now).exists());
        let later = now.checked_add(jiff::SignedDuration::from_hours(25)).unwrap();
        expire(&target, 1, later).unwrap();
        assert!(!path(&target, now).exists());
        assert_eq!(fs::read_dir(super::of_resource(&target)).unwrap().count(), 0);
        assert!(path(&other, now).exists() && foreign.exists() && scratch.0.join("empty").exists());
    }
}
