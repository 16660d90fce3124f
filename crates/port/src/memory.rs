//! Ports inside this process, for tests and benches: what is written at one end is read at the other.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use packet::{Burst, Packet, VnetHeader};

use crate::offloads::Offloads;
use crate::queue::{Outlet, Queue, WriteError};

/// One end of a pair.
#[derive(Debug)]
pub struct Memory {
    outgoing: SyncSender<Frame>,
    incoming: Receiver<Frame>,
    outlet: Outlet,
}

#[derive(Debug)]
struct Frame {
    vnet: VnetHeader,
    bytes: Vec<u8>,
}

/// Two ends, each taking `capacity` packets before it is full. What needs more than `offloads` arrives as segments.
#[must_use]
pub fn pair(capacity: usize, offloads: Offloads) -> (Queue, Queue) {
    let (left_outgoing, right_incoming) = sync_channel(capacity);
    let (right_outgoing, left_incoming) = sync_channel(capacity);
    let end = |outgoing, incoming| {
        Queue::Memory(Memory {
            outgoing,
            incoming,
            outlet: Outlet::new(offloads),
        })
    };
    (
        end(left_outgoing, left_incoming),
        end(right_outgoing, right_incoming),
    )
}

impl Memory {
    pub(crate) fn read_burst(&mut self, burst: &mut Burst) -> io::Result<usize> {
        let mut count = 0;
        while !burst.is_full() {
            match self.incoming.try_recv() {
                Ok(frame) => count += usize::from(burst.push(&frame.bytes, frame.vnet)),
                Err(TryRecvError::Disconnected) if count == 0 => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the other end is gone"));
                }
                Err(_) => break,
            }
        }
        Ok(count)
    }

    pub(crate) fn offloads(&self) -> Offloads {
        self.outlet.offloads
    }

    pub(crate) fn write(&mut self, packet: &mut Packet) -> Result<(), WriteError> {
        let outgoing = &self.outgoing;
        self.outlet.deliver(packet, |packet| send(outgoing, packet))
    }

    pub(crate) fn write_fragments(&mut self, packet: &mut Packet, mtu: u16) -> Result<(), WriteError> {
        let outgoing = &self.outgoing;
        self.outlet
            .deliver_fragments(packet, mtu, |packet| send(outgoing, packet))
    }
}

fn send(outgoing: &SyncSender<Frame>, packet: &mut Packet) -> Result<(), WriteError> {
    let frame = Frame {
        vnet: packet.vnet,
        bytes: packet.bytes().to_vec(),
    };
    outgoing.try_send(frame).map_err(|error| match error {
        TrySendError::Full(_) => WriteError::Full,
        TrySendError::Disconnected(_) => WriteError::Gone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::is_gone;

    #[test]
    fn what_goes_in_comes_out() {
        let (mut left, mut right) = pair(2, Offloads::Uso);
        let mut burst = Burst::new(4);
        assert_eq!(right.read_burst(&mut burst).unwrap(), 0);
        for text in [b"one", b"two"] {
            left.write(&mut Packet::from_bytes(text)).unwrap();
        }
        assert_eq!(
            left.write(&mut Packet::from_bytes(b"more")),
            Err(WriteError::Full)
        );
        assert_eq!(right.read_burst(&mut burst).unwrap(), 2);
        assert_eq!(burst.filled()[1].bytes(), b"two");
        drop(left);
        assert_eq!(
            right.write(&mut Packet::from_bytes(b"late")),
            Err(WriteError::Gone)
        );
        assert!(is_gone(&right.read_burst(&mut burst).unwrap_err()));
    }
}
