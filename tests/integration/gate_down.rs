//! The approval gate taken away and given back: nothing is signed in between, and all by itself afterwards.

use crate::shared::{Turn, disturbed};
use futures::future::join_all;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use std::time::Duration;
use volttron_crds::{Phase, VolttronCertRequest};
use volttron_tests::{Agent, Broker, Instance, Playground, SOON, Setup, Space, run};

/// After everything is back, within this it works again.
const RECOVERED: Duration = Duration::from_secs(90);
const POLICY: &str = "validatingadmissionpolicy";
const BINDING: &str = "validatingadmissionpolicybinding";
const GATE: &str = "volttron-approval-gate";

/// A way to weaken the gate: what is changed of which object (`None` to delete it), and the words that tell of it.
struct Weakening {
    kind: &'static str,
    name: &'static str,
    patch: Option<&'static str>,
    told: &'static str,
}

#[rustfmt::skip] // One way, one line.
const WEAKENINGS: &[Weakening] = &[
    Weakening { kind: BINDING, name: GATE, patch: None, told: "ValidatingAdmissionPolicyBinding volttron-approval-gate is missing" },
    Weakening { kind: POLICY, name: GATE, patch: None, told: "ValidatingAdmissionPolicy volttron-approval-gate is missing" },
    Weakening { kind: POLICY, name: GATE, patch: Some(r#"[{"op": "add", "path": "/spec/matchConstraints/namespaceSelector", "value": {"matchLabels": {"guarded": "yes"}}}]"#), told: "namespaceSelector narrows it" },
    Weakening { kind: BINDING, name: GATE, patch: Some(r#"[{"op": "add", "path": "/spec/matchResources", "value": {"objectSelector": {"matchLabels": {"guarded": "yes"}}}}]"#), told: "objectSelector narrows it" },
    Weakening { kind: POLICY, name: GATE, patch: Some(r#"[{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]"#), told: "has failurePolicy Ignore, not Fail" },
    Weakening { kind: BINDING, name: GATE, patch: Some(r#"[{"op": "replace", "path": "/spec/validationActions", "value": ["Audit"]}]"#), told: "without Deny" },
    Weakening { kind: POLICY, name: GATE, patch: Some(r#"[{"op": "remove", "path": "/spec/validations/4"}]"#), told: "lacks the rule" },
    Weakening { kind: BINDING, name: "volttron-auto-approval", patch: None, told: "ValidatingAdmissionPolicyBinding volttron-auto-approval is missing" },
    Weakening { kind: POLICY, name: "volttron-auto-approval", patch: Some(r#"[{"op": "replace", "path": "/spec/validations/0/expression", "value": "true"}]"#), told: "lacks the rule \"having requests approved without" },
    Weakening { kind: BINDING, name: "volttron-status", patch: None, told: "ValidatingAdmissionPolicyBinding volttron-status is missing" },
    Weakening { kind: POLICY, name: "volttron-cleanup", patch: None, told: "ValidatingAdmissionPolicy volttron-cleanup is missing" },
];

/// Requests for each way: some are approved while it is taken, the others afterwards.
const MEANWHILE: usize = 3;
const AFTERWARDS: usize = 4;

#[test]
fn nothing_is_signed_while_the_gate_is_weakened_and_all_is_afterwards() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("weak").await;
        for (number, weakening) in WEAKENINGS.iter().enumerate() {
            let requests = file(&space, broker, number).await;
            let (meanwhile, afterwards) = requests.split_at(MEANWHILE);
            let object = read(&playground, weakening.kind, weakening.name).await;

            let approvals = join_all(meanwhile.iter().map(|name| space.approve(name)));
            tokio::join!(approvals, weaken(&playground, weakening));
            told(&playground, weakening.told).await;
            // What was under way when the policy went is done; nothing more is signed from here on.
            settled(&space, meanwhile).await;
            let until_then = issued(&space).await;
            join_all(afterwards.iter().map(|name| space.approve(name))).await;
            for name in afterwards {
                let held = space.says(name, "Issued", "ApprovalGateMissing").await;
                assert!(held.contains("nothing is signed"), "{held}");
                let request = space.get(name).await;
                assert_eq!(request.phase(), Some(Phase::Approved), "{name}");
                let status = request.status.unwrap_or_default();
                assert!(status.certificate.is_none(), "{name} has a certificate");
                assert!(space.secret(name).await.is_none(), "{name} has a Secret");
            }
            assert_eq!(issued(&space).await, until_then, "{}", weakening.told);

            restore(&playground, weakening.kind, object).await;
            for name in &requests {
                space.issued_within(name, RECOVERED).await;
            }
        }
        let all = WEAKENINGS.len() * (MEANWHILE + AFTERWARDS);
        let log = playground.operator().log();
        let of_the_space = format!("request={}/", space.namespace);
        let signed = log
            .lines()
            .filter(|line| line.contains(&of_the_space) && line.ends_with("phase=Issued"));
        assert_eq!(signed.count(), all, "each is signed once");
        let noticed = "ValidatingAdmissionPolicyBinding volttron-approval-gate has been removed";
        assert!(log.contains(noticed), "the watch told of it first");
    });
}

#[test]
fn an_operator_that_starts_without_the_gate_waits_for_it() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("start").await;
        playground.operator().kill();
        for (kind, name) in [
            (POLICY, GATE),
            (BINDING, GATE),
            (BINDING, "volttron-cleanup"),
        ] {
            remove(&playground, kind, name).await;
        }
        playground.operator().start_again();
        playground.operator().wait_ready().await;
        let gone = "ValidatingAdmissionPolicy volttron-approval-gate is missing; \
                    ValidatingAdmissionPolicyBinding volttron-approval-gate is missing; \
                    ValidatingAdmissionPolicyBinding volttron-cleanup is missing";
        told(&playground, gone).await;
        let agent = Agent::new("central.start.agent");
        space.file("agent", &broker.instance, &agent.csr).await;
        space.approve("agent").await;
        space.says("agent", "Issued", "ApprovalGateMissing").await;
        assert!(
            metrics(&playground)
                .await
                .contains("\nvolttron_approval_gate_standing 0\n")
        );
        assert_eq!(signed(&playground).await, 0);
        assert!(space.secret("agent").await.is_none());
        event(&broker.instance, "ApprovalGateMissing").await;
        follow_the_advice(&broker.instance).await;
        space.issued_within("agent", RECOVERED).await;
        broker
            .instance
            .condition("Ready", "True", None, RECOVERED)
            .await;
        assert!(
            metrics(&playground)
                .await
                .contains("\nvolttron_approval_gate_standing 1\n")
        );
    });
}

/// Helm leaves what was added by hand, so the object is deleted first.
#[test]
fn the_advice_restores_a_policy_that_was_narrowed_by_hand() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        weaken(&playground, &WEAKENINGS[2]).await;
        told(&playground, WEAKENINGS[2].told).await;
        follow_the_advice(&broker.instance).await;
        broker
            .instance
            .condition("Ready", "True", None, RECOVERED)
            .await;
    });
}

#[test]
fn a_controller_that_may_approve_proves_nothing() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("mighty").await;
        let agent = Agent::new("central.mighty.agent");
        space.file("agent", &broker.instance, &agent.csr).await;
        space.phase("agent", Phase::Pending).await;
        let account = "--serviceaccount=volttron-system:volttron-operator";
        let role = "--clusterrole=volttron-operator-approver";
        let mighty = "mighty-controller";
        kubectl(
            &playground,
            &["create", "clusterrolebinding", mighty, role, account],
        )
        .await;
        told(&playground, "the controller itself may approve requests").await;
        space.approve("agent").await;
        space.says("agent", "Issued", "ApprovalGateMissing").await;
        assert!(space.secret("agent").await.is_none());
        kubectl(&playground, &["delete", "clusterrolebinding", mighty]).await;
        space.issued_within("agent", RECOVERED).await;
    });
}

/// Where there are no requests, only the trial on the instance can tell.
#[test]
fn a_controller_that_may_have_requests_approved_proves_nothing() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("loose").await;
        let instance = playground
            .instance(&space.namespace, "loose", json!({}))
            .await;
        let account = "--serviceaccount=volttron-system:volttron-operator";
        let role = "--clusterrole=volttron-operator-approver";
        let args = ["-n", &space.namespace, "rolebinding", "loose"];
        let create = [&["create"], &args[..], &[role, account]].concat();
        kubectl(&playground, &create).await;
        told(&playground, "the controller itself may approve requests").await;
        kubectl(&playground, &[&["delete"], &args[..]].concat()).await;
        instance.delete().await;
    });
}

/// To decide on a request as it is decided already is no decision, and is let through.
#[test]
fn a_decision_that_the_controller_has_not_seen_yet_is_not_taken_for_a_hole() {
    run(async {
        let setup = Setup {
            proxy: true,
            ..Setup::default()
        };
        let playground = Playground::start(setup).await;
        let space = playground.space("unseen").await;
        let instance = playground
            .instance(&space.namespace, "central", json!({}))
            .await;
        let agent = Agent::new("central.unseen.agent");
        space.file("agent", &instance, &agent.csr).await;
        space.phase("agent", Phase::Pending).await;
        let requests = "/apis/volttron.org/v1alpha1/volttroncertrequests";
        playground.proxy().refuse(&[requests]);
        playground.proxy().cut();
        space.approve("agent").await;
        let tried = || {
            let log = playground.operator().log();
            let states = log
                .lines()
                .filter_map(|line| line.split_once("gate was tried state="));
            states
                .map(|(_, state)| state.to_owned())
                .collect::<Vec<_>>()
        };
        let before = tried().len();
        // A change of a policy has it tried at once.
        let label = ["label", POLICY, GATE, "tried=again"];
        let (labelled, text) = playground.kubectl(&label, "").await;
        assert!(labelled, "{text}");
        playground
            .eventually("the gate is tried", RECOVERED, async || {
                match tried().len() {
                    now if now >= before + 2 => Ok(()),
                    now => Err(format!("{now} times")),
                }
            })
            .await;
        assert_eq!(space.get("agent").await.phase(), Some(Phase::Pending));
        let later = tried().split_off(before);
        assert!(later.iter().all(|state| state == "Stands"), "{later:?}");
    });
}

#[test]
fn a_cluster_without_admission_policies_is_told_apart() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let start = playground.operator().log().lines().count();
        playground
            .proxy()
            .hide(Some("/apis/admissionregistration.k8s.io"));
        let why = "this API server does not serve ValidatingAdmissionPolicy (admissionregistration.k8s.io/v1)";
        told(&playground, why).await;
        let ready = broker
            .instance
            .condition("Ready", "False", Some("ApprovalGateMissing"), RECOVERED)
            .await;
        assert!(
            ready.message.contains("Kubernetes 1.33"),
            "{}",
            ready.message
        );
        // Several proofs later it has been said once.
        playground
            .eventually("the gate is tried again", RECOVERED, async || {
                let tries = playground.proxy().hidden();
                if tries >= 60 {
                    Ok(())
                } else {
                    Err(format!("{tries} requests"))
                }
            })
            .await;
        let log = playground.operator().log();
        let lines = log
            .lines()
            .skip(start)
            .filter(|line| line.contains("does not serve") && !line.contains(" DEBUG "));
        assert!(lines.count() <= 4, "{}", playground.operator().log_tail());
        playground.proxy().hide(None);
        broker
            .instance
            .condition("Ready", "True", None, RECOVERED)
            .await;
    });
}

async fn file(space: &Space<'_>, broker: &Broker<'_>, number: usize) -> Vec<String> {
    let file = async |index: usize| {
        let name = format!("agent-{number}-{index}");
        let agent = Agent::new(&format!("central.weak.{name}"));
        space.file(&name, &broker.instance, &agent.csr).await;
        space.phase(&name, Phase::Pending).await;
        name
    };
    join_all((0..MEANWHILE + AFTERWARDS).map(file)).await
}

async fn weaken(playground: &Turn, weakening: &Weakening) {
    match weakening.patch {
        None => remove(playground, weakening.kind, weakening.name).await,
        Some(patch) => {
            let args = [
                "patch",
                weakening.kind,
                weakening.name,
                "--type=json",
                "-p",
                patch,
            ];
            kubectl(playground, &args).await;
        }
    }
}

async fn remove(playground: &Turn, kind: &str, name: &str) {
    kubectl(playground, &["delete", kind, name]).await;
}

async fn read(playground: &Turn, kind: &str, name: &str) -> Value {
    let text = kubectl(playground, &["get", kind, name, "--output=json"]).await;
    serde_json::from_str(&text).expect("JSON")
}

/// Writes an object as it was.
async fn restore(playground: &Turn, kind: &str, mut object: Value) {
    for field in ["resourceVersion", "uid", "generation", "creationTimestamp"] {
        object["metadata"]
            .as_object_mut()
            .expect("metadata")
            .remove(field);
    }
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    kubectl(playground, &["delete", kind, &name, "--ignore-not-found"]).await;
    let (created, text) = playground
        .kubectl(&["create", "-f", "-"], &object.to_string())
        .await;
    assert!(created, "{text}");
}

/// Does what the instance's condition says.
async fn follow_the_advice(instance: &Instance<'_>) {
    let missing = Some("ApprovalGateMissing");
    let condition = instance
        .condition("Ready", "False", missing, RECOVERED)
        .await;
    let advice = condition.message.split('`').nth(1).expect("a command");
    for command in advice.split(" && ") {
        let words: Vec<_> = command.split(' ').collect();
        match words.as_slice() {
            ["kubectl", args @ ..] => {
                let (done, text) = instance.playground.kubectl(args, "").await;
                assert!(done, "{command}: {text}");
            }
            [
                "helm",
                "upgrade",
                "volttron-operator",
                "CHART",
                "--namespace",
                "volttron-system",
                "--reset-then-reuse-values",
            ] => {
                instance.playground.upgrade_chart().await;
            }
            other => panic!("what is {other:?}?"),
        }
    }
}

/// Waits until the ready page says so.
async fn told(playground: &Turn, words: &str) {
    let what = format!("/readyz says that {words}");
    playground
        .eventually(&what, RECOVERED, async || {
            let page = playground.operator().get("/readyz").await?.body;
            let told = page.contains("nothing is signed") && page.contains(words);
            if told { Ok(()) } else { Err(page) }
        })
        .await;
}

/// Waits until an Event tells of it.
async fn event(instance: &Instance<'_>, reason: &str) {
    let events = Api::<Event>::namespaced(instance.playground.admin(), &instance.namespace);
    let what = format!("a warning {reason} on {}", instance.name);
    instance
        .playground
        .eventually(&what, SOON, async || {
            let listed = events.list(&ListParams::default()).await;
            let listed = listed.map_err(|error| error.to_string())?.items;
            let tells = |event: &Event| {
                event.reason.as_deref() == Some(reason)
                    && event.type_.as_deref() == Some("Warning")
                    && event
                        .note
                        .as_ref()
                        .is_some_and(|note| note.contains("helm upgrade"))
            };
            if listed.iter().any(tells) {
                Ok(())
            } else {
                Err(format!("{listed:#?}"))
            }
        })
        .await;
}

/// Waits until requests are issued or held by the gate, so that nothing is under way.
async fn settled(space: &Space<'_>, names: &[String]) {
    for name in names {
        let what = "is issued or held";
        let settled = |request: &VolttronCertRequest| {
            let status = request.status.clone().unwrap_or_default();
            let mut conditions = status.conditions.iter();
            request.phase() == Some(Phase::Issued)
                || conditions.any(|it| {
                    it.reason == "ApprovalGateMissing" && it.message.contains("To restore")
                })
        };
        space.until(name, what, RECOVERED, settled).await;
    }
}

/// The requests that have a certificate.
async fn issued(space: &Space<'_>) -> usize {
    let requests = space.api().list(&ListParams::default()).await;
    let requests = requests.expect("the API server answers");
    let issued = |it: &&VolttronCertRequest| {
        let status = it.status.as_ref();
        status.is_some_and(|status| status.certificate.is_some())
    };
    requests.iter().filter(issued).count()
}

async fn signed(playground: &Turn) -> u64 {
    let text = metrics(playground).await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("volttron_certificates_issued_total "));
    line.and_then(|count| count.parse().ok())
        .expect("a count of certificates")
}

async fn metrics(playground: &Turn) -> String {
    playground
        .operator()
        .get("/metrics")
        .await
        .expect("metrics")
        .body
}

async fn kubectl(playground: &Turn, args: &[&str]) -> String {
    let (done, text) = playground.kubectl(args, "").await;
    assert!(done, "kubectl {args:?}: {text}");
    text
}
