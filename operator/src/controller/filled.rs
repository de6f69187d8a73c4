//! Whether the caches hold all there is.
//!
//! A kube [`Store`](kube::runtime::reflector::Store) can tell too, but of those who wait for it at
//! the same time it wakes only the last one, and its own controller is one of them.

use kube::runtime::watcher::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// Counts the caches that are not filled yet.
#[derive(Clone)]
pub(super) struct Filled(Arc<watch::Sender<usize>>);

impl Default for Filled {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Filled {
    /// One more cache to be filled, by the watch whose events are shown to what is returned.
    pub(super) fn cache<K>(&self) -> impl Fn(&Event<K>) + Send + Sync + 'static {
        self.0.send_modify(|empty| *empty += 1);
        let (empty, filled) = (Arc::clone(&self.0), AtomicBool::new(false));
        move |event| {
            if matches!(event, Event::InitDone) && !filled.swap(true, Ordering::SeqCst) {
                empty.send_modify(|empty| *empty -= 1);
            }
        }
    }

    /// Whether all are.
    pub(super) fn is_so(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until all are.
    pub(super) async fn wait(&self) {
        // It fails only where the sender is gone, which is here.
        let _ = self.0.subscribe().wait_for(|empty| *empty == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_wait_go_on_when_the_last_cache_is_filled() {
        let filled = Filled::default();
        let (one, other) = (filled.cache::<()>(), filled.cache::<()>());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let filled = filled.clone();
                tokio::spawn(async move { filled.wait().await })
            })
            .collect();
        tokio::task::yield_now().await;
        one(&Event::InitDone);
        one(&Event::InitDone);
        assert!(!filled.is_so(), "a watch that began anew is one cache");
        other(&Event::Init);
        assert!(!filled.is_so());
        other(&Event::InitDone);
        for waits in waiting {
            waits.await.unwrap();
        }
        assert!(filled.is_so());
    }
}
