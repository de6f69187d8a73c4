//! Rights: what every account and role of the chart may do, and that it may nothing else. Whoever adds a rule to the chart writes
//! it down here; a right that is not in the table fails the test, wherever it comes from.

mod spelling;

use crate::shared::playground;
use serde::Deserialize as _;
use serde_json::{Value, json};
use spelling::{Rights, Role, bindings_of, listed_rights, roles_of, table};
use std::collections::BTreeMap;
use volttron_tests::{Playground, SYSTEM, run};

/// Every role of the chart: what it is for, then resource, `@` the names it is narrowed to, and the verbs.
const ROLES: &str = "
ClusterRole volttron-operator-controller
  volttroninstances.volttron.org                 list watch patch
  volttroncertrequests.volttron.org              list watch patch delete
  namespaces                                     list watch
  volttroninstances.volttron.org/status          patch
  volttroncertrequests.volttron.org/status       patch
  volttroninstances.volttron.org/finalizers      update
  volttroncertrequests.volttron.org/finalizers   update
  statefulsets.apps                              list watch create patch
  services                                       list watch create patch
  configmaps                                     list watch create patch
  secrets                                        get list watch create patch delete
  events                                         create patch
  events.events.k8s.io                           create patch
  validatingadmissionpolicies.admissionregistration.k8s.io@volttron-approval-gate,volttron-auto-approval,volttron-cleanup,volttron-status        get list watch
  validatingadmissionpolicybindings.admissionregistration.k8s.io@volttron-approval-gate,volttron-auto-approval,volttron-cleanup,volttron-status  get list watch
  mutatingadmissionpolicies.admissionregistration.k8s.io@volttron-stamping         get
  mutatingadmissionpolicybindings.admissionregistration.k8s.io@volttron-stamping   get

Role volttron-system/volttron-operator-controller
  volttroncertrequests.volttron.org              create
  leases.coordination.k8s.io                     create
  leases.coordination.k8s.io@volttron-operator   get update

ClusterRole volttron-operator-sidecar
  volttroncertrequests.volttron.org              get list watch create
  volttroninstances.volttron.org                 get list watch

ClusterRole volttron-operator-viewer aggregated to admin edit view
  volttroninstances.volttron.org                 get list watch
  volttroncertrequests.volttron.org              get list watch

ClusterRole volttron-operator-requester aggregated to admin edit
  volttroncertrequests.volttron.org              get list watch create delete
  volttroninstances.volttron.org                 get list watch

ClusterRole volttron-operator-instance-admin aggregated to admin
  volttroninstances.volttron.org                 get list watch create patch update delete deletecollection

ClusterRole volttron-operator-approver
  volttroninstances.volttron.org                 get list watch approve
  volttroncertrequests.volttron.org              get list watch patch
";

/// Who has them. Roles for people are bound by people.
const BINDINGS: &[&str] = &[
    "ClusterRoleBinding volttron-operator-controller: ClusterRole volttron-operator-controller to ServiceAccount volttron-system/volttron-operator",
    "RoleBinding volttron-system/volttron-operator-controller: Role volttron-operator-controller to ServiceAccount volttron-system/volttron-operator",
    "ClusterRoleBinding volttron-operator-sidecar: ClusterRole volttron-operator-sidecar to Group system:serviceaccounts",
];

/// With `requesters.namespaces: [building-7, plant]`, what is there instead of the last.
const NARROWED_ROLE: &str = "
ClusterRole volttron-operator-sidecar-instances
  volttroninstances.volttron.org                 get list watch
";
const NARROWED_BINDINGS: &[&str] = &[
    "ClusterRoleBinding volttron-operator-sidecar-instances: ClusterRole volttron-operator-sidecar-instances to Group system:serviceaccounts:building-7, Group system:serviceaccounts:plant",
    "RoleBinding building-7/volttron-operator-sidecar: ClusterRole volttron-operator-sidecar to Group system:serviceaccounts:building-7",
    "RoleBinding plant/volttron-operator-sidecar: ClusterRole volttron-operator-sidecar to Group system:serviceaccounts:plant",
];

const CONTROLLER: &str = "system:serviceaccount:volttron-system:volttron-operator";

#[test]
fn the_chart_grants_what_is_written_down_and_nothing_else() {
    run(async {
        let playground = playground().await;
        let installed = installed(playground).await;
        assert_same(&roles_of(&installed), &table(ROLES), "the chart's roles");
        let bindings = BINDINGS.iter().map(ToString::to_string).collect();
        assert_eq!(bindings_of(&installed), bindings);
    });
}

#[test]
fn no_value_of_the_chart_grants_more() {
    run(async {
        let playground = playground().await;
        let everything = rendered(playground, "everything").await;
        let written = table(&format!("{ROLES}{NARROWED_ROLE}"));
        assert_same(&roles_of(&everything), &written, "with every value set");
        let written = BINDINGS[..2].iter().chain(NARROWED_BINDINGS);
        assert_eq!(
            bindings_of(&everything),
            written.map(ToString::to_string).collect()
        );

        let least = rendered(playground, "least").await;
        let alone: Vec<_> = ROLES
            .lines()
            .map(|line| line.split(" aggregated").next().unwrap_or_default())
            .collect();
        assert_same(
            &roles_of(&least),
            &table(&alone.join("\n")),
            "without aggregation",
        );
    });
}

#[test]
fn every_account_may_what_its_roles_say_and_nothing_else() {
    run(async {
        let playground = playground().await;
        let elsewhere = playground.namespace("elsewhere").await;
        let anybody = rights(playground, "rights:nobody", &elsewhere).await;
        assert!(
            anybody
                .iter()
                .any(|it| it.contains("selfsubjectaccessreviews"))
        );
        let plain = format!("system:serviceaccount:{elsewhere}:default");
        let roles = table(ROLES);
        let accounts: [(&str, &str, &[&str]); 5] = [
            (
                CONTROLLER,
                SYSTEM,
                &[
                    "ClusterRole volttron-operator-controller",
                    "Role volttron-system/volttron-operator-controller",
                    "ClusterRole volttron-operator-sidecar",
                ],
            ),
            (
                CONTROLLER,
                &elsewhere,
                &[
                    "ClusterRole volttron-operator-controller",
                    "ClusterRole volttron-operator-sidecar",
                ],
            ),
            (
                &plain,
                &elsewhere,
                &["ClusterRole volttron-operator-sidecar"],
            ),
            (&plain, SYSTEM, &["ClusterRole volttron-operator-sidecar"]),
            ("rights:nobody", SYSTEM, &[]),
        ];
        for (user, namespace, its_roles) in accounts {
            let mut written = anybody.clone();
            // What every service account may besides.
            if user.starts_with("system:serviceaccount:") {
                written.extend(of_every_service_account());
            }
            for role in its_roles {
                written.extend(roles[*role].rights.iter().cloned());
            }
            let found = rights(playground, user, namespace).await;
            compare(&found, &written, &format!("{user} in {namespace}"));
        }
    });
}

#[test]
fn a_role_for_people_is_worth_what_it_says_where_it_is_bound() {
    run(async {
        let playground = playground().await;
        let (here, elsewhere) = (
            playground.namespace("rights").await,
            playground.namespace("rights").await,
        );
        let anybody = rights(playground, "rights:nobody", &here).await;
        for (name, role) in table(ROLES) {
            let Some(name) = name.strip_prefix("ClusterRole ") else {
                continue;
            };
            let user = bind(playground, name, &here).await;
            let written = anybody.union(&role.rights).cloned().collect();
            let found = rights(playground, &user, &here).await;
            compare(&found, &written, &format!("who has {name}"));
            let found = rights(playground, &user, &elsewhere).await;
            compare(&found, &anybody, &format!("who has {name}, elsewhere"));
        }
    });
}

#[test]
fn the_clusters_own_roles_hold_the_charts() {
    run(async {
        let playground = playground().await;
        let here = playground.namespace("rights").await;
        let ours = |rights: &Rights| -> Rights {
            let ours = rights.iter().filter(|it| it.contains("volttron.org"));
            ours.cloned().collect()
        };
        for aggregate in ["view", "edit", "admin"] {
            let written: Rights = table(ROLES)
                .into_values()
                .filter(|role| role.aggregated.iter().any(|it| it == aggregate))
                .flat_map(|role| role.rights)
                .collect();
            assert!(!written.is_empty());
            let user = bind(playground, aggregate, &here).await;
            let found = rights(playground, &user, &here).await;
            compare(&ours(&found), &ours(&written), aggregate);
            let verb = "approve volttroninstances.volttron.org";
            assert!(!found.contains(verb), "{aggregate} may approve");
        }
    });
}

/// The questions somebody would ask, in kubectl's own words.
#[test]
fn who_may_approve_is_what_kubectl_says() {
    run(async {
        let playground = playground().await;
        let (here, elsewhere) = (
            playground.namespace("rights").await,
            playground.namespace("rights").await,
        );
        let approver = bind(playground, "volttron-operator-approver", &here).await;
        let runner = bind(playground, "volttron-operator-instance-admin", &here).await;
        for (user, namespace, question, allowed) in [
            (
                &*approver,
                &*here,
                "approve volttroninstances/central",
                true,
            ),
            (
                &approver,
                &elsewhere,
                "approve volttroninstances/central",
                false,
            ),
            (&approver, &here, "update volttroncertrequests", false),
            (&runner, &here, "patch volttroninstances/central", true),
            (&runner, &here, "approve volttroninstances/central", false),
            (
                CONTROLLER,
                SYSTEM,
                "approve volttroninstances/central",
                false,
            ),
            (CONTROLLER, SYSTEM, "create volttroncertrequests", true),
            (
                CONTROLLER,
                &here,
                "get validatingadmissionpolicies/volttron-status",
                true,
            ),
            (
                CONTROLLER,
                &here,
                "get validatingadmissionpolicies/another",
                false,
            ),
            (
                CONTROLLER,
                &here,
                "patch validatingadmissionpolicies/volttron-status",
                false,
            ),
            (CONTROLLER, &here, "get pods", false),
            (CONTROLLER, &here, "create serviceaccounts/token", false),
            (CONTROLLER, &here, "create rolebindings", false),
        ] {
            let (as_user, words) = (format!("--as={user}"), question.split(' '));
            let mut args = vec!["auth", "can-i", &as_user, "-n", namespace];
            args.extend(words);
            let (_, said) = playground.kubectl(&args, "").await;
            let expected = if allowed { "yes" } else { "no" };
            assert!(
                said.split_whitespace().any(|word| word == expected),
                "{user} in {namespace}: {question}? {said}"
            );
        }
    });
}

/// What Helm has installed.
async fn installed(playground: &Playground) -> Vec<Value> {
    let kinds = "clusterroles,roles,clusterrolebindings,rolebindings";
    let args = ["get", kinds, "--all-namespaces", "--output=json"];
    let (listed, text) = playground.kubectl(&args, "").await;
    assert!(listed, "{text}");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let ours = items.into_iter().filter(|object| {
        object["metadata"]["annotations"]["meta.helm.sh/release-name"] == json!("volttron-operator")
    });
    ours.collect()
}

/// What Helm would install with one of the chart's own sets of values.
async fn rendered(playground: &Playground, values: &str) -> Vec<Value> {
    let cluster = playground.cluster().clone();
    let values = format!("ci/{values}-values.yaml");
    let text = tokio::task::spawn_blocking(move || {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/volttron-operator");
        let output = cluster
            .helm()
            .args([
                "template",
                "volttron-operator",
                chart,
                "--namespace",
                SYSTEM,
            ])
            .args(["--values", &format!("{chart}/{values}")])
            .output()
            .expect("helm can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    });
    let text = text.await.expect("helm does not panic");
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let documents = documents.map(|document| Value::deserialize(document).expect("YAML"));
    let rights = ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"];
    documents
        .filter(|it| rights.iter().any(|kind| it["kind"] == json!(kind)))
        .collect()
}

/// Everything `kubectl auth can-i --list` lists for a user.
async fn rights(playground: &Playground, user: &str, namespace: &str) -> Rights {
    let user = format!("--as={user}");
    let args = [
        "auth",
        "can-i",
        "--list",
        "--no-headers",
        &user,
        "-n",
        namespace,
    ];
    let (listed, text) = playground.kubectl(&args, "").await;
    assert!(listed, "{text}");
    text.lines().flat_map(listed_rights).collect()
}

/// Rights of group `system:serviceaccounts` and the like that Kubernetes itself brings.
fn of_every_service_account() -> Rights {
    [
        "get /.well-known/openid-configuration",
        "get /.well-known/openid-configuration/",
        "get /openid/v1/jwks",
        "get /openid/v1/jwks/",
    ]
    .map(str::to_owned)
    .into()
}

/// Binds a `ClusterRole` to somebody who has nothing else.
async fn bind(playground: &Playground, role: &str, namespace: &str) -> String {
    let user = format!("rights:{role}");
    let (bound, text) = playground
        .kubectl(
            &[
                "create",
                "rolebinding",
                role,
                "-n",
                namespace,
                "--clusterrole",
                role,
                "--user",
                &user,
            ],
            "",
        )
        .await;
    assert!(bound, "{text}");
    user
}

fn assert_same(found: &BTreeMap<String, Role>, written: &BTreeMap<String, Role>, what: &str) {
    let names = |roles: &BTreeMap<String, Role>| roles.keys().cloned().collect();
    compare(&names(found), &names(written), what);
    for (name, role) in found {
        compare(&role.rights, &written[name].rights, name);
        assert_eq!(
            role.aggregated, written[name].aggregated,
            "{what}: {name} is aggregated to"
        );
    }
}

#[track_caller]
fn compare(found: &Rights, written: &Rights, what: &str) {
    let more: Vec<_> = found.difference(written).collect();
    let less: Vec<_> = written.difference(found).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "{what}: there is {more:#?}, which the table of this test does not grant, and {less:#?} is missing"
    );
}
