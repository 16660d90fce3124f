//! Where the daemon says what happens to it: standard error in front, a file of bounded size otherwise. Nothing per packet.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;

use lab::RunDir;
use tracing::Level;

use crate::process::Mode;

/// What a daemon that detached has to say, in the run directory.
const FILE: &str = "daemon.log";
/// Thousands of lines; when it is full the file starts anew.
const LIMIT_BYTES: u64 = 1 << 20;

/// A file that starts anew when it is full.
struct Bounded {
    file: File,
    written: u64,
}

/// Sends this process's log, and what it writes to standard error, to its place.
///
/// # Errors
/// The log cannot be opened.
pub(crate) fn start(run_dir: &RunDir, mode: Mode) -> io::Result<()> {
    let format = tracing_subscriber::fmt().with_target(false);
    // A subscriber that is there already belongs to the caller, and is as good.
    if mode == Mode::Front {
        let _ = format
            .with_max_level(Level::WARN)
            .without_time()
            .with_writer(io::stderr)
            .try_init();
        return Ok(());
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(run_dir.file(FILE))?;
    rustix::stdio::dup2_stderr(&file)?;
    let bounded = Bounded {
        written: file.metadata()?.len(),
        file,
    };
    let _ = format
        .with_max_level(Level::INFO)
        .with_ansi(false)
        .with_writer(Mutex::new(bounded))
        .try_init();
    Ok(())
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= LIMIT_BYTES {
            self.file.set_len(0)?;
            self.written = 0;
        }
        let length = self.file.write(bytes)?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
