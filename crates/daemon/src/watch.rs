//! `/v1/watch`: changes as they are made, and every second what was lost and carried, as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, unfold};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::{Drop, NicRate, Rates};
use crate::running::Lab;

/// Between two looks at the counters.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that wait for a reader; one who is further behind is cut off.
const QUEUE: usize = 16;
/// Each asks the workers for their counters once a second.
const WATCHERS: usize = 32;

static PLACES: Semaphore = Semaphore::const_new(WATCHERS);

/// Counters at one time: of NICs, as [`NicRate`] has them, and of losses.
#[derive(Debug, Default)]
struct Seen {
    nics: HashMap<String, [u64; 4]>,
    drops: HashMap<(String, Option<String>), [u64; 2]>,
}

/// The events from now on. None: too many watch already.
pub(crate) fn follow(lab: &Arc<Lab>) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
    let place = PLACES.try_acquire().ok()?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let lab = Arc::clone(lab);
    tokio::spawn(async move {
        let _place = place;
        tell(&lab, &sender).await;
    });
    let events = unfold(receiver, |mut receiver| async {
        let event = receiver.recv().await?;
        Some((Ok(event), receiver))
    });
    Some(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Until the reader is gone, or too far behind.
async fn tell(lab: &Lab, reader: &mpsc::Sender<Event>) {
    let mut changes = lab.outcomes.listen();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut before, mut since) = (look(lab).await, Instant::now());
    // The first event says that the rest will come.
    if reader
        .try_send(event("generation", &lab.published.current().generation))
        .is_err()
    {
        return;
    }
    loop {
        let told = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => reader.try_send(event("change", &change)),
                Err(RecvError::Lagged(missed)) => reader.try_send(event("missed", &missed)),
                Err(RecvError::Closed) => return,
            },
            _ = ticks.tick() => {
                let (now, at) = (look(lab).await, Instant::now());
                let drops = lost(&before, &now);
                let rates = rates(&before, &now, at - since);
                (before, since) = (now, at);
                let told = if drops.is_empty() { Ok(()) } else { reader.try_send(event("drops", &drops)) };
                told.and_then(|()| reader.try_send(event("rates", &rates)))
            }
            () = reader.closed() => return,
        };
        if told.is_err() {
            return;
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(data).unwrap_or_default()
}

async fn look(lab: &Lab) -> Seen {
    let stats = lab.workers.stats().await;
    let current = lab.current();
    let mut seen = Seen::default();
    for (name, id) in current.nics() {
        let sum = seen.nics.entry(name).or_default();
        for one in stats.iter().filter_map(|stats| stats.nics.get(id)) {
            let counts = [one.tx_packets, one.tx_bytes, one.rx_packets, one.rx_bytes];
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    let drops = lab.drops().await.into_iter();
    seen.drops = drops
        .map(|drop| ((drop.reason, drop.nic), [drop.packets, drop.bytes]))
        .collect();
    seen
}

fn lost(before: &Seen, now: &Seen) -> Vec<Drop> {
    let more = now.drops.iter().filter_map(|((reason, nic), [packets, bytes])| {
        let key = (reason.clone(), nic.clone());
        let [old_packets, old_bytes] = before.drops.get(&key).copied().unwrap_or_default();
        (*packets > old_packets).then(|| Drop {
            reason: reason.clone(),
            nic: nic.clone(),
            packets: packets - old_packets,
            bytes: bytes.saturating_sub(old_bytes),
        })
    });
    let mut drops: Vec<Drop> = more.collect();
    drops.sort_by(|a, b| (&a.reason, &a.nic).cmp(&(&b.reason, &b.nic)));
    drops
}

fn rates(before: &Seen, now: &Seen, time: Duration) -> Rates {
    let moved = now.nics.iter().filter_map(|(name, counts)| {
        let old = before.nics.get(name).copied().unwrap_or_default();
        let mut more = *counts;
        more.iter_mut()
            .zip(old)
            .for_each(|(count, old)| *count = count.saturating_sub(old));
        let [
            transmitted_packets,
            transmitted_bytes,
            received_packets,
            received_bytes,
        ] = more;
        (more != [0; 4]).then(|| NicRate {
            nic: name.clone(),
            transmitted_packets,
            transmitted_bytes,
            received_packets,
            received_bytes,
        })
    });
    let mut nics: Vec<NicRate> = moved.collect();
    nics.sort_by(|a, b| a.nic.cmp(&b.nic));
    Rates {
        seconds: time.as_secs_f64(),
        nics,
    }
}
