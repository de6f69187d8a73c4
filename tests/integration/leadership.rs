//! Two replicas of the operator: one leads, the other takes over, and never do both act.

use crate::killed::Seen;
use crate::shared::{Turn, disturbed};
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use volttron_crds::Phase;
use volttron_tests::{Agent, Broker, Moment, Operator, SOON, SYSTEM, Space, run};

/// How many requests are approved at once.
const LOAD: usize = 40;
/// Roughly the middle of the writes that these requests take.
const MIDDLE: usize = 40;
/// The lease, the time a busy machine needs to start work, and the work.
const TAKEN_OVER: Duration = Duration::from_secs(90);
/// What the operator writes, but for the Lease.
const WRITES: [&str; 3] = ["/api/v1/", "/apis/apps/", "/apis/volttron.org/"];
/// Before each probe of the gate, itself a dry run, the operator asks who it is.
const PROBES: &str = "/apis/authentication.k8s.io/";
const LEASES: &str = "/apis/coordination.k8s.io/";

#[test]
fn a_standby_does_nothing_and_takes_over_from_a_killed_leader_under_load() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let standby = playground.replica("kill").await;
        standby.proxy.count(&writes());
        let space = playground.space("lead-kill").await;
        let seen = Seen::watch(&space);
        let names = filed(&space, broker).await;
        assert!(holder(&playground).await.starts_with("volttron-operator_"));
        assert_leads(playground.operator(), true).await;
        assert_leads(&standby.operator, false).await;

        let leader = playground.operator();
        in_the_middle(&playground, &space, &names, leader.killer()).await;
        all_issued(&space, &seen, &names).await;
        assert!(
            holder(&playground)
                .await
                .starts_with("volttron-operator-kill_")
        );
        assert_leads(&standby.operator, true).await;
        assert!(!standby.proxy.writes().is_empty());
        all_told(&space, &names).await;

        // What was the leader comes back as the standby.
        leader.start_again();
        leader.wait_standing_by().await;
        assert_leads(leader, false).await;
        standby.operator.terminate(SOON).await;
        leader.wait_ready().await;
    });
}

#[test]
fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let standby = playground.replica("term").await;
        let mut all = writes();
        all.push(PROBES.to_owned());
        standby.proxy.count(&all);
        let space = playground.space("lead-term").await;
        let seen = Seen::watch(&space);
        let names = filed(&space, broker).await;
        // Nothing but its lead makes a replica write.
        assert_eq!(standby.proxy.writes(), Vec::<String>::new());
        join_all(names.iter().map(|name| space.approve(name))).await;
        let leader = holder(&playground).await;
        let is_given_up = async || match holder(&playground).await {
            holder if holder == leader => Err(holder),
            _ => Ok(Instant::now()),
        };
        let is_taken = async || match holder(&playground).await {
            holder if holder.is_empty() || holder == leader => Err(holder),
            _ => Ok(()),
        };
        let handed_over = async {
            let given_up = playground.eventually("the Lease is given up", SOON, is_given_up);
            let given_up = given_up.await;
            playground
                .eventually("the Lease is taken", SOON, is_taken)
                .await;
            given_up
        };
        let asked = Instant::now();
        let (status, given_up) = futures::join!(playground.operator().terminate(SOON), handed_over);
        assert!(status.success(), "{status}");
        let (gave_up, taken) = (given_up - asked, given_up.elapsed());
        // Work in hand has three seconds, and others look every two; the rest is for a busy machine.
        assert!(
            gave_up < Duration::from_secs(6),
            "{gave_up:?}: work was not left"
        );
        assert!(
            taken < Duration::from_secs(6),
            "{taken:?}: nobody took over"
        );
        standby.operator.wait_ready().await;
        all_issued(&space, &seen, &names).await;
        all_told(&space, &names).await;
        playground.operator().start_again();
        playground.operator().wait_standing_by().await;
        standby.operator.terminate(SOON).await;
        playground.operator().wait_ready().await;
    });
}

#[test]
fn a_leader_that_was_stopped_writes_nothing_when_it_wakes() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let standby = playground.replica("stop").await;
        let space = playground.space("lead-stop").await;
        let seen = Seen::watch(&space);
        let names = filed(&space, broker).await;
        let sleeper = playground.operator();
        in_the_middle(&playground, &space, &names, sleeper.pauser()).await;
        all_issued(&space, &seen, &names).await;
        assert_leads(&standby.operator, true).await;

        playground.proxy().count(&writes());
        sleeper.resume();
        sleeper.wait_standing_by().await;
        issue(&space, broker, "later").await;
        assert_eq!(playground.proxy().writes(), Vec::<String>::new());
        assert!(sleeper.log().contains("no longer leads"));
        standby.operator.terminate(SOON).await;
        sleeper.wait_ready().await;
    });
}

#[test]
fn a_leader_that_was_stopped_between_two_calls_to_a_broker_makes_no_second_one() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let proxy = broker.behind_proxy().await;
        let sleeper = playground.operator();
        // The connections that it has to the broker itself end.
        sleeper.kill();
        sleeper.start_again();
        sleeper.wait_ready().await;
        let standby = playground.replica("calls").await;
        let space = playground.space("lead-calls").await;
        let agent = Agent::new(&format!("central.{}.agent", space.namespace));
        space.file("agent", &broker.instance, &agent.csr).await;
        space.phase("agent", Phase::Pending).await;
        proxy.count(&[format!("/api/users/{}", agent.common_name)]);
        let stopped = proxy.kill_at(1, Moment::After, sleeper.pauser());
        space.approve("agent").await;
        stopped.await.expect("the leader makes the user");
        space.issued_within("agent", TAKEN_OVER).await;
        assert_leads(&standby.operator, true).await;

        proxy.count(&["/api/".to_owned()]);
        sleeper.resume();
        sleeper.wait_standing_by().await;
        issue(&space, broker, "later").await;
        assert_eq!(proxy.writes(), Vec::<String>::new());
        standby.operator.terminate(SOON).await;
        sleeper.wait_ready().await;
    });
}

#[test]
fn a_leader_that_cannot_renew_stops_before_another_starts() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let calls = broker.behind_proxy().await;
        calls.count(&["/api/".to_owned()]);
        // The connections that it has to the broker itself end.
        playground.operator().kill();
        playground.operator().start_again();
        playground.operator().wait_ready().await;
        let standby = playground.replica("cut").await;
        let space = playground.space("lead-cut").await;
        let seen = Seen::watch(&space);
        let other = &standby.proxy;
        other.count(&writes());
        // It reaches everything but the Lease, so that nothing else would keep it from acting.
        playground.proxy().refuse(&[LEASES]);
        playground.proxy().count(&writes());

        let over = AtomicBool::new(false);
        let mut names = Vec::new();
        let work = async {
            while !over.load(Ordering::Relaxed) {
                let name = format!("work-{}", names.len());
                issue(&space, broker, &name).await;
                names.push(name);
            }
        };
        let taken_over = async {
            let taken = playground.eventually("the other one acts", TAKEN_OVER, async || {
                let (first, _) = other.first_and_last_write().ok_or("it wrote nothing")?;
                Ok(first)
            });
            let first = taken.await;
            playground.operator().wait_standing_by().await;
            over.store(true, Ordering::Relaxed);
            first
        };
        let ((), first_of_new) = futures::join!(work, taken_over);
        for written in [playground.proxy(), &*calls] {
            let (_, last_of_old) = written.first_and_last_write().unwrap();
            assert!(
                last_of_old < first_of_new,
                "both acted for {:?}",
                last_of_old - first_of_new
            );
        }
        assert!(names.len() > 2, "little was done: {names:?}");
        for name in &names {
            seen.check(name);
        }
        assert_leads(playground.operator(), false).await;
        playground.proxy().refuse(&[]);
        standby.operator.terminate(SOON).await;
        playground.operator().wait_ready().await;
    });
}

/// Files the load.
async fn filed(space: &Space<'_>, broker: &Broker<'_>) -> Vec<String> {
    let names: Vec<_> = (0..LOAD).map(|number| format!("agent-{number}")).collect();
    let file = async |name: &String| {
        let agent = Agent::new(&format!("central.{}.{name}", space.namespace));
        space.file(name, &broker.instance, &agent.csr).await;
        space.phase(name, Phase::Pending).await;
    };
    join_all(names.iter().map(file)).await;
    names
}

/// Approves the load at once, and has `end` done to the leader in the middle of its writes.
async fn in_the_middle(
    playground: &Turn,
    space: &Space<'_>,
    names: &[String],
    end: std::sync::Arc<dyn Fn() + Send + Sync>,
) {
    let namespace = &space.namespace;
    playground.proxy().count(&[
        format!("/apis/volttron.org/v1alpha1/namespaces/{namespace}/"),
        format!("/api/v1/namespaces/{namespace}/"),
    ]);
    let ended = playground.proxy().kill_at(MIDDLE, Moment::After, end);
    join_all(names.iter().map(|name| space.approve(name))).await;
    ended.await.expect("the leader comes to the middle");
}

/// Waits until the whole load is issued; each request got one certificate, and never another.
async fn all_issued(space: &Space<'_>, seen: &Seen, names: &[String]) {
    join_all(
        names
            .iter()
            .map(|name| space.issued_within(name, TAKEN_OVER)),
    )
    .await;
    for name in names {
        seen.check(name);
    }
}

/// Waits until the approval of each request has its Event, whoever was to tell it; it has only one.
async fn all_told(space: &Space<'_>, names: &[String]) {
    let events = Api::<Event>::namespaced(space.playground.admin(), &space.namespace);
    let what = "each approval has its Event";
    let told = space.playground.eventually(what, SOON, async || {
        let listed = events.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| error.to_string())?.items;
        let approved = listed.iter();
        let approved = approved.filter(|event| event.reason.as_deref() == Some("Approved"));
        let told = approved.filter_map(|event| event.regarding.as_ref()?.name.clone());
        let told: Vec<_> = told.collect();
        match names.iter().find(|name| !told.contains(name)) {
            None => Ok(told.len()),
            Some(missing) => Err(format!("{missing} has none; {told:?} have")),
        }
    });
    assert_eq!(told.await, names.len(), "an approval was told twice");
}

async fn issue(space: &Space<'_>, broker: &Broker<'_>, name: &str) {
    let agent = Agent::new(&format!("central.{}.{name}", space.namespace));
    space.file(name, &broker.instance, &agent.csr).await;
    space.phase_within(name, Phase::Pending, TAKEN_OVER).await;
    space.approve(name).await;
    space.issued_within(name, TAKEN_OVER).await;
}

fn writes() -> Vec<String> {
    WRITES.map(str::to_owned).to_vec()
}

async fn holder(playground: &Turn) -> String {
    let leases = Api::<Lease>::namespaced(playground.admin(), SYSTEM);
    let lease = leases.get("volttron-operator").await.unwrap();
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    holder.unwrap_or_default()
}

async fn assert_leads(operator: &Operator, leads: bool) {
    let metrics = operator.get("/metrics").await.unwrap().body;
    let gauge = format!("volttron_leader {}", u8::from(leads));
    assert!(metrics.lines().any(|line| line == gauge), "{metrics}");
    let of_work = metrics.contains("volttron_approval_gate_standing");
    assert_eq!(of_work, leads, "{metrics}");
}
