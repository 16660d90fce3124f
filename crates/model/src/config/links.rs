//! The section `links`.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::decode::{Decode, choice, object, wrong};
use crate::problems::Problems;
pub use crate::units::{Number, Rate, Share, Size, Time};
use crate::yaml::{Node, Value};

choice! {
    /// How a packet's delay differs from the latency.
    JitterDistribution { Normal = "normal", Uniform = "uniform", Pareto = "pareto", Table = "table", }
}

object! {
    /// What a peering, in its direction, or a connection, in both, does to packets.
    Link {
        /// One way. Of a peering between two regions half the published round trip when absent.
        latency: Option<Time> = "latency",
        /// How much each packet's delay differs from the latency.
        jitter: Option<Jitter> = "jitter",
        /// How many packets get lost.
        loss: Option<Loss> = "loss",
        /// Bits per second, of IP packets as they are on the wire; unlimited when absent.
        rate: Option<Rate> = "rate",
        /// What waits for the rate at most, as bytes or as time; 100ms when absent. Without a rate: the bytes under way
        /// at most.
        queue: Option<Queue> = "queue",
        /// Drops or marks packets before the queue is full, as CoDel does (RFC 8289); off when absent.
        aqm: Option<Aqm> = "aqm",
        /// How many packets arrive twice.
        duplicate: Option<Share> = "duplicate",
        /// How many packets may overtake: they take their own time through the jitter, or none of the latency where
        /// there is no jitter. All others keep their order.
        reorder: Option<Share> = "reorder",
        /// How many packets arrive with one bit changed, behind their IP header.
        corrupt: Option<Share> = "corrupt",
        /// The largest packet in bytes, from 576 to 1500.
        mtu: Option<u16> = "mtu",
        /// Nothing passes.
        down: Option<bool> = "down",
    }
}

object! {
    /// How much the delay of each packet differs from the latency.
    Jitter {
        /// The standard deviation, whatever the distribution.
        deviation: Time = "deviation",
        /// normal when absent.
        distribution: Option<JitterDistribution> = "distribution",
        /// How much the delay of one packet says about that of the next; 0% when absent. The distribution stays the same.
        correlation: Option<Share> = "correlation",
        /// For the distribution `table`: samples, in any unit and order, of what is wanted; values between them are as
        /// likely. They are shifted and scaled to the latency and the deviation.
        table: Vec<Number> = "table",
    }
}

object! {
    /// Bursts of losses, by Gilbert and Elliott: a link is in a good or in a bad state.
    GilbertElliott {
        /// Before each packet in the good state: how likely the bad one begins.
        enter_bad: Share = "enterBad",
        /// Before each packet in the bad state: how likely it ends.
        leave_bad: Share = "leaveBad",
        /// How many packets get lost in the bad state; 100% when absent.
        loss_bad: Option<Share> = "lossBad",
        /// How many packets get lost in the good state; 0% when absent.
        loss_good: Option<Share> = "lossGood",
    }
}

object! {
    /// CoDel (RFC 8289).
    Aqm {
        /// The waiting time that is fine; 5ms when absent.
        target: Option<Time> = "target",
        /// How long it may be exceeded; 100ms when absent.
        interval: Option<Time> = "interval",
        /// Packets that allow it (ECN) are marked instead of dropped; false when absent.
        ecn: Option<bool> = "ecn",
    }
}

/// Each packet by itself, or in bursts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Loss {
    Each(Share),
    Bursts(GilbertElliott),
}

/// What may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Queue {
    Time(Time),
    Size(Size),
}

impl Link {
    /// This link, but what `change` says as it says it.
    #[must_use]
    pub fn changed(&self, change: &Self) -> Self {
        let (old, new) = (self.clone(), change.clone());
        Self {
            latency: new.latency.or(old.latency),
            jitter: new.jitter.or(old.jitter),
            loss: new.loss.or(old.loss),
            rate: new.rate.or(old.rate),
            queue: new.queue.or(old.queue),
            aqm: new.aqm.or(old.aqm),
            duplicate: new.duplicate.or(old.duplicate),
            reorder: new.reorder.or(old.reorder),
            corrupt: new.corrupt.or(old.corrupt),
            mtu: new.mtu.or(old.mtu),
            down: new.down.or(old.down),
        }
    }
}

impl Decode for Loss {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::Map(_) => GilbertElliott::decode(node, at, problems).map(Self::Bursts),
            _ => Share::decode(node, at, problems).map(Self::Each),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let each = Share::schema(generator).to_value();
        let bursts = GilbertElliott::schema(generator).to_value();
        json_schema!({ "anyOf": [each, bursts] })
    }
}

impl Decode for Queue {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        let Value::Scalar(text) = &node.value else {
            wrong(node, at, EXPECTED_QUEUE, problems);
            return None;
        };
        let queue = Time::parse(text).map(Self::Time);
        let queue = queue.or_else(|_| Size::parse(text).map(Self::Size));
        queue.map_err(|_| wrong(node, at, EXPECTED_QUEUE, problems)).ok()
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let time = Time::schema(generator).to_value();
        let size = Size::schema(generator).to_value();
        json_schema!({ "anyOf": [time, size] })
    }
}

const EXPECTED_QUEUE: &str = "a time such as 250ms, or a size such as 64KiB";
