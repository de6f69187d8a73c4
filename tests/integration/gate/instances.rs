//! Who may have the requests of an instance approved without anybody: `spec.approval.auto`, which is decided on like a request.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use volttron_crds::VolttronInstance;

use super::PLANT;
use super::api::{Write, text};
use super::people::{Cast, Person};

/// The instance of the rows.
pub const NAME: &str = "gate-auto";

/// One statement about `spec.approval.auto`.
pub struct Row {
    name: &'static str,
    who: Person,
    what: What,
    /// The words of the refusal, where there is one.
    refused: Option<&'static str>,
}

/// What is sent.
#[derive(Clone, Copy)]
enum What {
    /// A new instance with this value, or none.
    Create(Option<&'static str>),
    /// The same under a name that the API server makes.
    Generate(Option<&'static str>),
    /// A change from one value to another; `null` to remove it.
    Change(&'static str, Option<&'static str>),
    /// A change of something else where the value is this one.
    ChangeOther(&'static str),
}

/// Sends all rows in every way; answers how many there were, and what went otherwise.
pub async fn check(admin: &Client, cast: &Cast) -> (usize, Vec<String>) {
    let (mut count, mut wrong) = (0, Vec::new());
    for row in rows() {
        for &how in row.writes() {
            count += 1;
            if let Err(what) = run(admin, cast, &row, how).await {
                wrong.push(format!("{} ({how:?}, by {:?}): {what}", row.name, row.who));
            }
            forget(admin, NAME).await;
        }
    }
    (count, wrong)
}

/// Whether the policy does not act yet.
pub async fn asleep(cast: &Cast) -> bool {
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let always = object(&instance(Some(NAME), Some("Always")));
    let created = instances(cast.client(Person::Will))
        .create(&dry_run, &always)
        .await;
    !created.is_err_and(|error| text(&error).contains("volttron-auto-approval"))
}

#[rustfmt::skip] // One row, one line.
fn rows() -> Vec<Row> {
    use Person::{Alice, Controller, Nora, Olga, Root, Will};
    use What::{Change, ChangeOther, Create, Generate};
    const ALWAYS: Option<&str> = Some("'gate:will' may not set spec.approval.auto to Always, which approves requests: that takes the verb 'approve' on volttroninstances 'gate-auto' in namespace 'gate-plant'");
    const RENEWALS: Option<&str> = Some("'gate:will' may not set spec.approval.auto to Renewals, which approves requests");
    const OTHERS: Option<&str> = Some("takes the verb 'approve' on volttroninstances 'gate-auto' in namespace 'gate-plant'");
    let row = |name, who, what, refused| Row { name, who, what, refused };
    vec![
        row("made as it comes", Will, Create(None), None),
        row("made with Renewals", Will, Create(Some("Renewals")), None),
        row("made with Never", Will, Create(Some("Never")), None),
        row("made with Always, without the verb", Will, Create(Some("Always")), ALWAYS),
        row("made with Always, with the verb in another namespace", Olga, Create(Some("Always")), OTHERS),
        row("made with Always, by an approver", Alice, Create(Some("Always")), None),
        row("made with Always, with the verb on this very instance", Nora, Create(Some("Always")), None),
        row("made with Always, by an administrator", Root, Create(Some("Always")), None),
        row("made as it comes under a generated name", Will, Generate(None), None),
        row("made with Always under a generated name, without the verb", Will, Generate(Some("Always")), Some("takes the verb 'approve' on volttroninstances 'gate-auto-")),
        row("made with Always under a generated name, with the verb on another instance", Nora, Generate(Some("Always")), Some("takes the verb 'approve' on volttroninstances 'gate-auto-")),
        row("made with Always under a generated name, by an approver", Alice, Generate(Some("Always")), None),
        row("set to Always without the verb", Will, Change("Renewals", Some("Always")), ALWAYS),
        row("set from Never to Always without the verb", Will, Change("Never", Some("Always")), ALWAYS),
        row("set to Always with the verb in another namespace", Olga, Change("Renewals", Some("Always")), OTHERS),
        row("set to Always by the controller", Controller, Change("Renewals", Some("Always")), OTHERS),
        row("set to Always by an approver", Alice, Change("Renewals", Some("Always")), None),
        row("set to Always with the verb on this very instance", Nora, Change("Never", Some("Always")), None),
        row("set to Always by an administrator", Root, Change("Renewals", Some("Always")), None),
        row("set from Never to Renewals without the verb", Will, Change("Never", Some("Renewals")), RENEWALS),
        row("Never removed without the verb, which leaves the default", Will, Change("Never", None), RENEWALS),
        row("set from Never to Renewals by an approver", Alice, Change("Never", Some("Renewals")), None),
        row("set to Never", Will, Change("Renewals", Some("Never")), None),
        row("set back from Always to Renewals", Will, Change("Always", Some("Renewals")), None),
        row("set back from Always to Never", Will, Change("Always", Some("Never")), None),
        row("Always removed", Will, Change("Always", None), None),
        row("another field where it is Always", Will, ChangeOther("Always"), None),
        row("another field where it is Never", Will, ChangeOther("Never"), None),
        row("another field by the controller where it is Always", Controller, ChangeOther("Always"), None),
    ]
}

impl Row {
    fn writes(&self) -> &'static [Write] {
        match self.what {
            What::Generate(_) => &[Write::Create],
            What::Create(_) => &[Write::Create, Write::Apply],
            // The controller has the verb patch alone.
            _ if self.who == Person::Controller => &[Write::Merge, Write::Json, Write::Apply],
            _ => &[Write::Merge, Write::Json, Write::Update, Write::Apply],
        }
    }
}

async fn run(admin: &Client, cast: &Cast, row: &Row, how: Write) -> Result<(), String> {
    let client = instances(cast.client(row.who));
    match row.what {
        What::Create(auto) => {
            let result = write(&client, None, &instance(Some(NAME), auto), how).await;
            judge(row, auto, &result)
        }
        What::Generate(auto) => {
            let result = write(&client, None, &instance(None, auto), how).await;
            if let Ok(made) = &result {
                forget(admin, &made.name_any()).await;
            }
            judge(row, auto, &result)
        }
        What::Change(before, after) => {
            let result = changed(admin, &client, before, how, |change| {
                change["spec"]["approval"] = json!({"auto": after});
            });
            judge(row, after, &result.await?)
        }
        What::ChangeOther(auto) => {
            let result = changed(admin, &client, auto, how, |change| {
                change["spec"]["requests"] = json!({"maxPending": 7});
            });
            judge(row, Some(auto), &result.await?)
        }
    }
}

/// Changes an instance whose value is `before`.
async fn changed(
    admin: &Client,
    client: &Api<DynamicObject>,
    before: &str,
    how: Write,
    change: impl FnOnce(&mut Value),
) -> Result<kube::Result<DynamicObject>, String> {
    let made = instances(admin.clone())
        .create(
            &PostParams::default(),
            &object(&instance(Some(NAME), Some(before))),
        )
        .await
        .map_err(|error| format!("cannot arrange it: {}", text(&error)))?;
    let mut sent = if how == Write::Update {
        serde_json::to_value(&made).map_err(|error| error.to_string())?
    } else {
        instance(Some(NAME), Some(before))
    };
    change(&mut sent);
    Ok(write(client, Some(&made), &sent, how).await)
}

async fn write(
    api: &Api<DynamicObject>,
    before: Option<&DynamicObject>,
    sent: &Value,
    how: Write,
) -> kube::Result<DynamicObject> {
    let plain = PatchParams::default();
    match (how, before) {
        (Write::Create, _) | (Write::Update | Write::Merge | Write::Json, None) => {
            api.create(&PostParams::default(), &object(sent)).await
        }
        (Write::Update, Some(_)) => {
            api.replace(NAME, &PostParams::default(), &object(sent))
                .await
        }
        (Write::Merge, Some(_)) => {
            let patch = Patch::Merge(json!({"spec": sent["spec"]}));
            api.patch(NAME, &plain, &patch).await
        }
        (Write::Json, Some(_)) => {
            let operations = sent["spec"].as_object().into_iter().flatten();
            let operations = operations.map(|(field, value)| json!({"op": "add", "path": format!("/spec/{field}"), "value": value}));
            let operations = serde_json::from_value(operations.collect());
            let operations = operations.map_err(kube::Error::SerdeError)?;
            api.patch(NAME, &plain, &Patch::Json::<()>(operations))
                .await
        }
        (Write::Apply, _) => {
            let manager = PatchParams::apply("gate").force();
            api.patch(NAME, &manager, &Patch::Apply(sent)).await
        }
    }
}

fn judge(
    row: &Row,
    auto: Option<&str>,
    result: &kube::Result<DynamicObject>,
) -> Result<(), String> {
    match (row.refused, result) {
        (None, Ok(object)) => {
            let (stands, should) = (
                &object.data["spec"]["approval"]["auto"],
                auto.unwrap_or("Renewals"),
            );
            (stands == should)
                .then_some(())
                .ok_or_else(|| format!("it is {stands} afterwards"))
        }
        (None, Err(error)) => Err(format!("it was refused: {}", text(error))),
        (Some(words), Ok(_)) => Err(format!(
            "it was accepted, and should be refused with {words:?}"
        )),
        (Some(words), Err(error)) => {
            let said = text(error);
            let told = said.contains("'volttron-auto-approval'") && said.contains(words);
            told.then_some(()).ok_or_else(|| {
                format!("it should be refused with {words:?}, and was with {said:?}")
            })
        }
    }
}

fn instances(client: Client) -> Api<DynamicObject> {
    Api::namespaced_with(client, PLANT, &ApiResource::erase::<VolttronInstance>(&()))
}

fn instance(name: Option<&str>, auto: Option<&str>) -> Value {
    let mut instance = json!({
        "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronInstance",
        "metadata": {"namespace": PLANT, "name": name}, "spec": {},
    });
    if name.is_none() {
        instance["metadata"]["generateName"] = json!(format!("{NAME}-"));
    }
    if let Some(auto) = auto {
        instance["spec"]["approval"] = json!({"auto": auto});
    }
    instance
}

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).expect("an instance")
}

async fn forget(admin: &Client, name: &str) {
    let _ = instances(admin.clone())
        .delete(name, &DeleteParams::default())
        .await;
}
