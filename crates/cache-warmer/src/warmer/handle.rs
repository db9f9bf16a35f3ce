//! Warming behind what the program does.

use larder::Slots;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use super::{Event, Summary, Warmer};

/// A run that goes on by itself; dropping this lets it, if it was paused, too.
#[derive(Debug)]
pub struct Warming {
    events: mpsc::UnboundedReceiver<Event>,
    slots: Slots,
    /// Dropped or used, it ends the run.
    stop: Option<oneshot::Sender<()>>,
    /// Gone once it is joined.
    task: Option<JoinHandle<Summary>>,
}

impl Warmer {
    /// Runs the plan in a task of the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(self) -> Warming {
        // As many as there are tasks, a few times: whoever does not read them keeps no more.
        let (tell, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let slots = Slots::new(self.parallel);
        let within = slots.clone();
        let task = tokio::spawn(async move {
            let stopped = async {
                if stopped.await.is_err() {
                    // Whoever could stop it has gone.
                    std::future::pending::<()>().await;
                }
            };
            let observe = |event: &Event| {
                // Nobody may listen any more.
                _ = tell.send(event.clone());
            };
            self.run_within(&within, observe, stopped).await
        });
        Warming { events, slots, stop: Some(stop), task: Some(task) }
    }
}

impl Warming {
    /// What has become of the next task; `None` when the run has ended. Cancel safe.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Calls that are under way now.
    pub fn under_way(&self) -> usize {
        self.slots.under_way()
    }

    /// Begins no further call until [`Warming::resume`].
    pub fn pause(&self) {
        self.slots.pause();
    }

    /// Goes on.
    pub fn resume(&self) {
        self.slots.resume();
    }

    /// Begins no further call; those under way are waited for by [`Warming::join`].
    pub fn cancel(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            _ = stop.send(());
        }
    }

    /// Waits for the end of the run, which goes on if it was paused. Cancel safe: the run goes on.
    ///
    /// # Errors
    /// When the run panicked, or the runtime is being shut down.
    pub async fn join(mut self) -> Result<Summary, JoinError> {
        self.slots.resume();
        match self.task.take() {
            Some(task) => task.await,
            // It is there until it is joined, which happens once.
            None => Ok(Summary::default()),
        }
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        // Nobody else could.
        self.slots.resume();
    }
}
