//! Which requests an instance takes, how many may wait for a decision, and for how long.

use crate::shared::{central, disturbed, playground};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;
use volttron_crds::{DecisionHow, Phase};
use volttron_tests::{Agent, Instance, SOON, Space, run};

const WAITS: &str = "WaitingForApproval";
const FULL: &str = "TooManyPending";
const FULL_FOR_REQUESTER: &str = "TooManyPendingOfRequester";
const FULL_IN_NAMESPACE: &str = "TooManyPendingOfNamespace";
const SHUT_OUT: &str = "NamespaceNotAllowed";

// None of these instances but `central` has a broker, so that nothing is signed; what was decided
// shows in the phase Approved.

#[test]
fn a_namespace_that_is_not_allowed_waits_until_it_is() {
    run(async {
        let playground = playground().await;
        let (home, away) = (
            playground.space("allowing").await,
            playground.space("asking").await,
        );
        let same = json!({"requests": {"allowedNamespaces": "Same"}});
        let instance = playground.instance(&home.namespace, "choosy", same).await;
        file(&home, "own", &instance).await;
        home.says("own", "Issued", WAITS).await;
        file(&away, "approved", &instance).await;
        file(&away, "waiting", &instance).await;
        let says = away.says("waiting", "Issued", SHUT_OUT).await;
        for part in [
            format!("VolttronInstance {}/choosy", home.namespace),
            format!("namespace {}", away.namespace),
            "spec.requests.allowedNamespaces is Same: file the request in".to_owned(),
        ] {
            assert!(says.contains(&part), "no {part:?} in {says}");
        }
        // An approval does not open the instance.
        away.approve("approved").await;
        away.says("approved", "Issued", SHUT_OUT).await;

        let selected = json!({"selector": {"matchLabels": {"tests/allowed": "yes"}}});
        allow(&instance, &selected).await;
        let what = "says that the labels do not match";
        away.until("waiting", what, SOON, |request| {
            let conditions = &request.status.as_ref().unwrap().conditions;
            let issued = conditions.iter().find(|it| it.type_ == "Issued").unwrap();
            issued.message.contains("label the namespace")
        })
        .await;
        assert_eq!(away.get("approved").await.phase(), Some(Phase::Pending));
        label(&away, "yes").await;
        away.says("waiting", "Issued", WAITS).await;
        away.phase("approved", Phase::Approved).await;

        label(&away, "no").await;
        away.says("waiting", "Issued", SHUT_OUT).await;
        // To NotIn, labels that nobody has read yet would be as good as others.
        let expression = json!({"key": "tests/allowed", "operator": "NotIn", "values": ["no"]});
        allow(
            &instance,
            &json!({"selector": {"matchLabels": null, "matchExpressions": [expression]}}),
        )
        .await;
        home.says("own", "Issued", WAITS).await;
        away.says("waiting", "Issued", SHUT_OUT).await;
        allow(&instance, &json!("All")).await;
        away.says("waiting", "Issued", WAITS).await;
        instance.delete().await;
    });
}

#[test]
fn a_certificate_stays_when_its_namespace_is_shut_out() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("shut-out").await;
        let ask = async |name: &str| {
            let csr = Agent::new(&format!("central.shut-out.{name}")).csr;
            space.file(name, instance, &csr).await;
        };
        ask("agent").await;
        space.approve("agent").await;
        let before = space.issued("agent").await;
        // Everybody else is as before.
        let expression = json!({
            "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [space.namespace],
        });
        allow(
            instance,
            &json!({"selector": {"matchExpressions": [expression]}}),
        )
        .await;
        ask("late").await;
        space.says("late", "Issued", SHUT_OUT).await;
        let after = space.issued("agent").await;
        assert_eq!(after.chain, before.chain);
        assert_eq!(after.request.phase(), Some(Phase::Issued));
        allow(instance, &Value::Null).await;
        space.says("late", "Issued", WAITS).await;
    });
}

#[test]
fn a_wrong_selector_is_named_allows_nobody_and_disturbs_no_other_instance() {
    run(async {
        let playground = playground().await;
        let space = playground.space("selectors").await;
        let no_selector = "is no label selector: mend it";
        let unreadable = "cannot be read: it must be Same, All or {selector: ...}";
        let expression = json!({"key": "a", "operator": "Resembles", "values": ["b"]});
        let cases = [
            ("number", json!({"matchLabels": 5}), unreadable),
            ("text", json!("a=b"), unreadable),
            // It would select every namespace if what is misspelt were passed over.
            ("misspelt", json!({"matchLabel": {"a": "b"}}), unreadable),
            (
                "operator",
                json!({"matchExpressions": [expression]}),
                no_selector,
            ),
        ];
        for (name, selector, expected) in cases {
            let spec = json!({"requests": {"allowedNamespaces": {"selector": selector}}});
            // As a user writes it; the type of the tests would read it first.
            let manifest = json!({
                "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronInstance",
                "metadata": {"name": name, "namespace": space.namespace}, "spec": spec,
            });
            let (created, text) = playground
                .kubectl(&["create", "-f", "-"], &manifest.to_string())
                .await;
            assert!(created, "{text}");
            let instance = playground.known_instance(&space.namespace, name);
            file(&space, name, &instance).await;
            let says = space.says(name, "Issued", SHUT_OUT).await;
            assert!(says.contains(expected), "{name}: {says}");
        }
        for word in [json!("Some"), json!({}), json!(7), json!(["Same"])] {
            let manifest = json!({
                "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronInstance",
                "metadata": {"name": "refused", "namespace": space.namespace},
                "spec": {"requests": {"allowedNamespaces": word}},
            });
            let (created, text) = playground
                .kubectl(&["create", "-f", "-"], &manifest.to_string())
                .await;
            assert!(!created && text.contains("allowedNamespaces"), "{text}");
        }

        // The watch goes on: another instance is taken up, and a wrong one that is mended.
        let other = playground
            .instance(&space.namespace, "other", json!({}))
            .await;
        file(&space, "r-other", &other).await;
        space.says("r-other", "Issued", WAITS).await;
        let mended = playground.known_instance(&space.namespace, "number");
        allow(&mended, &json!("All")).await;
        space.says("number", "Issued", WAITS).await;
        for name in ["number", "text", "misspelt", "operator", "other"] {
            playground
                .known_instance(&space.namespace, name)
                .delete()
                .await;
        }
    });
}

#[test]
fn only_so_many_requests_of_one_requester_wait_at_once_and_the_oldest_is_next() {
    run(async {
        let playground = playground().await;
        let (space, other) = (
            playground.space("greedy").await,
            playground.space("modest").await,
        );
        let limit = json!({"requests": {"maxPendingPerRequester": 2}});
        let instance = playground.instance(&space.namespace, "roomy", limit).await;
        for name in ["r1", "r2"] {
            file(&space, name, &instance).await;
            space.says(name, "Issued", WAITS).await;
        }
        for name in ["r3", "r4", "r5", "r6", "r7"] {
            file(&space, name, &instance).await;
            let says = space.says(name, "Issued", FULL_FOR_REQUESTER).await;
            assert!(
                says.starts_with("2 requests of this requester")
                    && says.contains("spec.requests.maxPendingPerRequester"),
                "{says}"
            );
            // Creation times have seconds, and who came first is to be seen in them.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        file(&other, "theirs", &instance).await;
        other.says("theirs", "Issued", WAITS).await;

        // One that waits for room can be decided on, which frees none.
        space.approve("r7").await;
        space.phase("r7", Phase::Approved).await;
        full(&space, &["r3", "r4", "r5", "r6"]).await;
        space.approve("r1").await;
        space.says("r3", "Issued", WAITS).await;
        full(&space, &["r4", "r5", "r6"]).await;
        space.deny("r2", "no").await;
        space.says("r4", "Issued", WAITS).await;
        full(&space, &["r5", "r6"]).await;
        space.delete("r3").await;
        space.says("r5", "Issued", WAITS).await;
        full(&space, &["r6"]).await;

        // A renewal waits for nobody, and takes no room.
        let csr = Agent::new("roomy.greedy.r1").csr;
        space.file("r1-again", &instance, &csr).await;
        let renewed = space.phase("r1-again", Phase::Approved).await;
        let how = renewed.status.unwrap().decision.unwrap().how;
        assert_eq!(how, DecisionHow::Renewal);
        full(&space, &["r6"]).await;
        merge(
            &instance,
            &json!({"requests": {"maxPendingPerRequester": 3}}),
        )
        .await;
        space.says("r6", "Issued", WAITS).await;
        instance.delete().await;
    });
}

#[test]
fn service_accounts_of_one_namespace_share_its_room_and_leave_that_of_others() {
    run(async {
        let playground = disturbed().await;
        let (crowd, other) = (
            playground.space("crowd").await,
            playground.space("beside").await,
        );
        let (second, third) = (crowd.sibling("second").await, crowd.sibling("third").await);
        let limit = json!({"requests": {
            "maxPending": 5, "maxPendingPerRequester": 1, "maxPendingPerNamespace": 2,
        }});
        // It is the instance's own namespace, which is no better than others.
        let instance = playground.instance(&crowd.namespace, "shared", limit).await;
        file(&crowd, "r1", &instance).await;
        crowd.says("r1", "Issued", WAITS).await;
        file(&second, "r2", &instance).await;
        crowd.says("r2", "Issued", WAITS).await;
        file(&third, "r3", &instance).await;
        let says = crowd.says("r3", "Issued", FULL_IN_NAMESPACE).await;
        let expected = format!("2 requests in namespace {} ", crowd.namespace);
        assert!(
            says.starts_with(&expected) && says.contains("spec.requests.maxPendingPerNamespace"),
            "{says}"
        );
        file(&other, "theirs", &instance).await;
        other.says("theirs", "Issued", WAITS).await;

        playground.operator().kill();
        // It comes first in the list, and meanwhile there is nobody who would say that it is full. Of
        // two that are filed in one second, which is as exact as Kubernetes is, either may be first.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let fourth = crowd.sibling("fourth").await;
        file(&fourth, "a-new-one", &instance).await;
        playground.operator().start_again();
        playground.operator().wait_ready().await;
        crowd.says("a-new-one", "Issued", FULL_IN_NAMESPACE).await;
        let other_second = other.sibling("second").await;
        file(&other_second, "theirs-too", &instance).await;
        other.says("theirs-too", "Issued", WAITS).await;
        file(&other.sibling("third").await, "too-many", &instance).await;
        other.says("too-many", "Issued", FULL_IN_NAMESPACE).await;
        for name in ["r1", "r2"] {
            assert_eq!(reason(&crowd, name).await, WAITS, "{name}");
        }
        full(&crowd, &["r3", "a-new-one"]).await;

        // There is a fifth place, for neither of the two namespaces.
        other.delete("theirs").await;
        other.says("too-many", "Issued", WAITS).await;
        full(&crowd, &["r3", "a-new-one"]).await;
        crowd.approve("r1").await;
        crowd.says("r3", "Issued", WAITS).await;
        full(&crowd, &["a-new-one"]).await;
        instance.delete().await;
    });
}

#[test]
fn only_so_many_requests_wait_for_an_instance_at_once() {
    run(async {
        let playground = playground().await;
        let (one, two) = (
            playground.space("first-come").await,
            playground.space("second-come").await,
        );
        // A key that is too small shows once the instance asks for larger ones.
        let limit = json!({"requests": {"maxPending": 2}});
        let instance = playground.instance(&one.namespace, "narrow", limit).await;
        file(&one, "a", &instance).await;
        one.says("a", "Issued", WAITS).await;
        let rsa = Agent::rsa("narrow.first-come.rsa").csr;
        one.file("rsa", &instance, &rsa).await;
        one.says("rsa", "Issued", WAITS).await;
        file(&two, "b", &instance).await;
        let says = two.says("b", "Issued", FULL).await;
        assert!(
            says.starts_with("2 requests") && says.contains("spec.requests.maxPending "),
            "{says}"
        );
        merge(&instance, &json!({"certificates": {"minRsaBits": 3072}})).await;
        one.phase("rsa", Phase::Failed).await;
        two.says("b", "Issued", WAITS).await;
        file(&two, "c", &instance).await;
        two.says("c", "Issued", FULL).await;
        merge(&instance, &json!({"requests": {"maxPending": 3}})).await;
        two.says("c", "Issued", WAITS).await;

        // What had to wait for its instance had no place yet.
        let later = playground.known_instance(&one.namespace, "later");
        for name in ["l1", "l2", "l3"] {
            file(&one, name, &later).await;
            one.says(name, "Issued", "InstanceNotFound").await;
        }
        let limit = json!({"requests": {"maxPending": 1}});
        let later = playground.instance(&one.namespace, "later", limit).await;
        playground
            .eventually("one of three has the place", SOON, async || {
                let mut reasons = Vec::new();
                for name in ["l1", "l2", "l3"] {
                    reasons.push(reason(&one, name).await);
                }
                reasons.sort();
                if reasons == [FULL, FULL, WAITS] {
                    return Ok(());
                }
                Err(format!("{reasons:?}"))
            })
            .await;
        instance.delete().await;
        later.delete().await;
    });
}

#[test]
fn places_survive_the_operator() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("restart").await;
        let limit = json!({"requests": {"maxPending": 2}});
        let instance = playground.instance(&space.namespace, "kept", limit).await;
        for name in ["r1", "r2"] {
            file(&space, name, &instance).await;
            space.says(name, "Issued", WAITS).await;
        }
        file(&space, "r3", &instance).await;
        space.says("r3", "Issued", FULL).await;
        playground.operator().kill();
        // It comes first in the list, and meanwhile there is nobody who would say that it is full. Of
        // two that are filed in one second, which is as exact as Kubernetes is, either may be first.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        file(&space, "a-new-one", &instance).await;
        playground.operator().start_again();
        playground.operator().wait_ready().await;
        space.says("a-new-one", "Issued", FULL).await;
        // By then all have been looked at with the instance known.
        file(&space, "r4", &instance).await;
        space.says("r4", "Issued", FULL).await;
        full(&space, &["r3", "a-new-one"]).await;
        for name in ["r1", "r2"] {
            assert_eq!(reason(&space, name).await, WAITS, "{name}");
        }
        space.approve("r1").await;
        space.says("r3", "Issued", WAITS).await;
        full(&space, &["a-new-one", "r4"]).await;
        instance.delete().await;
    });
}

#[test]
fn a_request_that_nobody_decides_on_expires_and_can_be_approved_all_the_same() {
    run(async {
        let playground = playground().await;
        let (space, away) = (
            playground.space("forgotten").await,
            playground.space("elsewhere").await,
        );
        let spec = json!({"requests": {
            "pendingTTL": "1m", "allowedNamespaces": "Same", "maxPending": 2,
        }});
        let instance = playground.instance(&space.namespace, "hasty", spec).await;
        for name in ["old", "wanted", "crowded"] {
            file(&space, name, &instance).await;
            space.phase(name, Phase::Pending).await;
        }
        // Nobody decides on these either, but one, which an approver wants.
        file(&away, "shut-out", &instance).await;
        file(&away, "approved", &instance).await;
        away.approve("approved").await;
        let limit = Duration::from_mins(1) + SOON * 2;
        let expired = space.phase_within("old", Phase::Expired, limit).await;
        let status = expired.status.unwrap();
        let issued = status.conditions.iter().find(|it| it.type_ == "Issued");
        let issued = issued.unwrap();
        assert_eq!(issued.reason, "PendingTTLExceeded");
        assert!(
            issued.message.contains("within 1m")
                && issued.message.contains("spec.requests.pendingTTL"),
            "{}",
            issued.message
        );
        let created = expired.metadata.creation_timestamp.unwrap().0;
        let kept_from = issued.last_transition_time.0.duration_since(created);
        assert!(kept_from.as_secs() >= 59, "{kept_from}");
        for name in ["wanted", "crowded"] {
            space.phase_within(name, Phase::Expired, SOON * 2).await;
        }
        away.phase_within("shut-out", Phase::Expired, SOON * 2)
            .await;
        space.approve("wanted").await;
        space.phase("wanted", Phase::Approved).await;
        assert_eq!(away.get("approved").await.phase(), Some(Phase::Pending));
        assert_eq!(reason(&away, "approved").await, SHUT_OUT);
        // They have left the room.
        for name in ["new-1", "new-2"] {
            file(&space, name, &instance).await;
            space.says(name, "Issued", WAITS).await;
        }
        instance.delete().await;
    });
}

/// Files a request for a name of its own.
async fn file(space: &Space<'_>, name: &str, instance: &Instance<'_>) {
    let common_name = format!("{}.{}.{name}", instance.name, word(&space.namespace));
    space
        .file(name, instance, &Agent::new(&common_name).csr)
        .await;
}

/// The namespace without the number behind it.
fn word(namespace: &str) -> &str {
    namespace.rsplit_once('-').map_or(namespace, |it| it.0)
}

async fn reason(space: &Space<'_>, name: &str) -> String {
    let status = space.get(name).await.status.unwrap_or_default();
    let issued = status
        .conditions
        .into_iter()
        .find(|it| it.type_ == "Issued");
    issued.map(|it| it.reason).unwrap_or_default()
}

async fn full(space: &Space<'_>, names: &[&str]) {
    for name in names {
        let reason = reason(space, name).await;
        assert!(reason.starts_with(FULL), "{name}: {reason}");
    }
}

async fn allow(instance: &Instance<'_>, allowed: &Value) {
    let requests = json!({"requests": {"allowedNamespaces": allowed}});
    merge(instance, &requests).await;
}

async fn merge(instance: &Instance<'_>, spec: &Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    let parameters = PatchParams::default();
    let api = instance.api();
    let patched = api.patch(&instance.name, &parameters, &patch).await;
    patched.unwrap();
}

async fn label(space: &Space<'_>, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"tests/allowed": value}}}));
    Api::<Namespace>::all(space.playground.admin())
        .patch(&space.namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();
}
