//! Events: what became of requests and instances, for people who ask with `kubectl describe`.

use crate::shared::{Turn, disturbed, playground};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use volttron_crds::{Phase, VolttronCertRequest, well_known};
use volttron_tests::{Agent, Instance, Playground, SOON, Space, encode, run};

/// The longest name a request may have.
const LONGEST_NAME: usize = 249;
/// The longest note the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;
/// How many requests come to nothing at once.
const FLOOD: usize = 100;

// None of these instances has a broker: what was decided shows in the phase Approved.

#[test]
fn every_decision_has_an_event_of_its_own() {
    run(async {
        let playground = playground().await;
        let space = playground.space("told").await;
        let instance = playground.instance(&space.namespace, "telling", json!({}));
        file(&space, "agent", &instance.await).await;
        space.phase("agent", Phase::Pending).await;
        let carol = second_approver(playground).await;

        space.deny("agent", "lost").await;
        space.phase("agent", Phase::Denied).await;
        has(&space, "agent", "Denied", &["denied by alice: lost"]).await;
        let approval = json!({well_known::DECISION: "approved", well_known::REASON: "found again"});
        decide(&space, &carol, "agent", approval).await;
        space.phase("agent", Phase::Approved).await;
        let theft = json!({well_known::DECISION: "denied", well_known::REASON: "stolen"});
        decide(&space, &carol, "agent", theft).await;
        space.phase("agent", Phase::Denied).await;

        has(
            &space,
            "agent",
            "Approved",
            &["approved by carol: found again"],
        )
        .await;
        let both = ["denied by alice: lost", "denied by carol: stolen"];
        has(&space, "agent", "Denied", &both).await;
        // The decision is the same; what is said of it is not.
        space.deny("agent", "stolen, and broken").await;
        let third = ["denied by alice: stolen, and broken"];
        has(&space, "agent", "Denied", &third).await;
        // What was published first is gone, and the next decision is told all the same, also one
        // that says the same as one before.
        api(&space)
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await
            .unwrap();
        space.approve("agent").await;
        space.phase("agent", Phase::Approved).await;
        decide(
            &space,
            &carol,
            "agent",
            json!({well_known::DECISION: "denied", well_known::REASON: "stolen"}),
        )
        .await;
        space.phase("agent", Phase::Denied).await;
        has(&space, "agent", "Denied", &["denied by carol: stolen"]).await;
    });
}

#[test]
fn what_is_told_again_and_again_is_one_event_with_a_count() {
    run(async {
        let playground = playground().await;
        let namespace = playground.namespace("series").await;
        let instance = playground.instance(&namespace, "flapping", json!({})).await;
        for _ in 0..3 {
            approves(&instance, "Always").await;
            instance.condition("AutoApproval", "True", None, SOON).await;
            approves(&instance, "Never").await;
            let what = "the condition is gone";
            playground
                .eventually(what, SOON, async || {
                    let conditions = instance.get().await.status.unwrap_or_default().conditions;
                    if conditions.iter().all(|it| it.type_ != "AutoApproval") {
                        return Ok(());
                    }
                    Err(format!("{conditions:#?}"))
                })
                .await;
        }
        let events = Api::<Event>::namespaced(playground.admin(), &namespace);
        playground
            .eventually("one Event with the count 3", SOON, async || {
                let listed = about(&events, "flapping", "EveryRequestIsApproved").await?;
                let counts: Vec<_> = listed
                    .iter()
                    .map(|event| event.series.as_ref().map(|series| series.count))
                    .collect();
                if counts == [Some(3)] {
                    Ok(())
                } else {
                    Err(format!("{counts:?}"))
                }
            })
            .await;
    });
}

#[test]
fn long_names_and_long_reasons_in_any_script_are_told() {
    run(async {
        let playground = playground().await;
        let space = playground.space("long").await;
        let instance = playground.instance(&space.namespace, "telling", json!({}));
        let name = "a".repeat(LONGEST_NAME);
        file(&space, &name, &instance.await).await;
        let pod = json!({"metadata": {"annotations": {
            well_known::POD_NAME: "p".repeat(253), well_known::POD_UID: "6f9d",
        }}});
        space
            .api()
            .patch(&name, &PatchParams::default(), &Patch::Merge(pod))
            .await
            .unwrap();
        space.phase(&name, Phase::Pending).await;
        has(
            &space,
            &name,
            "Pending",
            &["volttron.org/decision=approved"],
        )
        .await;
        let why = "потеряно 遗失 ".repeat(100);
        space.deny(&name, &why).await;
        space.phase(&name, Phase::Denied).await;
        let told = has(&space, &name, "Denied", &["потеряно 遗失 потеряно"]).await;
        let note = told[0].note.as_deref().unwrap();
        let short = (LONGEST_NOTE - 8..=LONGEST_NOTE).contains(&note.len());
        assert!(short && note.ends_with('…'), "{} bytes: {note}", note.len());
        has(
            &space,
            &"p".repeat(253),
            "Denied",
            &["потеряно 遗失 потеряно"],
        )
        .await;
    });
}

/// A requester who is turned away cannot flood others' Events. What it waits for is in its status.
#[test]
fn a_request_without_a_place_asks_nobody_until_it_has_one() {
    run(async {
        let playground = playground().await;
        let space = playground.space("placeless").await;
        let one = json!({"requests": {"maxPending": 1}});
        let instance = playground.instance(&space.namespace, "narrow", one).await;
        file(&space, "first", &instance).await;
        space.says("first", "Issued", "WaitingForApproval").await;
        has(
            &space,
            "first",
            "Pending",
            &["volttron.org/decision=approved"],
        )
        .await;
        file(&space, "second", &instance).await;
        space.says("second", "Issued", "TooManyPending").await;
        // What comes later is told later.
        space.deny("first", "no").await;
        has(&space, "first", "Denied", &["denied by alice: no"]).await;
        has(
            &space,
            "second",
            "Pending",
            &["volttron.org/decision=approved"],
        )
        .await;
        let told = about(&api(&space), "second", "Pending").await.unwrap();
        assert_eq!(told.len(), 1, "{told:#?}");
    });
}

/// Neither an API server that takes no Events for a while nor the next leader forgets a decision.
#[test]
fn decisions_are_told_when_events_are_taken_again() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("unheard").await;
        let instance = playground.instance(&space.namespace, "telling", json!({}));
        let instance = instance.await;
        for name in ["heard", "inherited"] {
            file(&space, name, &instance).await;
            space.phase(name, Phase::Pending).await;
        }
        playground.proxy().refuse(&["/apis/events.k8s.io/"]);
        space.approve("heard").await;
        space.phase("heard", Phase::Approved).await;
        assert_eq!(told(&space, "heard", "Approved").await, 0);
        playground.proxy().refuse(&[]);
        has(&space, "heard", "Approved", &["approved by alice"]).await;

        playground.proxy().refuse(&["/apis/events.k8s.io/"]);
        space.approve("inherited").await;
        space.phase("inherited", Phase::Approved).await;
        kill_and_start(&playground).await;
        assert_eq!(told(&space, "inherited", "Approved").await, 0);
        playground.proxy().refuse(&[]);
        has(&space, "inherited", "Approved", &["approved by alice"]).await;
        // What the one before has told is not told twice.
        assert_eq!(told(&space, "heard", "Approved").await, 1);
    });
}

/// Many requests that come to nothing do not delay what somebody has to know.
#[test]
fn a_denial_is_told_before_what_many_others_ask() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("flood").await;
        let instance = playground.instance(&space.namespace, "telling", json!({}));
        let instance = instance.await;
        file(&space, "lost", &instance).await;
        space.phase("lost", Phase::Pending).await;
        has(&space, "lost", "Pending", &["approved"]).await;
        playground.proxy().refuse(&["/apis/events.k8s.io/"]);
        let names: Vec<_> = (0..FLOOD).map(|number| format!("bad-{number}")).collect();
        let file_bad = async |name: &String| {
            let nonsense = encode("nonsense");
            let filed = space.try_file(name, &instance, &nonsense, None);
            filed.await.unwrap();
        };
        for some in names.chunks(20) {
            futures::future::join_all(some.iter().map(file_bad)).await;
        }
        for name in &names {
            space.phase(name, Phase::Failed).await;
        }
        space.deny("lost", "lost").await;
        space.phase("lost", Phase::Denied).await;
        playground.proxy().refuse(&[]);
        let denied = has(&space, "lost", "Denied", &["denied by alice: lost"]).await;
        let failed = async || {
            let listed = api(&space).list(&ListParams::default()).await;
            let mut listed = listed.map_err(|error| error.to_string())?.items;
            listed.retain(|event| event.reason.as_deref() == Some("Failed"));
            if listed.len() == FLOOD {
                return Ok(listed);
            }
            Err(format!("{}", listed.len()))
        };
        let what = "all are told in the end";
        let failed = playground.eventually(what, SOON, failed).await;
        // Some were being tried again when the denial came.
        let denied = version(&denied[0]);
        let before = failed.iter().filter(|event| version(event) < denied);
        let before = before.count();
        assert!(
            before < FLOOD / 2,
            "{before} of {FLOOD} went before the denial"
        );
    });
}

/// Where the API server's writes are counted.
fn version(event: &Event) -> u64 {
    let version = event.metadata.resource_version.as_deref();
    version.unwrap().parse().unwrap()
}

/// A leader that is asked to end tells what it has left before it goes.
#[test]
fn nothing_is_left_untold_by_a_leader_that_is_asked_to_end() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("left").await;
        let instance = playground.instance(&space.namespace, "telling", json!({}));
        let instance = instance.await;
        file(&space, "first", &instance).await;
        space.says("first", "Issued", "WaitingForApproval").await;
        playground.proxy().refuse(&["/apis/events.k8s.io/"]);
        let names: Vec<_> = (0..20).map(|number| format!("agent-{number}")).collect();
        for name in &names {
            file(&space, name, &instance).await;
        }
        for name in &names {
            space.phase(name, Phase::Pending).await;
        }
        playground.proxy().refuse(&[]);
        // What asks for a decision is told by no later leader.
        let status = playground.operator().terminate(SOON).await;
        assert!(status.success(), "{status}");
        for name in &names {
            assert_eq!(told(&space, name, "Pending").await, 1, "{name}");
        }
    });
}

async fn file(space: &Space<'_>, name: &str, instance: &Instance<'_>) {
    let word = &name[..name.len().min(8)];
    let common_name = format!("{}.{}.{word}", instance.name, space.namespace);
    space
        .file(name, instance, &Agent::new(&common_name).csr)
        .await;
}

async fn approves(instance: &Instance<'_>, auto: &str) {
    let patch = Patch::Merge(json!({"spec": {"approval": {"auto": auto}}}));
    let parameters = PatchParams::default();
    let api = instance.api();
    let patched = api.patch(&instance.name, &parameters, &patch);
    patched.await.unwrap();
}

/// Somebody else who may approve.
async fn second_approver(playground: &Playground) -> Client {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "other-approvers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "volttron-operator-approver"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "carol"}],
    });
    Api::<ClusterRoleBinding>::all(playground.admin())
        .patch(
            "other-approvers",
            &PatchParams::apply("tests").force(),
            &Patch::Apply(binding),
        )
        .await
        .unwrap();
    playground.client_of("carol", &[]).await
}

/// Decides as somebody; it takes a moment until a new approver may.
async fn decide(space: &Space<'_>, who: &Client, name: &str, annotations: Value) {
    let api = Api::<VolttronCertRequest>::namespaced(who.clone(), &space.namespace);
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    space
        .playground
        .eventually("the decision is accepted", SOON, async || {
            let decided = api.patch(name, &PatchParams::default(), &patch).await;
            decided.map(drop).map_err(|error| error.to_string())
        })
        .await;
}

async fn kill_and_start(playground: &Turn) {
    playground.operator().kill();
    playground.operator().start_again();
    playground.operator().wait_ready().await;
}

fn api(space: &Space<'_>) -> Api<Event> {
    Api::namespaced(space.playground.admin(), &space.namespace)
}

async fn about(api: &Api<Event>, name: &str, reason: &str) -> Result<Vec<Event>, String> {
    let listed = api.list(&ListParams::default()).await;
    let mut listed = listed.map_err(|error| error.to_string())?.items;
    listed.retain(|event| {
        let regards = event.regarding.as_ref().and_then(|it| it.name.as_deref());
        regards == Some(name) && event.reason.as_deref() == Some(reason)
    });
    Ok(listed)
}

async fn told(space: &Space<'_>, name: &str, reason: &str) -> usize {
    about(&api(space), name, reason).await.unwrap().len()
}

/// Waits until there are Events about an object, one for each of these notes.
async fn has(space: &Space<'_>, name: &str, reason: &str, notes: &[&str]) -> Vec<Event> {
    let what = format!("Events {reason} on {name} that say {notes:?}");
    space
        .playground
        .eventually(&what, SOON, async || {
            let events = about(&api(space), name, reason).await?;
            let said = |note: &&str| {
                let mut all = events.iter().filter_map(|event| event.note.as_deref());
                all.any(|it| it.contains(note))
            };
            if events.len() >= notes.len() && notes.iter().all(said) {
                return Ok(events);
            }
            Err(format!("{events:#?}"))
        })
        .await
}
