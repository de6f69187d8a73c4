//! The approval gate against a real API server: who may file, decide on and write the status of a request, or have all of them approved, and
//! how the refusal reads.
//!
//! The chart must be installed, with its default values but for `stamping`; the controller need not run. [`check`] makes the users and namespaces it needs, sends every row of
//! [`table`] in every way it can be sent, and answers with all rows that went otherwise than they say.

mod api;
mod instances;
mod people;
mod rows;
#[rustfmt::skip] // One row, one line.
mod table;

use std::time::{Duration, Instant};

use kube::Client;

use api::Requests;
pub use people::Users;

/// Namespace of the instance that is asked.
const PLANT: &str = "gate-plant";
/// Namespace of the agents that ask.
const AGENTS: &str = "gate-agents";
/// The instance that is asked; no row needs the object itself.
const INSTANCE: &str = "central";

/// The installation that is checked.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Namespace the chart is installed in.
    pub namespace: String,
    /// The controller's `ServiceAccount`.
    pub service_account: String,
}

impl Default for Installation {
    fn default() -> Self {
        Self {
            namespace: "volttron-system".to_owned(),
            service_account: "volttron-operator".to_owned(),
        }
    }
}

/// Whether the API server writes down requesters and approvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamping {
    /// The chart's `MutatingAdmissionPolicy` is installed.
    On,
    /// It is not, by choice or because the API server does not serve it.
    Off,
}

/// What [`check`] went through.
#[derive(Debug)]
pub struct Summary {
    /// Whether requester and approver were stamped, which decides what some rows expect.
    pub stamping: Stamping,
    /// How many rows were sent, each way of sending counted.
    pub rows: usize,
}

/// Runs the whole table.
///
/// # Errors
/// The rows that went wrong, each with what was expected and what happened.
pub async fn check(
    admin: &Client,
    users: &dyn Users,
    installation: &Installation,
) -> Result<Summary, String> {
    let cast = people::prepare(admin, users, installation)
        .await
        .map_err(|error| format!("cannot prepare the users: {error}"))?;
    rows::clear(admin, &cast).await?;
    let stamping = live(admin, &cast, Duration::from_mins(1)).await?;
    let (mut rows, mut wrong) = (0, Vec::new());
    for row in table::rows() {
        if row.only.is_some_and(|only| only != stamping) {
            continue;
        }
        for how in row.writes() {
            rows += 1;
            if let Err(what) = rows::run(admin, &cast, stamping, &row, how).await {
                wrong.push(format!("{} ({how:?}, by {:?}): {what}", row.name, row.who));
            }
        }
    }
    let (more, others) = instances::check(admin, &cast).await;
    rows += more;
    wrong.extend(others);
    people::remove(admin).await;
    if wrong.is_empty() {
        return Ok(Summary { stamping, rows });
    }
    Err(format!(
        "{} of {rows} rows went wrong:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    ))
}

/// Waits until each policy acts: the API server takes a few seconds after one is created.
async fn live(admin: &Client, cast: &people::Cast, patience: Duration) -> Result<Stamping, String> {
    let stamping = people::stamping(admin)
        .await
        .map_err(|error| format!("cannot look for volttron-stamping: {error}"))?;
    let deadline = Instant::now() + patience;
    loop {
        let asleep = Requests::new(admin.clone(), AGENTS)
            .asleep(stamping, cast)
            .await;
        match asleep {
            None => return Ok(stamping),
            Some(policy) if Instant::now() > deadline => {
                return Err(format!(
                    "policy {policy} does not act {patience:?} after it was looked for: is the chart installed?"
                ));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
