//! Who may what by the chart's roles alone, as the API server's own authorizer answers.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use super::people::{Cast, Person};
use super::{AGENTS, PLANT};

/// A question: user, groups, verb, resource, namespace, and the answer.
struct Question {
    user: String,
    groups: Vec<String>,
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: String,
    allowed: bool,
}

const REQUESTS: (&str, &str) = ("volttron.org", "volttroncertrequests");
const INSTANCES: (&str, &str) = ("volttron.org", "volttroninstances");

/// How many questions are asked.
pub fn count() -> usize {
    controller_rights().len() + agent_rights().len()
}

/// The answers that were otherwise.
pub async fn check(admin: &Client, cast: &Cast) -> Vec<String> {
    let mut wrong = Vec::new();
    for question in questions(cast) {
        let attributes = ResourceAttributes {
            group: Some(question.group.to_owned()),
            resource: question.resource.split('/').next().map(str::to_owned),
            subresource: question
                .resource
                .split_once('/')
                .map(|(_, sub)| sub.to_owned()),
            verb: Some(question.verb.to_owned()),
            namespace: Some(question.namespace.clone()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(question.user.clone()),
                groups: Some(question.groups.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answered = Api::<SubjectAccessReview>::all(admin.clone())
            .create(&PostParams::default(), &review)
            .await;
        let allowed = answered
            .ok()
            .and_then(|review| review.status)
            .map(|status| status.allowed);
        if allowed != Some(question.allowed) {
            wrong.push(format!(
                "{} may {} {} in {}: should be {}, is {allowed:?}",
                question.user,
                question.verb,
                question.resource,
                question.namespace,
                question.allowed
            ));
        }
    }
    wrong
}

fn questions(cast: &Cast) -> Vec<Question> {
    let ask = |person: Person, own: &str, rights: Vec<Right>| {
        let user = person.user(cast);
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{own}"),
        ];
        let own = own.to_owned();
        rights
            .into_iter()
            .map(move |(verb, (group, resource), place, allowed)| Question {
                user: user.clone(),
                groups: groups.clone(),
                verb,
                group,
                resource,
                namespace: place.unwrap_or(&own).to_owned(),
                allowed,
            })
    };
    let controller = ask(
        Person::Controller,
        &cast.installation.namespace,
        controller_rights(),
    );
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
        ("create", REQUESTS, None, true),
        ("create", ("coordination.k8s.io", "leases"), None, true),
        ("approve", INSTANCES, there, false),
        ("approve", INSTANCES, None, false),
        ("create", INSTANCES, there, false),
        ("delete", INSTANCES, there, false),
        ("delete", REQUESTS, there, false),
        ("create", ("coordination.k8s.io", "leases"), there, false),
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
