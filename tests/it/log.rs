//! What a test's thread logs.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, OnceLock},
};

use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

/// What was logged: level, target, and fields as text.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(tracing::Level, String, String)>>>);

impl Log {
    /// Captures what the present thread logs until the guard is dropped.
    pub(crate) fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        // As long as there is one subscriber only, what a thread without one meets first is taken
        // for what nobody wants to know, on every thread.
        static ANOTHER: OnceLock<tracing::Dispatch> = OnceLock::new();
        ANOTHER.get_or_init(|| tracing::Dispatch::new(tracing_subscriber::registry()));
        let log = Self::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Texts of the chain's events of this level.
    pub(crate) fn texts(&self, level: tracing::Level) -> Vec<String> {
        self.texts_of(level, "larder")
    }

    /// Texts of the events of this level and of targets that begin so.
    pub(crate) fn texts_of(&self, level: tracing::Level, target: &str) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let matching = events.iter().filter(|(at, of, _)| *at == level && of.starts_with(target));
        matching.map(|(_, _, text)| text.clone()).collect()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let metadata = event.metadata();
        let line = (*metadata.level(), metadata.target().to_owned(), text.0);
        self.0.lock().unwrap().push(line);
    }
}
