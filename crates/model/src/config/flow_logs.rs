//! Flow logs of NSGs, as declared (NSG-40).

use crate::decode::{choice, object};

choice! { FlowLogType { Json = "JSON", } }

object! {
    /// A flow log: what happens to the flows that an NSG allows or denies, in files of Azure's form.
    FlowLog {
        /// The NSG whose flows are logged.
        network_security_group: String = "networkSecurityGroup",
        /// On unless false.
        enabled: Option<bool> = "enabled",
        /// Version 2 when absent.
        format: Option<FlowLogFormat> = "format",
        /// A directory, relative to the lab file; 'flow-logs' in the lab's run directory, which goes with the lab, when absent.
        storage: Option<String> = "storage",
        /// Files are kept for ever when absent.
        retention_policy: Option<RetentionPolicy> = "retentionPolicy",
    }
}

object! {
    /// What the lines of a flow log hold.
    FlowLogFormat {
        /// JSON.
        kind: Option<FlowLogType> = "type",
        /// 1: beginnings of flows; 2: also what they carried.
        version: u16 = "version",
    }
}

object! {
    /// How long the files of a flow log are kept.
    RetentionPolicy {
        /// On unless false.
        enabled: Option<bool> = "enabled",
        /// From 0, which is for ever, to 365.
        days: u16 = "days",
    }
}
