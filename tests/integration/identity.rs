//! Approvals, denials and names belong to identities: an instance, a common name and a requester.

use crate::shared::{central, playground};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use volttron_crds::{DecisionHow, Phase, VolttronCertRequest, well_known};
use volttron_tests::{Agent, Instance, Issued, Login, SOON, Space, run};

/// Files a request with a new key, and returns the key's agent.
async fn file(space: &Space<'_>, name: &str, instance: &Instance<'_>, common_name: &str) -> Agent {
    let agent = Agent::new(common_name);
    space.file(name, instance, &agent.csr).await;
    agent
}

/// How the decision on a request came about, and the request that carries it.
fn how(request: &VolttronCertRequest) -> Option<(DecisionHow, Option<String>)> {
    let decision = request.status.as_ref()?.decision.as_ref()?;
    Some((decision.how, decision.request.clone()))
}

/// Takes the decision on a request back.
async fn lift(space: &Space<'_>, name: &str) {
    let patch = json!({"metadata": {"annotations": {well_known::DECISION: null}}});
    kube::Api::<VolttronCertRequest>::namespaced(space.playground.approver(), &space.namespace)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Waits until a revoked certificate is refused, which it is soon after its user is back.
async fn refused(broker: &volttron_tests::Broker<'_>, agent: &Agent, issued: &Issued) {
    let result = broker.connect(Login::certificate(agent, issued)).await;
    assert!(result.is_err(), "a revoked certificate was let in");
}

#[test]
fn an_approval_renews_itself_and_what_was_superseded_goes_until_the_identity_is_denied() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("renewed").await;
        let name = "central.renewed.forwarder";
        let first = file(&space, "first", &broker.instance, name).await;
        space.approve("first").await;
        let of_first = space.issued("first").await;
        let carrier = Some(format!("{}/first", space.namespace));

        let second = file(&space, "second", &broker.instance, name).await;
        let of_second = space.issued("second").await;
        assert_eq!(
            how(&of_second.request),
            Some((DecisionHow::Renewal, carrier.clone()))
        );
        let third = file(&space, "third", &broker.instance, name).await;
        let of_third = space.issued("third").await;
        assert_eq!(
            how(&of_third.request),
            Some((DecisionHow::Renewal, carrier))
        );
        let status = of_third.request.status.clone().unwrap();
        let at = |text: Option<String>| text.unwrap().parse::<jiff::Timestamp>().unwrap();
        let (from, renew, to) = (
            at(status.not_before),
            at(status.renew_at),
            at(status.not_after),
        );
        let share =
            renew.duration_since(from).as_secs_f64() / to.duration_since(from).as_secs_f64();
        assert!(
            (0.61..0.72).contains(&share),
            "renewAt at {share} of the life"
        );

        // The second is superseded; the first is as well, and carries the approval.
        space.gone("second").await;
        assert_eq!(space.get("first").await.phase(), Some(Phase::Issued));
        for (agent, issued) in [
            (&first, &of_first),
            (&second, &of_second),
            (&third, &of_third),
        ] {
            let connection = broker.connect(Login::certificate(agent, issued)).await;
            connection.expect("a certificate that is only superseded is good");
        }

        // A denial of one request is a denial of the identity, with all its certificates.
        space.deny("third", "stolen").await;
        space.phase("third", Phase::Denied).await;
        let denied = space.phase("first", Phase::Denied).await;
        let by = Some(format!("{}/third", space.namespace));
        assert_eq!(how(&denied), Some((DecisionHow::Policy, by)));
        broker.user(name, false, SOON).await;
        let fourth = file(&space, "fourth", &broker.instance, name).await;
        let says = space.says("fourth", "Denied", "Denied").await;
        assert!(says.contains("third") && says.contains("stolen"), "{says}");
        assert!(space.secret("fourth").await.is_none());

        // Approved again: the identity is in, with new certificates alone.
        space.approve("fourth").await;
        let of_fourth = space.issued("fourth").await;
        broker
            .connect(Login::certificate(&fourth, &of_fourth))
            .await
            .unwrap();
        for (agent, issued) in [
            (&first, &of_first),
            (&second, &of_second),
            (&third, &of_third),
        ] {
            refused(broker, agent, issued).await;
        }
        assert_eq!(space.get("third").await.phase(), Some(Phase::Denied));
    });
}

#[test]
fn a_denied_identity_stays_denied_until_the_denial_is_lifted_or_deleted() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("banned").await;
        let name = "central.banned.forwarder";
        file(&space, "first", &broker.instance, name).await;
        space.deny("first", "unknown building").await;
        space.phase("first", Phase::Denied).await;
        file(&space, "second", &broker.instance, name).await;
        space.phase("second", Phase::Denied).await;

        lift(&space, "first").await;
        for request in ["first", "second"] {
            let pending = space.phase(request, Phase::Pending).await;
            assert_eq!(how(&pending), None, "{request}");
        }
        space.deny("first", "again").await;
        space.phase("second", Phase::Denied).await;
        space.delete("first").await;
        space.phase("second", Phase::Pending).await;
        space.approve("second").await;
        space.issued("second").await;
    });
}

#[test]
fn deleting_a_denial_brings_back_nothing_it_has_ended() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("undone").await;
        let name = "central.undone.forwarder";
        file(&space, "first", &broker.instance, name).await;
        space.approve("first").await;
        space.issued("first").await;
        file(&space, "second", &broker.instance, name).await;
        space.issued("second").await;
        space.deny("second", "out").await;
        space.phase("first", Phase::Denied).await;
        space.delete("second").await;
        space.gone("second").await;
        // Whoever may delete requests may not approve them by that.
        file(&space, "third", &broker.instance, name).await;
        let third = space.phase("third", Phase::Pending).await;
        assert_eq!(how(&third), None);
        assert_eq!(space.get("first").await.phase(), Some(Phase::Denied));
        // Nor by filing another request under the name of the denied one, as a sidecar does.
        file(&space, "second", &broker.instance, name).await;
        let second = space.phase("second", Phase::Pending).await;
        assert_eq!(how(&second), None);
        let first = space.get("first").await;
        assert_eq!(first.phase(), Some(Phase::Denied));
        assert!(!broker.has_user(name).await);
        // Once it is told apart from an approval that was ended, an approval is one.
        lift(&space, "first").await;
        space.phase("first", Phase::Pending).await;
        space.approve("first").await;
        space.issued("first").await;
        space.issued("second").await;
    });
}

#[test]
fn a_denied_request_that_is_deleted_at_once_has_denied_its_identity() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("outrun").await;
        let name = "central.outrun.forwarder";
        file(&space, "first", &broker.instance, name).await;
        space.approve("first").await;
        space.issued("first").await;
        file(&space, "second", &broker.instance, name).await;
        space.issued("second").await;
        space.deny("second", "out").await;
        space.delete("second").await;
        let denied = space.phase("first", Phase::Denied).await;
        let by = Some(format!("{}/second", space.namespace));
        assert_eq!(how(&denied), Some((DecisionHow::Policy, by)));
        space.gone("second").await;
        broker.user(name, false, SOON).await;
        file(&space, "third", &broker.instance, name).await;
        space.phase("third", Phase::Pending).await;
        assert_eq!(space.get("first").await.phase(), Some(Phase::Denied));
    });
}

#[test]
fn the_access_of_an_identity_ends_with_its_last_request() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("last").await;
        let name = "central.last.forwarder";
        let first = file(&space, "first", &broker.instance, name).await;
        space.approve("first").await;
        let of_first = space.issued("first").await;
        let second = file(&space, "second", &broker.instance, name).await;
        let of_second = space.issued("second").await;

        space.delete("first").await;
        space.gone("first").await;
        let connection = broker
            .connect(Login::certificate(&second, &of_second))
            .await;
        connection.expect("the other request is there");
        // The approval was forgotten with the request that carried it.
        file(&space, "third", &broker.instance, name).await;
        space.phase("third", Phase::Pending).await;
        for request in ["second", "third"] {
            space.delete(request).await;
            space.gone(request).await;
        }
        broker.user(name, false, SOON).await;
        file(&space, "fourth", &broker.instance, name).await;
        space.phase("fourth", Phase::Pending).await;
        space.approve("fourth").await;
        space.issued("fourth").await;
        refused(broker, &first, &of_first).await;
        refused(broker, &second, &of_second).await;
    });
}

#[test]
fn a_name_goes_to_one_requester_and_the_others_are_told_who_has_it() {
    run(async {
        let broker = central().await;
        let (one, other) = (
            playground().await.space("mine").await,
            playground().await.space("theirs").await,
        );
        let name = "central.wanted.forwarder";
        let agent = file(&one, "mine", &broker.instance, name).await;
        one.phase("mine", Phase::Pending).await;
        let intruder = file(&other, "theirs", &broker.instance, name).await;
        let says = other.says("theirs", "Conflict", "NameRequested").await;
        assert!(says.contains(&one.user) && says.contains("/mine"), "{says}");

        one.approve("mine").await;
        let issued = one.issued("mine").await;
        let says = other.says("theirs", "Conflict", "NameBound").await;
        assert!(says.contains(&one.user) && says.contains("/mine"), "{says}");
        other.approve("theirs").await;
        other.says("theirs", "Issued", "IdentityConflict").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let waiting = other.get("theirs").await;
        assert_eq!(waiting.phase(), Some(Phase::Pending));
        assert!(waiting.status.unwrap().certificate.is_none());
        assert!(other.secret("theirs").await.is_none());
        let connection = broker.connect(Login::certificate(&agent, &issued)).await;
        connection.expect("who has the name keeps it");

        // The administrator moves the name.
        one.deny("mine", "moved").await;
        let moved = other.issued("theirs").await;
        broker
            .connect(Login::certificate(&intruder, &moved))
            .await
            .unwrap();
        refused(broker, &agent, &issued).await;
        let says = one.says("mine", "Denied", "Denied").await;
        assert!(says.contains("moved"), "{says}");
    });
}

#[test]
fn two_approvals_of_one_name_at_once_let_one_requester_in() {
    run(async {
        let broker = central().await;
        let spaces = [
            playground().await.space("race-a").await,
            playground().await.space("race-b").await,
        ];
        for round in 0..5 {
            let (request, name) = (format!("r{round}"), format!("central.race.agent-{round}"));
            for space in &spaces {
                file(space, &request, &broker.instance, &name).await;
            }
            tokio::join!(spaces[0].approve(&request), spaces[1].approve(&request));
            playground()
                .await
                .eventually("one is issued", SOON * 2, async || {
                    let phases = [
                        spaces[0].get(&request).await.phase(),
                        spaces[1].get(&request).await.phase(),
                    ];
                    match phases
                        .iter()
                        .filter(|it| **it == Some(Phase::Issued))
                        .count()
                    {
                        1 => Ok(()),
                        _ => Err(format!("{phases:?}")),
                    }
                })
                .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut issued = 0;
            for space in &spaces {
                issued += usize::from(space.get(&request).await.phase() == Some(Phase::Issued));
                issued += usize::from(space.secret(&request).await.is_some());
            }
            assert_eq!(issued, 2, "one request and its Secret");
        }
    });
}

#[test]
fn an_instance_says_which_requests_approve_themselves() {
    run(async {
        let playground = playground().await;
        let space = playground.space("auto").await;
        // Without a broker nothing is signed, and what was decided is to be seen all the same.
        let never = json!({"approval": {"auto": "Never"}});
        let never = playground.instance(&space.namespace, "never", never).await;
        file(&space, "n1", &never, "never.plant.forwarder").await;
        space.approve("n1").await;
        space.phase("n1", Phase::Approved).await;
        file(&space, "n2", &never, "never.plant.forwarder").await;
        space.says("n2", "Issued", "WaitingForApproval").await;

        let always = json!({"approval": {"auto": "Always"}});
        let always = playground
            .instance(&space.namespace, "always", always)
            .await;
        let warning = always
            .condition("AutoApproval", "True", None, SOON)
            .await
            .message;
        assert!(warning.contains("Renewals"), "{warning}");
        file(&space, "a1", &always, "always.plant.forwarder").await;
        let approved = space.phase("a1", Phase::Approved).await;
        assert_eq!(how(&approved), Some((DecisionHow::Policy, None)));
        // A policy never gives a name to a second requester, and a denial holds against it.
        let other = playground.space("auto-other").await;
        file(&other, "a2", &always, "always.plant.forwarder").await;
        other.says("a2", "Issued", "IdentityConflict").await;
        space.deny("a1", "no").await;
        space.phase("a1", Phase::Denied).await;
        file(&space, "a3", &always, "always.plant.forwarder").await;
        space.phase("a3", Phase::Denied).await;
        other.phase("a2", Phase::Approved).await;

        let renewals = json!({"spec": {"approval": {"auto": "Renewals"}}});
        always
            .api()
            .patch("always", &PatchParams::default(), &Patch::Merge(renewals))
            .await
            .unwrap();
        playground
            .eventually("the warning goes", SOON, async || {
                let status = always.get().await.status.unwrap();
                let warns = status
                    .conditions
                    .iter()
                    .any(|it| it.type_ == "AutoApproval");
                if warns {
                    Err("it stays".to_owned())
                } else {
                    Ok(())
                }
            })
            .await;
        other.phase("a2", Phase::Pending).await;
        for instance in [&never, &always] {
            let _ = instance
                .api()
                .delete(&instance.name, &DeleteParams::default())
                .await;
        }
    });
}
