//! The section `events`: timed changes, and the same verbs as commands.

use super::Peering;
use crate::decode::object;
use crate::units::Time;
use crate::values::Cidr;

object! {
    /// A change at a time: 'at' and one of the others.
    Event {
        /// How long after the lab came up, such as 10s or 1500ms; at most an hour.
        at: Time = "at",
        /// A peering is created, or replaced.
        create: Option<Created> = "create",
        /// A peering is deleted; the other direction becomes Disconnected.
        delete: Option<Deleted> = "delete",
        /// A VM is stopped: its programs end, and its NICs are off the network.
        stop: Option<Machine> = "stop",
        /// A stopped VM is started, with the programs of the file.
        start: Option<Machine> = "start",
        /// A site's prefix is no longer known to the gateways.
        withdraw: Option<SitePrefix> = "withdraw",
        /// A withdrawn prefix is known again.
        announce: Option<SitePrefix> = "announce",
    }
}

object! {
    /// What an event creates.
    Created {
        /// As an entry of 'peerings'.
        peering: Peering = "peering",
    }
}

object! {
    /// What an event deletes.
    Deleted {
        /// VNET/PEERING.
        peering: String = "peering",
    }
}

object! {
    /// Whom an event stops or starts.
    Machine {
        /// Name of one of 'vms'.
        vm: String = "vm",
    }
}

object! {
    /// What an event withdraws or announces.
    SitePrefix {
        /// Name of one of 'sites'.
        site: String = "site",
        /// One of its 'addressPrefixes'.
        prefix: Cidr = "prefix",
    }
}

impl Event {
    /// Its verbs, as the file spells them: one, where it is valid.
    #[must_use]
    pub fn verbs(&self) -> Vec<&'static str> {
        let given = [
            ("create", self.create.is_some()),
            ("delete", self.delete.is_some()),
            ("stop", self.stop.is_some()),
            ("start", self.start.is_some()),
            ("withdraw", self.withdraw.is_some()),
            ("announce", self.announce.is_some()),
        ];
        let given = given.into_iter().filter(|(_, given)| *given);
        given.map(|(verb, _)| verb).collect()
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(Created { peering }) = &self.create {
            return write!(out, "create peering {}/{}", peering.from, peering.name);
        }
        if let Some(Deleted { peering }) = &self.delete {
            return write!(out, "delete peering {peering}");
        }
        for (verb, machine) in [("stop", &self.stop), ("start", &self.start)] {
            if let Some(Machine { vm }) = machine {
                return write!(out, "{verb} VM {vm}");
            }
        }
        for (verb, prefix) in [("withdraw", &self.withdraw), ("announce", &self.announce)] {
            if let Some(SitePrefix { site, prefix }) = prefix {
                return write!(out, "{verb} {} of site {site}", prefix.0);
            }
        }
        out.write_str("nothing")
    }
}
