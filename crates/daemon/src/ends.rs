//! Everything that can end a lab, and waiting for the first of it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::process::Mode;
use crate::server::Stop;

/// The signals, the user of a private lab.
#[derive(Debug)]
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    mode: Mode,
    /// The other side of a private lab's standard input.
    user: Option<pipe::Receiver>,
}

/// Why a lab ends.
#[derive(Debug)]
pub(crate) enum End {
    /// Of a lab in front.
    Signal,
    /// Of a detached daemon: it ends, and the lab waits with its keeper for the next one.
    Drain,
    Stop(Stop),
    /// Its private user is gone.
    Abandoned,
    KeeperDied,
}

impl Ends {
    /// From here on signals no longer kill this process. Starts no thread; call it inside the runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn watch(mode: Mode) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            mode,
            user: match mode {
                Mode::Private => {
                    let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
                    Some(pipe::Receiver::from_owned_fd(stdin)?)
                }
                Mode::Front | Mode::Detached => None,
            },
        })
    }

    /// Waits for the first reason to end. `keeper` becomes readable when the keeper dies.
    pub(crate) async fn first(
        mut self,
        stops: &mut mpsc::Receiver<Stop>,
        keeper: io::Result<OwnedFd>,
    ) -> End {
        let keeper_died = async {
            match keeper.and_then(watch_keeper) {
                Ok(died) => drop(died.await),
                Err(error) => {
                    tracing::warn!("the keeper is not watched: {error}");
                    std::future::pending::<()>().await;
                }
            }
        };
        let abandoned = async {
            match &mut self.user {
                // Nothing more is written there; reading ends when the other side is gone.
                Some(user) => while user.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {},
                None => std::future::pending().await,
            }
        };
        let signalled = match self.mode {
            Mode::Detached => End::Drain,
            Mode::Front | Mode::Private => End::Signal,
        };
        let hung_up = async {
            loop {
                self.hangup.recv().await;
                if self.mode != Mode::Detached {
                    return;
                }
                tracing::info!("SIGHUP is ignored: `peerlane apply` is the way to change a running lab");
            }
        };
        tokio::select! {
            Some(stop) = stops.recv() => End::Stop(stop),
            _ = self.interrupt.recv() => signalled,
            _ = self.terminate.recv() => signalled,
            () = hung_up => End::Signal,
            () = abandoned => End::Abandoned,
            () = keeper_died => End::KeeperDied,
        }
    }
}

/// A thread that waits for the keeper's end. It lives as long as this process.
fn watch_keeper(liveness: OwnedFd) -> io::Result<oneshot::Receiver<()>> {
    let (died, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name(String::from("keeper-watch"))
        .spawn(move || {
            if let Err(error) = crate::thread::drop_capabilities() {
                tracing::warn!("keeper-watch keeps its capabilities: {error}");
            }
            let ended = |fd: &OwnedFd| poll(&mut [PollFd::new(fd, PollFlags::IN)], None);
            while let Err(Errno::INTR) = ended(&liveness) {}
            died.send(())
        })?;
    Ok(receiver)
}
