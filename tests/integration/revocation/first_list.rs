//! The list that is there before the broker is.

use super::authority::{Ca, put};
use crate::shared::playground;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DeleteParams;
use rcgen::DnValue;
use rcgen::string::BmpString;
use serde_json::json;
use std::collections::BTreeMap;
use volttron_tests::{Instance, SOON, openssl, run};

#[test]
fn the_first_list_is_signed_before_there_is_a_broker_and_made_again_when_it_is_deleted() {
    run(async {
        let space = playground().await.space("first-list").await;
        let ca = Ca::root("Plant root CA");
        put(&space, "own-ca", &ca).await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = space
            .playground
            .instance(&space.namespace, "plant", spec)
            .await;
        let lists = lists(&instance).await;
        let file = ca.list_file();
        let list = lists
            .get(&file)
            .unwrap_or_else(|| panic!("no {file}: {:?}", lists.keys()));
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("ca.pem", &ca.certificate), ("list.pem", list)] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let args = ["crl", "-in", "list.pem", "-CAfile", "ca.pem", "-noout"];
        let says = openssl(folder.path(), &args);
        assert!(says.contains("verify OK"), "{says}");

        let api = Api::<ConfigMap>::namespaced(space.playground.admin(), &space.namespace);
        let parameters = DeleteParams::default();
        api.delete("plant-rabbitmq-crl", &parameters).await.unwrap();
        assert!(self::lists(&instance).await.contains_key(&file));
    });
}

#[test]
fn a_ca_whose_list_a_broker_could_not_find_is_named() {
    run(async {
        let space = playground().await.space("odd-name").await;
        let odd = DnValue::BmpString(BmpString::try_from("Plant root CA").unwrap());
        put(&space, "own-ca", &Ca::of(odd)).await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = space
            .playground
            .instance(&space.namespace, "plant", spec)
            .await;
        let (kind, reason) = ("CertificateAuthorityReady", Some("UnsupportedSubject"));
        let fault = instance.condition(kind, "False", reason, SOON).await;
        let says = fault.message;
        assert!(
            says.contains("2.5.4.3 as BmpString") && says.contains("another subject"),
            "{says}"
        );
    });
}

async fn lists(instance: &Instance<'_>) -> BTreeMap<String, String> {
    let playground = instance.playground;
    let api = Api::<ConfigMap>::namespaced(playground.admin(), &instance.namespace);
    playground
        .eventually("there is a ConfigMap with lists", SOON, async || {
            let map = api
                .get_opt("plant-rabbitmq-crl")
                .await
                .map_err(|error| error.to_string())?;
            map.and_then(|map| map.data)
                .ok_or_else(|| "there is none".to_owned())
        })
        .await
}
