//! Feels a broker's pulse, so that one that dies, comes back or was started anew is noticed soon.

use super::ManagementClient;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often a broker is asked. A node that was away for less has a shorter uptime afterwards.
const INTERVAL: Duration = Duration::from_secs(5);

/// A sign of life: how long each node has been up, in milliseconds, or why none was seen.
type Pulse = Result<BTreeMap<String, u64>, &'static str>;

/// Calls `changed` whenever the broker went away, came back, or was started anew. It never ends.
pub async fn watch_pulse(client: ManagementClient, changed: impl Fn()) {
    let mut before: Option<Pulse> = None;
    loop {
        let pulse = client.uptimes().await.map_err(|error| error.reason());
        if before.is_some_and(|before| differs(&before, &pulse)) {
            changed();
        }
        before = Some(pulse);
        tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.9..1.1))).await;
    }
}

fn differs(before: &Pulse, now: &Pulse) -> bool {
    match (before, now) {
        (Ok(before), Ok(now)) => {
            let restarted = |(node, uptime)| before.get(node).is_none_or(|known| uptime < known);
            before.len() != now.len() || now.iter().any(restarted)
        }
        (before, now) => before != now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_seen_and_going_on_is_not() {
        let up = |nodes: &[(&str, u64)]| -> Pulse {
            Ok(nodes
                .iter()
                .map(|(name, up)| ((*name).to_owned(), *up))
                .collect())
        };
        let before = up(&[("a", 5000), ("b", 9000)]);
        for (now, expected) in [
            (up(&[("a", 5000), ("b", 9000)]), false),
            (up(&[("a", 10_000), ("b", 14_000)]), false),
            (up(&[("a", 300), ("b", 14_000)]), true),
            (up(&[("a", 10_000)]), true),
            (up(&[("a", 10_000), ("c", 14_000)]), true),
            (Err("Unreachable"), true),
        ] {
            assert_eq!(differs(&before, &now), expected, "{now:?}");
        }
        assert!(!differs(&Err("Unreachable"), &Err("Unreachable")));
        assert!(differs(&Err("Unreachable"), &Err("Unauthorized")));
        assert!(differs(&Err("Unreachable"), &before));
    }
}
