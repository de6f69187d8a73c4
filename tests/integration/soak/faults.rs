//! What goes wrong, and is put right again.

use super::plan::{Fault, Outage};
use crate::shared::Turn;
use local_cluster::Component;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use volttron_tests::{Broker, FaultProxy, Operator, Playground, Replica};

/// For how long nobody, or nothing, is there.
const GONE: Duration = Duration::from_secs(2);
/// How long a write is waited for at which the leader is to be killed.
const WRITE: Duration = Duration::from_secs(4);
/// The Lease, and the start of a busy machine's operator.
const TAKEN_OVER: Duration = Duration::from_secs(90);
const WRITES: [&str; 3] = ["/api/v1/", "/apis/apps/", "/apis/volttron.org/"];

/// Two replicas, and how often what was done to them.
pub struct Faults<'a> {
    playground: &'a Turn,
    standby: &'a Replica,
    kills: AtomicU32,
    kills_at_writes: AtomicU32,
    takeovers: AtomicU32,
    cuts: AtomicU32,
    outages: [AtomicU32; 4],
    most_memory: AtomicU64,
}

impl<'a> Faults<'a> {
    pub fn new(playground: &'a Turn, standby: &'a Replica) -> Self {
        for proxy in [playground.proxy(), &standby.proxy] {
            proxy.count(&WRITES.map(str::to_owned));
        }
        Self {
            playground,
            standby,
            kills: AtomicU32::default(),
            kills_at_writes: AtomicU32::default(),
            takeovers: AtomicU32::default(),
            cuts: AtomicU32::default(),
            outages: Default::default(),
            most_memory: AtomicU64::default(),
        }
    }

    /// Does something to the operators; both run afterwards.
    pub async fn disturb(&self, fault: Fault) {
        self.note_memory();
        let [leader, other] = self.by_lead().await;
        println!("{fault:?}");
        match fault {
            Fault::Kill => {
                self.kill(leader.0);
                tokio::time::sleep(GONE / 4).await;
            }
            Fault::KillAtWrite(number, moment) => {
                let mut fired = leader.1.kill_at(number, moment, leader.0.killer());
                let write = tokio::time::timeout(WRITE, &mut fired).await;
                leader.1.spare();
                let write = write.map_or_else(|_| fired.try_recv().ok(), Result::ok);
                if let Some(write) = write {
                    println!("  {write}");
                    add(&self.kills_at_writes);
                    add(&self.kills);
                } else {
                    self.kill(leader.0);
                }
            }
            Fault::Replace => {
                self.kill(leader.0);
                self.leads(other.0).await;
            }
            Fault::KillBoth => {
                self.kill(leader.0);
                self.kill(other.0);
                tokio::time::sleep(GONE).await;
                other.0.start_again();
            }
            Fault::Terminate => {
                let status = leader.0.terminate(TAKEN_OVER).await;
                assert!(status.success(), "{status}\n{}", leader.0.log_tail());
                add(&self.takeovers);
            }
            Fault::Pause => {
                (leader.0.pauser())();
                self.leads(other.0).await;
                leader.0.resume();
            }
            Fault::Away | Fault::Cut => {
                add(&self.cuts);
                for proxy in [leader.1, other.1] {
                    proxy.cut();
                    proxy.set_away(matches!(fault, Fault::Away));
                }
                tokio::time::sleep(GONE).await;
                for proxy in [leader.1, other.1] {
                    proxy.set_away(false);
                }
            }
        }
        if leader.0.pid().is_none() {
            leader.0.start_again();
        }
    }

    /// Takes away what the operators need, and gives it back.
    pub async fn take_away(&self, outage: Outage, broker: &Broker<'_>) {
        println!("{outage:?}");
        add(&self.outages[outage as usize]);
        match outage {
            Outage::ApiServer => self.restart(Component::ApiServer).await,
            Outage::Etcd => self.restart(Component::Etcd).await,
            Outage::Broker | Outage::WipedBroker => {
                broker.kill().await;
                tokio::time::sleep(GONE).await;
                if outage == Outage::WipedBroker {
                    broker.wipe().await;
                }
                broker.start_again().await;
            }
        }
    }

    /// Nothing is wrong any more.
    pub async fn calm(&self) {
        for operator in self.operators() {
            assert!(operator.pid().is_some(), "{}", operator.log_tail());
        }
        self.by_lead().await;
        self.note_memory();
    }

    /// The leader ends, and the other one takes over in peace.
    pub async fn hand_over(&self) {
        let [leader, other] = self.by_lead().await;
        leader.0.terminate(TAKEN_OVER).await;
        self.leads(other.0).await;
        leader.0.start_again();
    }

    /// No log tells of a panic, and neither has taken more memory than `most` KiB.
    pub fn check(&self, most: u64) {
        for operator in self.operators() {
            let log = operator.log();
            let panic = log.lines().position(|line| line.contains("panicked at"));
            let lines: Vec<_> = log.lines().skip(panic.unwrap_or_default()).collect();
            assert!(
                panic.is_none(),
                "{}",
                lines[..lines.len().min(40)].join("\n")
            );
        }
        let seen = self.most_memory.load(Ordering::Relaxed);
        assert!(seen < most, "an operator had {seen} KiB resident");
    }

    /// Where the logs are to be found when the cluster is gone.
    fn keep_logs(&self) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for (number, operator) in self.operators().into_iter().enumerate() {
            let path = folder.join(format!("soak-{number}.log"));
            println!("an operator's log: {}", path.display());
            let _ = std::fs::write(path, operator.log());
        }
    }

    /// What was done, in a line.
    pub fn told(&self) -> String {
        let [api, etcd, broker, wiped] = &self.outages;
        format!(
            "{} kills, {} of them at a write; {} changes of leader, {} cuts; restarts: API server {}, etcd {}, broker {}, \
             with a wiped disk {}; at most {} MiB resident",
            read(&self.kills),
            read(&self.kills_at_writes),
            read(&self.takeovers),
            read(&self.cuts),
            read(api),
            read(etcd),
            read(broker),
            read(wiped),
            self.most_memory.load(Ordering::Relaxed) / 1024,
        )
    }

    fn operators(&self) -> [&Operator; 2] {
        [self.playground.operator(), &self.standby.operator]
    }

    /// Waits until one of the two leads; it comes first.
    async fn by_lead(&self) -> [(&'a Operator, &'a FaultProxy); 2] {
        let playground: &'a Playground = self.playground;
        let first = (playground.operator(), playground.proxy());
        let second = (&self.standby.operator, &self.standby.proxy);
        let found = self
            .playground
            .eventually("a leader", TAKEN_OVER, async || {
                for (leader, other) in [(first, second), (second, first)] {
                    if is_leading(leader.0).await {
                        return Ok([leader, other]);
                    }
                }
                Err(self.standby.operator.log_tail())
            });
        found.await
    }

    async fn leads(&self, operator: &Operator) {
        add(&self.takeovers);
        let leads = self
            .playground
            .eventually("the other one leads", TAKEN_OVER, async || {
                is_leading(operator)
                    .await
                    .then_some(())
                    .ok_or_else(|| operator.log_tail())
            });
        leads.await;
    }

    fn kill(&self, operator: &Operator) {
        add(&self.kills);
        operator.kill();
    }

    async fn restart(&self, part: Component) {
        let cluster = self.playground.cluster().clone();
        tokio::task::spawn_blocking(move || {
            cluster.kill(part).unwrap();
            std::thread::sleep(GONE);
            // The others end themselves when what they need has been away for long.
            for part in [part, Component::ApiServer, Component::ControllerManager] {
                cluster.start_component(part).unwrap();
            }
        })
        .await
        .unwrap();
    }

    fn note_memory(&self) {
        for pid in self.operators().into_iter().filter_map(Operator::pid) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
            self.most_memory
                .fetch_max(peak.unwrap_or_default(), Ordering::Relaxed);
        }
    }
}

impl Drop for Faults<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

async fn is_leading(operator: &Operator) -> bool {
    let answer = operator.get("/metrics").await;
    answer.is_ok_and(|answer| answer.body.lines().any(|line| line == "volttron_leader 1"))
}

fn add(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU32) -> u32 {
    counter.load(Ordering::Relaxed)
}
