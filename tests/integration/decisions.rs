//! Decisions as people make them, with `kubectl`, and the ways around that are none.

use crate::shared::{central, playground};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use volttron_crds::{Phase, VolttronCertRequest, well_known};
use volttron_tests::{Agent, Playground, Space, run};

#[test]
fn kubectl_annotate_decides_and_says_why_it_does_not() {
    run(async {
        let playground = playground().await;
        let space = filed(playground, "annotate").await;
        let annotate = async |user: &str, words: &[&str]| {
            let user = format!("--as={user}");
            let mut args = vec!["annotate", "vcr", "agent", "-n", &space.namespace, &user];
            args.extend(words);
            playground.kubectl(&args, "").await
        };
        for nonsense in ["Approved", "approved ", "yes", ""] {
            let word = format!("volttron.org/decision={nonsense}");
            let (done, said) = annotate("alice", &[&word]).await;
            let help = "write approved or denied, or remove the annotation to take a decision back";
            assert!(!done && said.contains(help), "{nonsense:?}: {said}");
        }
        let (done, said) = annotate("alice", &["volttron.org/decision=approved"]).await;
        assert!(done, "{said}");
        space.issued("agent").await;
        // It is kubectl that asks for --overwrite.
        let denied = ["volttron.org/decision=denied", "volttron.org/reason=stolen"];
        let (done, said) = annotate("alice", &denied).await;
        assert!(!done && said.contains("--overwrite"), "{said}");
        let (done, said) = annotate("bob", &[denied[0], "--overwrite"]).await;
        assert!(!done && said.contains("cannot"), "bob has no role: {said}");
        let (done, said) = annotate("alice", &[denied[0], denied[1], "--overwrite"]).await;
        assert!(done, "{said}");
        let status = space.phase("agent", Phase::Denied).await.status.unwrap();
        let decision = status.decision.unwrap();
        assert_eq!(decision.by.as_deref(), Some("alice"));
        assert_eq!(decision.reason.as_deref(), Some("stolen"));
        let (done, said) =
            annotate("alice", &["volttron.org/decision=approved", "--overwrite"]).await;
        assert!(done, "{said}");
        space.issued("agent").await;
    });
}

/// A request has no part but its status through which it could be written, and that part writes no annotation.
#[test]
fn no_subresource_carries_a_decision() {
    run(async {
        let playground = playground().await;
        let space = filed(playground, "parts").await;
        let decided = Patch::Merge(json!({
            "metadata": {"annotations": {well_known::DECISION: "approved"}},
            "status": {"commonName": "central.parts.agent"},
        }));
        for part in ["scale", "approval", "finalizers", "binding"] {
            let parameters = PatchParams::default();
            let api = space.api();
            let written = api.patch_subresource(part, "agent", &parameters, &decided);
            match written.await {
                Err(kube::Error::Api(status)) => assert_eq!(status.code, 404, "{part}: {status:?}"),
                other => panic!("{part}: {other:?}"),
            }
        }
        // The controller itself, who alone may write status, takes no decision along.
        let (made, token) = playground
            .kubectl(
                &[
                    "create",
                    "token",
                    "volttron-operator",
                    "-n",
                    "volttron-system",
                ],
                "",
            )
            .await;
        assert!(made, "{token}");
        let controller: Client = playground.client_with_token(token.trim());
        Api::<VolttronCertRequest>::namespaced(controller, &space.namespace)
            .patch_status("agent", &PatchParams::default(), &decided)
            .await
            .unwrap();
        let request = space.get("agent").await;
        assert!(
            !request
                .metadata
                .annotations
                .unwrap_or_default()
                .contains_key(well_known::DECISION)
        );
    });
}

/// Whoever acts as somebody else is that person to the gate.
#[test]
fn a_requester_who_is_impersonated_may_not_decide_either() {
    run(async {
        let playground = playground().await;
        let space = filed(playground, "chain").await;
        let agent = format!("--as={}", space.user);
        let decide = async |more: &[&str]| {
            let mut args = vec![
                "annotate",
                "vcr",
                "agent",
                "-n",
                &space.namespace,
                "volttron.org/decision=approved",
            ];
            args.extend(more);
            playground.kubectl(&args, "").await
        };
        let own = "filed this request and may not decide on it";
        for more in [
            [agent.as_str(), "--as-group=system:masters"].as_slice(),
            &[&agent, "--as-group=system:masters", "--as-uid=another"],
            &[
                &agent,
                "--as-group=system:masters",
                "--field-manager=another",
            ],
        ] {
            let (done, said) = decide(more).await;
            assert!(!done && said.contains(own), "{more:?}: {said}");
        }
        let apply = json!({
            "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronCertRequest",
            "metadata": {
                "name": "agent", "namespace": space.namespace,
                "annotations": {well_known::DECISION: "approved"},
            },
        });
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
            "--as-group=system:masters",
            &agent,
        ];
        let (done, said) = playground.kubectl(&args, &apply.to_string()).await;
        assert!(!done && said.contains(own), "{said}");
        assert_eq!(space.get("agent").await.phase(), Some(Phase::Pending));
    });
}

async fn filed<'a>(playground: &'a Playground, name: &str) -> Space<'a> {
    let space = playground.space(name).await;
    let agent = Agent::new(&format!("central.{name}.agent"));
    space
        .file("agent", &central().await.instance, &agent.csr)
        .await;
    space.phase("agent", Phase::Pending).await;
    space
}
