//! The revocation lists of a managed broker.

use super::{broker_name, metadata};
use k8s_openapi::api::core::v1::ConfigMap;
use volttron_crds::VolttronInstance;

/// Name of the `ConfigMap` with the lists.
pub(in crate::controller) fn revocation_lists_name(instance: &VolttronInstance) -> String {
    format!("{}-crl", broker_name(instance))
}

/// The lists that the broker enforces: the name of a file, as
/// [`list_file_of`](crate::pki::list_file_of) makes it of the CA, and the list of that CA (PEM).
///
/// The broker reads the file at each handshake, so that a list counts as soon as the kubelet has
/// brought it. It refuses every certificate of a CA without a list in force.
pub(in crate::controller) fn crl_config_map(
    instance: &VolttronInstance,
    lists: &[(String, String)],
) -> ConfigMap {
    ConfigMap {
        metadata: metadata(instance, revocation_lists_name(instance)),
        data: Some(lists.iter().cloned().collect()),
        ..ConfigMap::default()
    }
}
