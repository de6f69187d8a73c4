//! Who acts: clients with certificates and tokens of their own, and the rights they have.

use crate::playground::Playground;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use std::path::Path;

/// The user who approves requests.
pub(crate) const APPROVER: &str = "alice";

/// Reads a kubeconfig.
pub(crate) async fn config(path: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(path).expect("a kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a kubeconfig that can be used")
}

/// A client that shows a token and nothing else.
pub(crate) fn with_token(config: &Config, token: &str) -> Client {
    let mut bare = Config::new(config.cluster_url.clone());
    bare.root_cert.clone_from(&config.root_cert);
    bare.auth_info.token = Some(token.to_owned().into());
    Client::try_from(bare).expect("a token and a CA make a client")
}

/// A token of a service account.
pub(crate) async fn token(admin: &Client, namespace: &str, account: &str) -> String {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let made = Api::<ServiceAccount>::namespaced(admin.clone(), namespace)
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .unwrap_or_else(|error| panic!("a token of {namespace}/{account}: {error}"));
    made.status.map(|status| status.token).unwrap_or_default()
}

/// Lets the approver approve, everywhere, by the chart's own role.
pub(crate) async fn appoint_approver(admin: &Client) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "approvers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "volttron-operator-approver"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": APPROVER}],
    });
    Api::<ClusterRoleBinding>::all(admin.clone())
        .patch(
            "approvers",
            &PatchParams::apply("tests").force(),
            &Patch::Apply(binding),
        )
        .await
        .expect("the approver is appointed");
}

impl Playground {
    /// A client of a user with a certificate that names these groups (two at most).
    pub async fn client_of(&self, user: &str, groups: &[&str]) -> Client {
        let path = self
            .cluster()
            .kubeconfig_for(user, groups)
            .expect("a kubeconfig");
        Client::try_from(config(&path).await).expect("a kubeconfig makes a client")
    }

    /// A client that shows a token.
    pub fn client_with_token(&self, token: &str) -> Client {
        with_token(self.config(), token)
    }
}
