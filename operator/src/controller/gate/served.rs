//! What the API server serves.

use kube::Client;

/// The version in which policies are served.
pub(super) const POLICIES: &str = "admissionregistration.k8s.io/v1";

/// Whether the API server knows this kind of policies at all.
pub(super) async fn serves(client: &Client, plural: &str) -> Result<bool, kube::Error> {
    let list = if_found(client.list_api_group_resources(POLICIES).await)?;
    Ok(list.is_some_and(|list| list.resources.iter().any(|it| it.name == plural)))
}

/// What was asked for, where it is there. A kind that is not served is answered in plain text, with
/// no other sign than the code.
pub(super) fn if_found<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        other => other.map(Some),
    }
}
