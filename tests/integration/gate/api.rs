//! Requests as plain JSON, so that rows can send what no typed client would.

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};
use volttron_crds::well_known::FINALIZER;
use volttron_crds::{VolttronCertRequest, VolttronInstance};

use super::people::{Cast, Person};
use super::{AGENTS, INSTANCE, PLANT, Stamping, instances};

/// The field manager of everything here, so that server-side apply takes back what an earlier apply has set.
const MANAGER: &str = "gate";
/// The field manager of the finalizer, so that a row which removes it by apply removes nothing else.
const MANAGER_OF_FINALIZER: &str = "gate-finalizer";

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// POST.
    Create,
    /// JSON merge patch, which is what `kubectl annotate` sends.
    Merge,
    /// JSON patch.
    Json,
    /// PUT of the whole object.
    Update,
    /// Server-side apply.
    Apply,
}

/// Annotations set, or removed where there is no value.
pub type Annotations = &'static [(&'static str, Option<&'static str>)];

/// What is changed of an existing request.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Annotations set, or removed where there is no value.
    Annotations(Annotations),
    /// One field of the spec.
    Spec(&'static str, &'static str),
    /// The controller's finalizer is set.
    Finalizer,
    /// The controller's finalizer is removed.
    NoFinalizer,
    /// Status, through its subresource, in the same body as an approval.
    Status,
}

/// The requests of one namespace, as seen by one user.
pub struct Requests {
    api: Api<DynamicObject>,
    namespace: String,
}

impl Requests {
    /// With the rights of `client`.
    pub fn new(client: Client, namespace: &str) -> Self {
        let resource = ApiResource::erase::<VolttronCertRequest>(&());
        Self {
            api: Api::namespaced_with(client, namespace, &resource),
            namespace: namespace.to_owned(),
        }
    }

    /// The request as it is stored.
    pub async fn get(&self, name: &str) -> kube::Result<DynamicObject> {
        self.api.get(name).await
    }

    /// Adds the controller's finalizer.
    pub async fn hold(&self, name: &str) -> kube::Result<()> {
        let held = json!({
            "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronCertRequest",
            "metadata": {"finalizers": [FINALIZER]},
        });
        let manager = PatchParams::apply(MANAGER_OF_FINALIZER);
        self.api
            .patch(name, &manager, &Patch::Apply(&held))
            .await
            .map(drop)
    }

    /// Removes every finalizer.
    pub async fn release(&self, name: &str) -> kube::Result<()> {
        let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.api
            .patch(name, &PatchParams::default(), &released)
            .await
            .map(drop)
    }

    /// Deletes a request.
    pub async fn delete(&self, name: &str) -> kube::Result<()> {
        self.api
            .delete(name, &DeleteParams::default())
            .await
            .map(drop)
    }

    /// All requests of the namespace.
    pub async fn list(&self) -> kube::Result<Vec<DynamicObject>> {
        self.api
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
    }

    /// Files `body`.
    pub async fn create(&self, body: &Value, how: Write) -> kube::Result<DynamicObject> {
        let object: DynamicObject =
            serde_json::from_value(body.clone()).map_err(kube::Error::SerdeError)?;
        if how == Write::Apply {
            return self
                .api
                .patch(&object.name_any(), &apply(), &Patch::Apply(body))
                .await;
        }
        self.api.create(&PostParams::default(), &object).await
    }

    /// Changes the request `before`.
    pub async fn change(
        &self,
        before: &DynamicObject,
        change: Change,
        how: Write,
    ) -> kube::Result<DynamicObject> {
        let name = before.name_any();
        let patch = match how {
            Write::Create => unreachable!("an existing request is not created"),
            Write::Update => {
                let body = edited(before, change);
                let parameters = PostParams::default();
                return match change {
                    Change::Status => self.api.replace_status(&name, &parameters, &body).await,
                    _ => self.api.replace(&name, &parameters, &body).await,
                };
            }
            Write::Merge => Patch::Merge(merged(change)),
            Write::Apply => Patch::Apply(configuration(&name, &self.namespace, change)),
            Write::Json => Patch::Json(
                serde_json::from_value(operations(before, change))
                    .map_err(kube::Error::SerdeError)?,
            ),
        };
        let parameters = match (how, change) {
            (Write::Apply, Change::NoFinalizer) => PatchParams::apply(MANAGER_OF_FINALIZER),
            (Write::Apply, _) => apply(),
            _ => PatchParams::default(),
        };
        match change {
            Change::Status => self.api.patch_status(&name, &parameters, &patch).await,
            _ => self.api.patch(&name, &parameters, &patch).await,
        }
    }

    /// The first policy that does not act yet, or acts though it is gone.
    pub async fn asleep(&self, stamping: Stamping, cast: &Cast) -> Option<&'static str> {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let try_out = |annotations: &Value, requester: Option<&str>| {
            serde_json::from_value::<DynamicObject>(body(
                "gate-trial",
                AGENTS,
                annotations,
                requester,
            ))
            .expect("a request")
        };
        let refused_by = |result: kube::Result<DynamicObject>, policy: &str| {
            result
                .err()
                .is_some_and(|error| text(&error).contains(policy))
        };
        let decided = try_out(
            &json!({"volttron.org/decision": "approved"}),
            Some("gate:admin"),
        );
        if !refused_by(
            self.api.create(&dry, &decided).await,
            "volttron-approval-gate",
        ) {
            return Some("volttron-approval-gate");
        }
        let rita = Self::new(cast.client(Person::Rita), AGENTS);
        let stamped = rita
            .api
            .create(&dry, &try_out(&json!({}), None))
            .await
            .is_ok();
        if stamped != (stamping == Stamping::On) {
            return Some("volttron-stamping");
        }
        self.guards_asleep(cast).await
    }

    /// The policies that show only on an object that exists.
    async fn guards_asleep(&self, cast: &Cast) -> Option<&'static str> {
        const NAME: &str = "gate-trial";
        let rita = Self::new(cast.client(Person::Rita), AGENTS);
        let user = Person::Rita.user(cast);
        let trial = match self.api.get_opt(NAME).await {
            Ok(Some(trial)) => trial,
            _ => match rita
                .create(&body(NAME, AGENTS, &json!({}), Some(&user)), Write::Create)
                .await
            {
                Ok(trial) => trial,
                Err(_) => return Some("volttron-approval-gate"),
            },
        };
        let controller = Self::new(cast.client(Person::Controller), AGENTS);
        let _ = controller.hold(NAME).await;
        let dry = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let released = json!({"metadata": {"finalizers": null}});
        if self
            .api
            .patch(NAME, &dry, &Patch::Merge(&released))
            .await
            .is_ok()
        {
            return Some("volttron-cleanup");
        }
        let status = json!({"status": {"phase": "Issued"}});
        if self
            .api
            .patch_status(NAME, &dry, &Patch::Merge(&status))
            .await
            .is_ok()
        {
            return Some("volttron-status");
        }
        let _ = controller.release(NAME).await;
        if instances::asleep(cast).await {
            return Some("volttron-auto-approval");
        }
        let _ = self.delete(&trial.name_any()).await;
        None
    }
}

/// Writes an instance's status.
pub async fn write_instance_status(admin: &Client, writer: Client) -> kube::Result<()> {
    let instance = json!({
        "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronInstance",
        "metadata": {"name": INSTANCE}, "spec": {},
    });
    let api = Api::<VolttronInstance>::namespaced(admin.clone(), PLANT);
    api.patch(INSTANCE, &apply(), &Patch::Apply(&instance))
        .await?;
    let status = json!({"status": {"amqpAddress": "amqps://elsewhere:5671/volttron"}});
    let api = Api::<VolttronInstance>::namespaced(writer, PLANT);
    api.patch_status(INSTANCE, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .map(drop)
}

/// A request as it is filed.
pub fn body(name: &str, namespace: &str, annotations: &Value, requester: Option<&str>) -> Value {
    let mut body = json!({
        "apiVersion": "volttron.org/v1alpha1",
        "kind": "VolttronCertRequest",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"instanceRef": {"name": INSTANCE, "namespace": PLANT}, "request": "Zm9v"},
    });
    if let Some(requester) = requester {
        body["spec"]["requester"] = json!(requester);
    }
    body
}

/// The API server's own words.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn merged(change: Change) -> Value {
    match change {
        Change::Annotations(list) => {
            let annotations: Map<String, Value> = list
                .iter()
                .map(|&(key, value)| (key.to_owned(), json!(value)))
                .collect();
            json!({"metadata": {"annotations": annotations}})
        }
        Change::Spec(field, value) => json!({"spec": {field: value}}),
        Change::Finalizer => json!({"metadata": {"finalizers": [FINALIZER]}}),
        Change::NoFinalizer => json!({"metadata": {"finalizers": null}}),
        Change::Status => status_and_approval(),
    }
}

/// The whole configuration of the field manager: what it leaves out of what it set before is removed.
fn configuration(name: &str, namespace: &str, change: Change) -> Value {
    let mut body = match change {
        Change::Annotations(list) => {
            let set = list
                .iter()
                .filter_map(|&(key, value)| Some((key.to_owned(), json!(value?))));
            json!({"metadata": {"annotations": set.collect::<Map<String, Value>>()}})
        }
        Change::NoFinalizer => json!({"metadata": {}}),
        Change::Finalizer | Change::Spec(..) | Change::Status => merged(change),
    };
    body["apiVersion"] = json!("volttron.org/v1alpha1");
    body["kind"] = json!("VolttronCertRequest");
    body["metadata"]["name"] = json!(name);
    body["metadata"]["namespace"] = json!(namespace);
    body
}

fn operations(before: &DynamicObject, change: Change) -> Value {
    match change {
        Change::Annotations(list) => {
            let mut operations = Vec::new();
            if before.metadata.annotations.is_none() {
                operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
            for (key, value) in list {
                let path = format!("/metadata/annotations/{}", key.replace('/', "~1"));
                operations.push(match value {
                    Some(value) => json!({"op": "add", "path": path, "value": value}),
                    None => json!({"op": "remove", "path": path}),
                });
            }
            Value::Array(operations)
        }
        Change::Spec(field, value) => {
            json!([{"op": "add", "path": format!("/spec/{field}"), "value": value}])
        }
        Change::Finalizer => {
            json!([{"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]}])
        }
        Change::NoFinalizer => json!([{"op": "remove", "path": "/metadata/finalizers"}]),
        Change::Status => json!([
            {"op": "add", "path": "/status", "value": {"phase": "Issued"}},
            {"op": "add", "path": "/metadata/annotations", "value": {"volttron.org/decision": "approved"}},
        ]),
    }
}

fn edited(before: &DynamicObject, change: Change) -> DynamicObject {
    let mut object = before.clone();
    match change {
        Change::Annotations(list) => {
            for &(key, value) in list {
                match value {
                    Some(value) => object
                        .annotations_mut()
                        .insert(key.to_owned(), value.to_owned()),
                    None => object.annotations_mut().remove(key),
                };
            }
        }
        Change::Spec(field, value) => object.data["spec"][field] = json!(value),
        Change::Finalizer => object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]),
        Change::NoFinalizer => object.metadata.finalizers = None,
        Change::Status => {
            object.data["status"] = json!({"phase": "Issued"});
            object
                .annotations_mut()
                .insert("volttron.org/decision".to_owned(), "approved".to_owned());
        }
    }
    object
}

fn status_and_approval() -> Value {
    json!({
        "metadata": {"annotations": {"volttron.org/decision": "approved"}},
        "status": {"phase": "Issued"},
    })
}
