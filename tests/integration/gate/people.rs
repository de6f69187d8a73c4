//! The users of the table, and the rights they are given.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, RoleBinding, RoleRef, Subject};
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AGENTS, Installation, PLANT, Stamping, instances};

/// Clients that act as somebody.
pub trait Users {
    /// A client of the given user in the given groups.
    fn client(&self, user: &str, groups: &[&str]) -> Client;
    /// A client that shows a service account's token.
    fn with_token(&self, token: &str) -> Client;
}

/// Who sends a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// Files requests; may change them, may not approve.
    Rita,
    /// Approves; files requests as well.
    Alice,
    /// Approves.
    Anna,
    /// Approves.
    Ben,
    /// May change requests, may not approve.
    Will,
    /// Approves for instances of the agents' namespace, not for the instance that is asked.
    Olga,
    /// Approves for the one instance of the rows about instances, by its name.
    Nora,
    /// In group system:masters.
    Root,
    /// The operator's controller.
    Controller,
    /// A service account in the agents' namespace, with a token of its own.
    Agent,
}

impl Person {
    /// The name the API server knows the person by.
    pub fn user(self, cast: &Cast) -> String {
        match self {
            Self::Rita => "gate:rita".to_owned(),
            Self::Alice => "gate:alice".to_owned(),
            Self::Anna => "gate:anna".to_owned(),
            Self::Ben => "gate:ben".to_owned(),
            Self::Will => "gate:will".to_owned(),
            Self::Olga => "gate:olga".to_owned(),
            Self::Nora => "gate:nora".to_owned(),
            Self::Root => "gate:root".to_owned(),
            Self::Controller => {
                format!(
                    "system:serviceaccount:{}:{}",
                    cast.installation.namespace, cast.installation.service_account
                )
            }
            Self::Agent => format!("system:serviceaccount:{AGENTS}:agent"),
        }
    }
}

/// Clients of every person.
pub struct Cast {
    /// Where the operator is.
    pub installation: Installation,
    clients: Vec<(Person, Client)>,
}

impl Cast {
    /// The person's client.
    pub fn client(&self, person: Person) -> Client {
        let (_, client) = self
            .clients
            .iter()
            .find(|(who, _)| *who == person)
            .expect("every person has a client");
        client.clone()
    }
}

const WRITER: &str = "gate-writer";
const STATUS_WRITER: &str = "gate-status-writer";
const APPROVER_OF_ONE: &str = "gate-approver-of-one";
const PEOPLE: [Person; 7] = [
    Person::Rita,
    Person::Alice,
    Person::Anna,
    Person::Ben,
    Person::Will,
    Person::Olga,
    Person::Nora,
];

/// Makes namespaces, rights and clients. The chart's own roles are used wherever they fit; beyond them everybody may patch, update
/// and write status, so that nothing but the policies stands in the way.
pub async fn prepare(
    admin: &Client,
    users: &dyn Users,
    installation: &Installation,
) -> kube::Result<Cast> {
    let mut cast = Cast {
        installation: installation.clone(),
        clients: Vec::new(),
    };
    for name in [PLANT, AGENTS] {
        let namespace = Namespace {
            metadata: named(name),
            ..Namespace::default()
        };
        let api = Api::<Namespace>::all(admin.clone());
        // One that an earlier run has removed takes some seconds to go.
        while api
            .get_opt(name)
            .await?
            .is_some_and(|it| it.metadata.deletion_timestamp.is_some())
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        apply(&api, name, &namespace).await?;
    }
    let writer = [(
        "volttroncertrequests",
        ["get", "create", "patch", "update", "delete"].as_slice(),
    )];
    apply(
        &Api::all(admin.clone()),
        WRITER,
        &cluster_role(WRITER, &writer),
    )
    .await?;
    let status = [
        (
            "volttroncertrequests/status",
            ["patch", "update"].as_slice(),
        ),
        ("volttroninstances/status", &["patch", "update"]),
    ];
    apply(
        &Api::all(admin.clone()),
        STATUS_WRITER,
        &cluster_role(STATUS_WRITER, &status),
    )
    .await?;
    for (role, people) in [
        (WRITER, PEOPLE.as_slice()),
        (STATUS_WRITER, &PEOPLE),
        (
            "volttron-operator-requester",
            &[Person::Rita, Person::Alice],
        ),
        (
            "volttron-operator-approver",
            &[Person::Alice, Person::Anna, Person::Ben, Person::Olga],
        ),
    ] {
        bind(admin, &cast, AGENTS, role, people).await?;
    }
    let approvers = [Person::Alice, Person::Anna, Person::Ben];
    bind(
        admin,
        &cast,
        PLANT,
        "volttron-operator-approver",
        &approvers,
    )
    .await?;

    // Everybody runs instances; few approve.
    let mut of_one = cluster_role(APPROVER_OF_ONE, &[("volttroninstances", &["approve"])]);
    for rule in of_one.rules.iter_mut().flatten() {
        rule.resource_names = Some(vec![instances::NAME.to_owned()]);
    }
    apply(&Api::all(admin.clone()), APPROVER_OF_ONE, &of_one).await?;
    for (role, people) in [
        ("volttron-operator-instance-admin", PEOPLE.as_slice()),
        (APPROVER_OF_ONE, &[Person::Nora]),
    ] {
        bind(admin, &cast, PLANT, role, people).await?;
    }

    for person in PEOPLE {
        cast.clients
            .push((person, users.client(&person.user(&cast), &[])));
    }
    cast.clients.push((
        Person::Root,
        users.client(&Person::Root.user(&cast), &["system:masters"]),
    ));
    let of_namespace = format!("system:serviceaccounts:{}", installation.namespace);
    let groups = [
        "system:serviceaccounts",
        &of_namespace,
        "system:authenticated",
    ];
    cast.clients.push((
        Person::Controller,
        users.client(&Person::Controller.user(&cast), &groups),
    ));
    cast.clients
        .push((Person::Agent, users.with_token(&agent_token(admin).await?)));
    Ok(cast)
}

/// Removes what [`prepare`] made.
pub async fn remove(admin: &Client) {
    let background = DeleteParams::background();
    for name in [PLANT, AGENTS] {
        let _ = Api::<Namespace>::all(admin.clone())
            .delete(name, &background)
            .await;
    }
    for name in [WRITER, STATUS_WRITER, APPROVER_OF_ONE] {
        let _ = Api::<ClusterRole>::all(admin.clone())
            .delete(name, &background)
            .await;
    }
}

/// Whether the chart's stamping policy is installed.
pub async fn stamping(admin: &Client) -> kube::Result<Stamping> {
    Api::<ValidatingAdmissionPolicy>::all(admin.clone())
        .get("volttron-approval-gate")
        .await?;
    let kind = GroupVersionKind::gvk(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicy",
    );
    let resource = ApiResource::from_gvk_with_plural(&kind, "mutatingadmissionpolicies");
    let api = Api::<DynamicObject>::all_with(admin.clone(), &resource);
    let found = match api.get_opt("volttron-stamping").await {
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        other => other?,
    };
    Ok(found.map_or(Stamping::Off, |_| Stamping::On))
}

async fn agent_token(admin: &Client) -> kube::Result<String> {
    let api = Api::<ServiceAccount>::namespaced(admin.clone(), AGENTS);
    let account = ServiceAccount {
        metadata: named("agent"),
        ..ServiceAccount::default()
    };
    apply(&api, "agent", &account).await?;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let made = api
        .create_token_request("agent", &PostParams::default(), &request)
        .await?;
    Ok(made.status.map(|status| status.token).unwrap_or_default())
}

fn cluster_role(name: &str, rules: &[(&str, &[&str])]) -> ClusterRole {
    let rule = |(resource, verbs): &(&str, &[&str])| PolicyRule {
        api_groups: Some(vec![volttron_crds::GROUP.to_owned()]),
        resources: Some(vec![(*resource).to_owned()]),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    };
    ClusterRole {
        metadata: named(name),
        rules: Some(rules.iter().map(rule).collect()),
        ..ClusterRole::default()
    }
}

async fn bind(
    admin: &Client,
    cast: &Cast,
    namespace: &str,
    role: &str,
    people: &[Person],
) -> kube::Result<()> {
    let users: Vec<String> = people.iter().map(|person| person.user(cast)).collect();
    bind_users(admin, namespace, role, &users).await
}

/// Binds a `ClusterRole` to users in one namespace.
pub async fn bind_users(
    admin: &Client,
    namespace: &str,
    role: &str,
    users: &[String],
) -> kube::Result<()> {
    let subject = |user: &String| Subject {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "User".to_owned(),
        name: user.clone(),
        namespace: None,
    };
    let name = format!("{role}-{}", users.concat().replace(':', "-"));
    let binding = RoleBinding {
        metadata: named(&name),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(users.iter().map(subject).collect()),
    };
    apply(&Api::namespaced(admin.clone(), namespace), &name, &binding).await
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

async fn apply<K>(api: &Api<K>, name: &str, object: &K) -> kube::Result<()>
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    api.patch(
        name,
        &PatchParams::apply("gate-tests").force(),
        &Patch::Apply(object),
    )
    .await
    .map(drop)
}
