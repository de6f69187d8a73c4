//! Many requests, approved at once, while everything fails that can: at the end each has exactly the certificate it should have,
//! Secret, status, revocation list and broker agree, and nothing else is left.
//!
//! `make soak` runs it at length. A run prints its seed: `SOAK_SEED` plays the same plan again.

mod check;
mod faults;
mod lives;
mod plan;
mod witness;

use crate::shared::{Turn, disturbed};
use check::World;
use faults::Faults;
use futures::future::join_all;
use lives::{End, Expected, Requester};
use local_cluster::Base;
use plan::{Round, Size};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use volttron_tests::{Broker, Issued, Login, Space, run};
use witness::Witness;

/// The longest that a step of a life takes while everything fails.
const PATIENCE: Duration = Duration::from_secs(400);
/// The longest that it takes until all is well when nothing fails any more.
const CONVERGED: Duration = Duration::from_mins(3);
/// How many requests are in one namespace; one requester has room for a hundred that wait.
const IN_A_SPACE: usize = 40;
/// More than an operator has resident (KiB); one built for release takes less.
const MEMORY: u64 = 160 * 1024;

#[test]
fn faults_of_every_kind_leave_each_request_with_one_certificate_and_nothing_else() {
    run(async {
        let size = Size::from_environment();
        println!("{size:?}; SOAK_SEED={} plays it again", size.seed);
        let begun = Instant::now();
        let playground = disturbed().await;
        let standby = playground.replica("soak").await;
        let namespace = playground.namespace("soak").await;
        let instance = playground.instance(&namespace, "central", json!({})).await;
        let broker = instance.start_broker(Base::Machine).await;
        let mut spaces = Vec::new();
        for _ in 0..(size.requests * size.rounds).div_ceil(IN_A_SPACE) {
            spaces.push(playground.space("soaked").await);
        }
        let witnesses: Vec<_> = spaces.iter().map(Witness::watch).collect();
        let mut world = World {
            spaces: &spaces,
            witnesses: &witnesses,
            broker: &broker,
            belongings: BTreeSet::new(),
        };
        world.belongings = world.belongings().await.unwrap();
        let faults = Faults::new(&playground, &standby);
        let mut expected = Vec::new();
        for (number, round) in size.plan().into_iter().enumerate() {
            let started = Instant::now();
            expected.extend(endure(&world, &faults, round, number, size).await);
            faults.calm().await;
            println!(
                "round {number}: faults and lives took {:?}",
                started.elapsed()
            );
            all_is_well(&playground, &world, &expected).await;
            println!("round {number}: all was well after {:?}", started.elapsed());
        }
        faults.hand_over().await;
        all_is_well(&playground, &world, &expected).await;
        certificates_open_the_broker(&world, &expected).await;
        faults.check(MEMORY);
        println!(
            "seed {}: {} requests, {}; {:?}",
            size.seed,
            expected.len(),
            faults.told(),
            begun.elapsed()
        );
        standby.operator.terminate(CONVERGED).await;
        playground.operator().wait_ready().await;
    });
}

/// Files the requests of a round and approves them at once, while faults happen; returns what has to come of it.
async fn endure(
    world: &World<'_>,
    faults: &Faults<'_>,
    round: Round,
    number: usize,
    size: Size,
) -> Vec<Expected> {
    let (filed, mut all_filed) = watch::channel(0);
    let (approve, approval) = watch::channel(false);
    let lives = round
        .lives
        .into_iter()
        .enumerate()
        .map(|(index, (life, pauses))| {
            let space = (number * size.requests + index) / IN_A_SPACE;
            let requester = Requester {
                space: &world.spaces[space],
                number: space,
                instance: &world.broker.instance,
                name: format!("r{number}-{index}-{life:?}").to_lowercase(),
                filed: filed.clone(),
                approval: approval.clone(),
            };
            requester.live(life, pauses)
        });
    let go = async {
        let _ = all_filed.wait_for(|count| *count == size.requests).await;
        println!("all filed");
        approve.send_replace(true);
    };
    let mut begin = [approval.clone(), approval.clone()];
    let [of_operators, of_others] = &mut begin;
    let operators = async {
        let _ = of_operators.wait_for(|given| *given).await;
        for (pause, fault) in round.faults {
            tokio::time::sleep(pause).await;
            faults.disturb(fault).await;
        }
    };
    let others = async {
        let _ = of_others.wait_for(|given| *given).await;
        for (pause, outage) in round.outages {
            tokio::time::sleep(pause).await;
            faults.take_away(outage, world.broker).await;
        }
    };
    let (ends, (), (), ()) = futures::join!(join_all(lives), go, operators, others);
    ends.into_iter().flatten().collect()
}

async fn all_is_well(playground: &Turn, world: &World<'_>, expected: &[Expected]) {
    playground
        .eventually("all is well", CONVERGED, async || {
            let faults = world.faults(expected).await?;
            if faults.is_empty() {
                return Ok(());
            }
            Err(format!("{} faults:\n{}", faults.len(), faults.join("\n")))
        })
        .await;
}

/// Of those that had two certificates for one key, the broker takes the second and refuses the first.
async fn certificates_open_the_broker(world: &World<'_>, expected: &[Expected]) {
    let twice = expected.iter().filter(|it| it.certificates == (2..=2));
    for (it, agent) in twice
        .filter_map(|it| Some((it, it.agent.as_ref()?)))
        .take(3)
    {
        assert!(matches!(it.end, End::Issued(_)));
        let space: &Space<'_> = &world.spaces[it.space];
        let issued = space.issued(&it.name).await;
        for chains in world.witnesses[it.space]
            .saw(&it.name)
            .certificates
            .values()
        {
            let chain = chains.first().unwrap().clone();
            let is_current = chain == issued.chain;
            let login = Login::certificate(
                agent,
                &Issued {
                    chain,
                    ..issued.clone()
                },
            );
            let broker: &Broker<'_> = world.broker;
            let entered = broker.connect(login).await.map(drop);
            assert_eq!(entered.is_ok(), is_current, "{}: {entered:?}", it.name);
        }
    }
}
