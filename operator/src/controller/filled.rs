//! Whether a cache has been filled.

use tokio::sync::watch;

/// Tells that a cache has been filled for the first time. A [`Store`](kube::runtime::reflector::Store)
/// tells it as well, but wakes one of those that wait for it and lets the others sleep for good.
#[derive(Clone)]
pub(super) struct Filled(watch::Sender<bool>);

impl Default for Filled {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Filled {
    /// It has been filled.
    pub(super) fn set(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has.
    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it has been filled.
    pub(super) async fn wait(&self) {
        // It fails only where the sender is gone, which `self` is.
        let _ = self.0.subscribe().wait_for(|filled| *filled).await;
    }
}
