//! Lets agents in: few of them one by one, many of them by imports.

use super::management::Maker;
use super::{ManagementClient, ManagementError, Topology};
use futures::future::try_join_all;
use std::collections::HashSet;
use volttron_crds::CommonName;

/// An import takes RabbitMQ as long as some ten users put one by one, whatever its size.
const FEW: usize = 8;

/// Lets `names` in, but for those that are users which others made: they are returned.
///
/// Who has permissions and no topic permissions may bind anything, so the permissions, without which
/// nobody can log in, come last.
pub(super) async fn admit(
    client: &ManagementClient,
    topology: &Topology,
    names: Vec<CommonName>,
) -> Result<HashSet<CommonName>, ManagementError> {
    if names.len() <= FEW {
        let admitted = names.iter().map(|name| admit_one(client, topology, name));
        let admitted = try_join_all(admitted).await?;
        let foreign = names.into_iter().zip(admitted);
        return Ok(foreign
            .filter_map(|(name, admitted)| (!admitted).then_some(name))
            .collect());
    }
    let others = client.others(topology).await?;
    let (foreign, ours): (HashSet<_>, HashSet<_>) = names
        .into_iter()
        .partition(|name| others.contains(&name.to_string()));
    for definitions in topology.agent_definitions(ours.iter()) {
        client.import(&definitions).await?;
    }
    Ok(foreign)
}

/// Returns whether the name is not somebody else's.
async fn admit_one(
    client: &ManagementClient,
    topology: &Topology,
    name: &CommonName,
) -> Result<bool, ManagementError> {
    let (user, host) = (name.to_string(), topology.virtual_host.as_str());
    if client.maker_of(&user, topology).await? == Some(Maker::Another) {
        return Ok(false);
    }
    client
        .put(&["users", &user], &Topology::agent_user(name))
        .await?;
    let topics = topology.agent_topics(name);
    client
        .put(&["topic-permissions", host, &user], &topics)
        .await?;
    let permissions = topology.agent_permissions(name);
    client
        .put(&["permissions", host, &user], &permissions)
        .await?;
    Ok(true)
}
