//! Who may what by the chart's roles alone, as the API server's own authorizer answers.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use super::people::{Cast, Person, bind_users};
use super::{AGENTS, PLANT};

const REQUESTS: (&str, &str) = ("volttron.org", "volttroncertrequests");
const INSTANCES: (&str, &str) = ("volttron.org", "volttroninstances");

/// Every verb, `deletecollection` and `approve` included.
const ALL: &str = "get list watch create patch update delete deletecollection approve";
const READ: &str = "get list watch";
const FILE: &str = "get list watch create delete";
const RUN: &str = "get list watch create patch update delete deletecollection";

/// A role, and its verbs on requests and on instances: these and no other.
const ROLES: &[(&str, &str, &str)] = &[
    ("view", READ, READ),
    ("edit", FILE, READ),
    ("admin", FILE, RUN),
    ("cluster-admin", ALL, ALL),
    ("volttron-operator-viewer", READ, READ),
    ("volttron-operator-requester", FILE, READ),
    ("volttron-operator-instance-admin", "", RUN),
    (
        "volttron-operator-approver",
        "get list watch patch",
        "get list watch approve",
    ),
];

struct Question {
    user: String,
    groups: Vec<String>,
    verb: &'static str,
    resource: (&'static str, &'static str),
    namespace: String,
    allowed: bool,
}

/// How many questions were asked, and the answers that were otherwise than they should be.
pub async fn check(admin: &Client, cast: &Cast) -> (usize, Vec<String>) {
    let mut questions = of_accounts(cast);
    match of_roles(admin).await {
        Ok(more) => questions.extend(more),
        Err(error) => return (0, vec![format!("cannot bind the roles: {error}")]),
    }
    let mut wrong = Vec::new();
    for question in &questions {
        let allowed = ask(admin, question).await;
        if allowed != Some(question.allowed) {
            wrong.push(format!(
                "whether {} may {} {} in {} should be {}, and is {allowed:?}",
                question.user,
                question.verb,
                question.resource.1,
                question.namespace,
                question.allowed
            ));
        }
    }
    (questions.len(), wrong)
}

async fn ask(admin: &Client, question: &Question) -> Option<bool> {
    let (group, resource) = question.resource;
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(question.user.clone()),
            groups: Some(question.groups.clone()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(question.verb.to_owned()),
                namespace: Some(question.namespace.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api = Api::<SubjectAccessReview>::all(admin.clone());
    let answer = api.create(&PostParams::default(), &review).await.ok()?;
    answer.status.map(|status| status.allowed)
}

/// Every verb on both kinds, for somebody who is bound to one role in the agents' namespace.
async fn of_roles(admin: &Client) -> kube::Result<Vec<Question>> {
    let mut questions = Vec::new();
    for &(role, on_requests, on_instances) in ROLES {
        let user = format!("gate:with-{role}");
        bind_users(admin, AGENTS, role, std::slice::from_ref(&user)).await?;
        for (resource, granted) in [(REQUESTS, on_requests), (INSTANCES, on_instances)] {
            questions.extend(ALL.split(' ').map(|verb| Question {
                user: user.clone(),
                groups: Vec::new(),
                verb,
                resource,
                namespace: AGENTS.to_owned(),
                allowed: granted.split(' ').any(|it| it == verb),
            }));
        }
    }
    Ok(questions)
}

fn of_accounts(cast: &Cast) -> Vec<Question> {
    let ask = |person: Person, own: &str, rights: Vec<Right>| {
        let user = person.user(cast);
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{own}"),
        ];
        let own = own.to_owned();
        let question = move |(verb, resource, place, allowed): Right| Question {
            user: user.clone(),
            groups: groups.clone(),
            verb,
            resource,
            namespace: place.unwrap_or(&own).to_owned(),
            allowed,
        };
        rights.into_iter().map(question)
    };
    let own = &cast.installation.namespace;
    let controller = ask(Person::Controller, own, controller_rights());
    controller
        .chain(ask(Person::Agent, AGENTS, agent_rights()))
        .collect()
}

/// Verb, resource, namespace (`None` for the account's own) and whether it is allowed.
type Right = (
    &'static str,
    (&'static str, &'static str),
    Option<&'static str>,
    bool,
);

fn controller_rights() -> Vec<Right> {
    let status = ("volttron.org", "volttroncertrequests/status");
    let there = Some(PLANT);
    vec![
        ("watch", REQUESTS, there, true),
        ("patch", REQUESTS, there, true),
        ("patch", status, there, true),
        (
            "patch",
            ("volttron.org", "volttroninstances/status"),
            there,
            true,
        ),
        (
            "update",
            ("volttron.org", "volttroncertrequests/finalizers"),
            there,
            true,
        ),
        ("create", ("apps", "statefulsets"), there, true),
        ("create", ("", "secrets"), there, true),
        ("create", ("events.k8s.io", "events"), there, true),
        ("delete", ("", "secrets"), there, true),
        ("create", REQUESTS, None, true),
        ("approve", INSTANCES, there, false),
        ("approve", INSTANCES, None, false),
        ("create", INSTANCES, there, false),
        ("delete", INSTANCES, there, false),
        ("delete", REQUESTS, there, false),
        ("update", REQUESTS, there, false),
        ("delete", ("apps", "statefulsets"), there, false),
        ("create", ("coordination.k8s.io", "leases"), there, false),
        ("create", ("coordination.k8s.io", "leases"), None, true),
        // Its own Lease alone.
        ("update", ("coordination.k8s.io", "leases"), None, false),
        ("delete", ("coordination.k8s.io", "leases"), None, false),
        ("get", ("", "pods"), there, false),
        ("create", ("", "pods/exec"), there, false),
        ("create", ("", "serviceaccounts/token"), there, false),
        (
            "create",
            ("rbac.authorization.k8s.io", "rolebindings"),
            there,
            false,
        ),
        ("get", ("", "nodes"), there, false),
    ]
}

fn agent_rights() -> Vec<Right> {
    let there = Some(PLANT);
    vec![
        ("create", REQUESTS, None, true),
        ("watch", REQUESTS, None, true),
        ("get", INSTANCES, there, true),
        ("patch", REQUESTS, None, false),
        ("update", REQUESTS, None, false),
        ("delete", REQUESTS, None, false),
        ("approve", INSTANCES, there, false),
        ("get", ("", "secrets"), None, false),
    ]
}
