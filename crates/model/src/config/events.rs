//! The section `events`: timed changes, and the same verbs as commands.

use super::Peering;
use super::links::{Aqm, Jitter, Link, Loss, Queue, Rate, Share};
use crate::decode::object;
use crate::units::Time;
use crate::values::Cidr;

object! {
    /// A change at a time: 'at' and one of the others.
    Event {
        /// How long after the lab came up, such as 10s or 1500ms; at most an hour.
        at: Time = "at",
        /// What a link does to packets changes, in what is said here.
        set: Option<LinkChange> = "set",
        /// A link does again what the file says of it.
        reset: Option<LinkName> = "reset",
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
    /// A link, and what changes of it.
    LinkChange {
        /// VNET/PEERING (that direction), or a connection (both).
        link: String = "link",
        /// As of 'links'.
        latency: Option<Time> = "latency",
        /// As of 'links'.
        jitter: Option<Jitter> = "jitter",
        /// As of 'links'.
        loss: Option<Loss> = "loss",
        /// As of 'links'.
        rate: Option<Rate> = "rate",
        /// As of 'links'.
        queue: Option<Queue> = "queue",
        /// As of 'links'.
        aqm: Option<Aqm> = "aqm",
        /// As of 'links'.
        duplicate: Option<Share> = "duplicate",
        /// As of 'links'.
        reorder: Option<Share> = "reorder",
        /// As of 'links'.
        corrupt: Option<Share> = "corrupt",
        /// As of 'links'.
        mtu: Option<u16> = "mtu",
        /// As of 'links'.
        down: Option<bool> = "down",
    }
}

object! {
    /// A link.
    LinkName {
        /// VNET/PEERING (that direction), or a connection (both).
        link: String = "link",
    }
}

impl LinkChange {
    /// What is said, without whom of.
    #[must_use]
    pub fn settings(&self) -> Link {
        let it = self.clone();
        Link {
            latency: it.latency,
            jitter: it.jitter,
            loss: it.loss,
            rate: it.rate,
            queue: it.queue,
            aqm: it.aqm,
            duplicate: it.duplicate,
            reorder: it.reorder,
            corrupt: it.corrupt,
            mtu: it.mtu,
            down: it.down,
        }
    }

    /// In words, such as `latency 80ms, loss`.
    fn said(&self) -> String {
        let values = [
            ("latency", self.latency.map(|it| it.to_string())),
            ("jitter", self.jitter.as_ref().map(|it| it.deviation.to_string())),
            (
                "loss",
                self.loss.as_ref().map(|it| match it {
                    Loss::Each(share) => share.to_string(),
                    Loss::Bursts(_) => "in bursts".to_owned(),
                }),
            ),
            ("rate", self.rate.map(|it| it.to_string())),
            (
                "queue",
                self.queue.map(|it| match it {
                    Queue::Time(time) => time.to_string(),
                    Queue::Size(size) => size.to_string(),
                }),
            ),
            ("aqm", self.aqm.as_ref().map(|_| "on".to_owned())),
            ("duplicate", self.duplicate.map(|it| it.to_string())),
            ("reorder", self.reorder.map(|it| it.to_string())),
            ("corrupt", self.corrupt.map(|it| it.to_string())),
            ("mtu", self.mtu.map(|it| it.to_string())),
            ("down", self.down.map(|it| it.to_string())),
        ];
        let said = values
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value?)));
        said.collect::<Vec<_>>().join(", ")
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
            ("set", self.set.is_some()),
            ("reset", self.reset.is_some()),
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
        if let Some(change) = &self.set {
            return write!(out, "set link {}: {}", change.link, change.said());
        }
        if let Some(LinkName { link }) = &self.reset {
            return write!(out, "reset link {link}");
        }
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
