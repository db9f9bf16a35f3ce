//! One node at a time.
//!
//! A turn is a load that brings nothing: in one process a key is loaded once at a time, and processes
//! that share a tier keep a lease while they load. So the turn ends with the process that has it.

use std::{future::pending, pin::pin, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use larder::{Cache, Error, Hit, Key, Loaded, OriginErrorKind, PolicyPatch, ReadOptions};
use tokio::{sync::oneshot, time::timeout};

/// How long somebody else's turn is waited for: as long as a short job may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The right to run a job, until it is ended or dropped.
pub(super) struct Turn<'c> {
    load: BoxFuture<'c, Result<Hit, Error>>,
    end: oneshot::Sender<()>,
}

/// Whose turn it is.
pub(super) enum Whose<'c> {
    Ours(Turn<'c>),
    /// Somebody else's, which has ended.
    Ended,
    /// Somebody else's, which goes on.
    Others,
}

impl<'c> Turn<'c> {
    /// Asks for the turn. Dropped early it takes none.
    pub(super) async fn take(cache: &'c Cache, key: &'c Key) -> Result<Whose<'c>, Error> {
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        // No limit: jobs take hours, and the lease is kept for as long. Whoever gives up waiting must
        // not come to have the turn later.
        let patch = PolicyPatch::default()
            .ttl(PATIENCE)
            .soft_timeout(Duration::ZERO)
            .hard_timeout(Duration::ZERO)
            .cancel_abandoned(true);
        let options = ReadOptions::default().policy(patch);
        let load = cache.get_or_load_with(key, options, |context| async move {
            let over = || context.fail("whoever asked for the turn has gone");
            tell.send(()).map_err(|()| over())?;
            ended.await.map_err(|_gone| over())?;
            Ok(Loaded::absent().do_not_store())
        });
        let mut load = load.boxed();
        let begun = pin!(async {
            if told.await.is_err() {
                // It joins somebody else's turn, and never begins.
                pending::<()>().await;
            }
        });
        match timeout(PATIENCE, select(begun, &mut load)).await {
            Ok(Either::Left(((), _))) => Ok(Whose::Ours(Self { load, end })),
            Ok(Either::Right((Ok(_), _))) => Ok(Whose::Ended),
            Ok(Either::Right((Err(Error::Origin(error)), _)))
                if error.kind() == OriginErrorKind::GaveUp =>
            {
                Ok(Whose::Ended)
            }
            Ok(Either::Right((Err(error), _))) => Err(error),
            Err(_elapsed) => Ok(Whose::Others),
        }
    }

    /// Lets others have it.
    pub(super) async fn end(self) {
        if self.end.send(()).is_ok()
            && let Err(error) = self.load.await
        {
            tracing::debug!(%error, "a job's turn has ended otherwise than it should");
        }
    }
}
