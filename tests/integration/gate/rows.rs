//! What a row is, and how it is sent.

use kube::api::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use volttron_crds::well_known::FINALIZER;

use super::api::{Annotations, Change, Requests, Write, body, text, write_instance_status};
use super::people::{Cast, Person};
use super::{AGENTS, INSTANCE, PLANT, Stamping};

/// One statement about the gate.
pub struct Row {
    /// What is done, as a sentence.
    pub name: &'static str,
    /// By whom.
    pub who: Person,
    /// What is sent.
    pub what: What,
    /// What comes of it.
    pub then: Then,
    /// Holds only with or without stamping.
    pub only: Option<Stamping>,
}

/// What is sent.
pub enum What {
    /// A new request.
    Create(New),
    /// A change of one that stands as given.
    Change(Given, Change),
    /// Its deletion.
    Delete(Given),
    /// The status of the instance.
    InstanceStatus,
}

/// A request as it is filed; the default is as it should be.
#[derive(Default)]
pub struct New {
    /// Its annotations.
    pub annotations: Annotations,
    /// Whom it names as requester.
    pub requester: Requester,
    /// Its namespace, where it is not that of the agents.
    pub namespace: Option<&'static str>,
    /// Its name is left to the API server.
    pub generate_name: bool,
    /// It comes with a status.
    pub status: bool,
    /// It comes with the controller's finalizer.
    pub held: bool,
}

/// What `spec.requester` of a new request says.
#[derive(Default)]
pub enum Requester {
    /// The truth.
    #[default]
    Themselves,
    /// Something else.
    Named(&'static str),
    /// Nothing.
    Missing,
}

/// How a request stands before it is changed.
#[derive(Clone, Copy)]
pub struct Given {
    /// Who filed it.
    pub by: Person,
    /// What was decided since, and by whom.
    pub decided: Option<(Person, Annotations)>,
    /// The controller holds it by its finalizer.
    pub held: bool,
    /// It names no namespace for its instance: a JSON null.
    pub null_namespace: bool,
}

/// What comes of a row.
pub enum Then {
    /// It is accepted, and these annotations stand afterwards.
    Accepted(&'static [(&'static str, Expected)]),
    /// It is refused with these words, and nothing has changed.
    Refused(&'static str),
}

/// An annotation afterwards.
pub enum Expected {
    /// With this value.
    Is(&'static str),
    /// Absent.
    Absent,
    /// With this value where the API server stamps it, else absent.
    Stamped(&'static str),
}

impl Row {
    /// The ways in which it can be sent.
    pub fn writes(&self) -> &'static [Write] {
        match &self.what {
            What::Create(New {
                generate_name: true,
                ..
            }) => &[Write::Create],
            // Server-side apply takes the verb patch as well, which no service account has.
            What::Create(_) if self.who == Person::Agent => &[Write::Create],
            What::Create(_) => &[Write::Create, Write::Apply],
            // The controller has the verb patch alone.
            What::Change(..) if self.who == Person::Controller => {
                &[Write::Merge, Write::Json, Write::Apply]
            }
            What::Change(..) => &[Write::Merge, Write::Json, Write::Update, Write::Apply],
            What::Delete(_) | What::InstanceStatus => &[Write::Merge],
        }
    }
}

/// Sends a row one way; the error tells what was otherwise.
pub async fn run(
    admin: &Client,
    cast: &Cast,
    stamping: Stamping,
    row: &Row,
    how: &Write,
) -> Result<(), String> {
    let client = cast.client(row.who);
    let all = |namespace: &str| Requests::new(admin.clone(), namespace);
    match &row.what {
        What::Create(new) => {
            let namespace = new.namespace.unwrap_or(AGENTS);
            let result = Requests::new(client, namespace)
                .create(&filed(new, row.who, cast), *how)
                .await;
            let name = result.as_ref().map(ResourceExt::name_any);
            let judged = judge(&row.then, stamping, &result).and_then(|()| match &result {
                Ok(made) => as_filed(made, row.who, cast),
                Err(_) => Ok(()),
            });
            if let Ok(name) = name {
                all(namespace)
                    .delete(&name)
                    .await
                    .map_err(|error| text(&error))?;
            }
            judged
        }
        What::Change(given, change) => {
            let before = stand(admin, cast, given).await?;
            let result = Requests::new(client, AGENTS)
                .change(&before, *change, *how)
                .await;
            let after = all(AGENTS)
                .get(&before.name_any())
                .await
                .map_err(|error| text(&error))?;
            let judged = match &result {
                Ok(_) => judge(&row.then, stamping, &Ok(after)),
                Err(_) => {
                    judge(&row.then, stamping, &result).and_then(|()| untouched(&before, &after))
                }
            };
            forget(admin, cast, &before).await?;
            judged
        }
        What::Delete(given) => {
            let before = stand(admin, cast, given).await?;
            let result = Requests::new(client, AGENTS)
                .delete(&before.name_any())
                .await;
            judge(&row.then, stamping, &result.map(|()| before))
        }
        What::InstanceStatus => {
            let result = write_instance_status(admin, client).await;
            let nothing = || DynamicObject {
                types: None,
                metadata: kube::api::ObjectMeta::default(),
                data: Value::Null,
            };
            judge(&row.then, stamping, &result.map(|()| nothing()))
        }
    }
}

/// Removes what a run that was interrupted has left.
pub async fn clear(admin: &Client, cast: &Cast) -> Result<(), String> {
    let left = Requests::new(admin.clone(), AGENTS)
        .list()
        .await
        .map_err(|error| text(&error))?;
    for request in left {
        forget(admin, cast, &request).await?;
    }
    Ok(())
}

fn judge(
    then: &Then,
    stamping: Stamping,
    result: &kube::Result<DynamicObject>,
) -> Result<(), String> {
    match (then, result) {
        (Then::Refused(words), Ok(_)) => Err(format!(
            "it was accepted, and should be refused with {words:?}"
        )),
        (Then::Refused(words), Err(error)) => {
            let said = text(error);
            said.contains(words).then_some(()).ok_or_else(|| {
                format!("it should be refused with {words:?}, and was with {said:?}")
            })
        }
        (Then::Accepted(_), Err(error)) => Err(format!("it was refused: {}", text(error))),
        (Then::Accepted(expected), Ok(object)) => {
            let stands = |key: &str| object.annotations().get(key).map(String::as_str);
            let should = |value: &Expected| match value {
                Expected::Is(value) => Some(*value),
                Expected::Stamped(value) => (stamping == Stamping::On).then_some(*value),
                Expected::Absent => None,
            };
            let off = expected
                .iter()
                .find(|(key, value)| stands(key) != should(value));
            off.map_or(Ok(()), |(key, value)| {
                Err(format!(
                    "{key} should be {:?} afterwards, and is {:?}",
                    should(value),
                    stands(key)
                ))
            })
        }
    }
}

/// What is accepted names its creator, and has no status yet.
fn as_filed(made: &DynamicObject, who: Person, cast: &Cast) -> Result<(), String> {
    let (requester, status) = (&made.data["spec"]["requester"], &made.data["status"]);
    if *requester != json!(who.user(cast)) {
        return Err(format!("spec.requester is {requester} afterwards"));
    }
    status
        .is_null()
        .then_some(())
        .ok_or_else(|| format!("it was created with status {status}"))
}

fn untouched(before: &DynamicObject, after: &DynamicObject) -> Result<(), String> {
    let same = before.metadata.resource_version == after.metadata.resource_version;
    same.then_some(())
        .ok_or_else(|| "it was refused, yet the request has changed".to_owned())
}

fn filed(new: &New, who: Person, cast: &Cast) -> Value {
    let annotations = new
        .annotations
        .iter()
        .map(|&(key, value)| (key.to_owned(), json!(value)));
    let requester = match new.requester {
        Requester::Themselves => Some(who.user(cast)),
        Requester::Named(name) => Some(name.to_owned()),
        Requester::Missing => None,
    };
    let annotations = Value::Object(annotations.collect());
    let mut filed = body(
        "gate-new",
        new.namespace.unwrap_or(AGENTS),
        &annotations,
        requester.as_deref(),
    );
    if new.generate_name {
        filed["metadata"]["name"] = Value::Null;
        filed["metadata"]["generateName"] = json!("gate-new-");
        filed["metadata"]["labels"] = json!({"app.kubernetes.io/name": "forwarder"});
    }
    if new.held {
        filed["metadata"]["finalizers"] = json!([FINALIZER]);
    }
    if new.status {
        filed["status"] = json!({"phase": "Issued"});
    }
    filed
}

/// Makes the request that the row finds.
async fn stand(admin: &Client, cast: &Cast, given: &Given) -> Result<DynamicObject, String> {
    let said = |step: &'static str| {
        move |error: kube::Error| format!("cannot arrange it ({step}): {}", text(&error))
    };
    let as_person = |person| Requests::new(cast.client(person), AGENTS);
    let user = given.by.user(cast);
    let mut request = body("gate-row", AGENTS, &json!({}), Some(&user));
    if given.null_namespace {
        request["spec"]["instanceRef"] = json!({"name": INSTANCE, "namespace": null});
    }
    let mut object = as_person(given.by)
        .create(&request, Write::Create)
        .await
        .map_err(said("file"))?;
    if let Some((approver, annotations)) = given.decided {
        let decision = Change::Annotations(annotations);
        object = as_person(approver)
            .change(&object, decision, Write::Apply)
            .await
            .map_err(said("decide"))?;
    }
    if given.held {
        let controller = as_person(Person::Controller);
        controller
            .hold(&object.name_any())
            .await
            .map_err(said("hold"))?;
        let all = Requests::new(admin.clone(), AGENTS);
        object = all.get(&object.name_any()).await.map_err(said("read"))?;
    }
    Ok(object)
}

async fn forget(admin: &Client, cast: &Cast, request: &DynamicObject) -> Result<(), String> {
    let name = request.name_any();
    let controller = Requests::new(cast.client(Person::Controller), AGENTS);
    controller
        .release(&name)
        .await
        .map_err(|error| format!("cannot release it: {}", text(&error)))?;
    let all = Requests::new(admin.clone(), AGENTS);
    all.delete(&name)
        .await
        .map_err(|error| format!("cannot delete it: {}", text(&error)))
}

/// The namespace of the instance is used by rows that file where they may not.
pub const ELSEWHERE: &str = PLANT;
