//! What Ctrl-C does to a command that runs for long.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use crate::output;

/// What Ctrl-C was pressed for.
#[derive(Default)]
pub(crate) struct Interrupts {
    stopped: AtomicBool,
    /// From now on there is nothing left to stop but waiting.
    closing: AtomicBool,
    first: watch::Sender<bool>,
}

impl Interrupts {
    /// Watches until the program ends: the first Ctrl-C stops the run, and one after it, or after
    /// the run, ends the program.
    pub(crate) fn watch() -> Arc<Self> {
        let interrupts = Arc::new(Self::default());
        let watching = Arc::clone(&interrupts);
        tokio::spawn(async move {
            // Where the system cannot tell, it never does.
            while tokio::signal::ctrl_c().await.is_ok() {
                let closing = watching.closing.load(Ordering::Relaxed);
                if watching.stopped.swap(true, Ordering::Relaxed) || closing {
                    std::process::exit(130);
                }
                output::remark(
                    "stopping: waiting for what is under way; what has been fetched is stored \
                     (Ctrl-C again does not wait)\n",
                );
                watching.first.send_replace(true);
            }
        });
        interrupts
    }

    /// Completes with the first Ctrl-C, for whoever waits.
    pub(crate) async fn first(&self) {
        // The sender is not dropped while it is borrowed.
        _ = self.first.subscribe().wait_for(|pressed| *pressed).await;
    }

    /// The run is over: Ctrl-C ends the program from now on.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether Ctrl-C was pressed.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
