//! Clocks that differ: nothing is done that cannot be undone.

use super::{ROTATING, annotate, authority, certificates, keys_of};
use crate::own_ca::{Ca, put};
use crate::shared::disturbed;
use jiff::SignedDuration;
use serde_json::json;
use volttron_crds::well_known;
use volttron_tests::{SOON, SYSTEM, run};

/// How far the API server's clock seems to be behind.
const YEAR: SignedDuration = SignedDuration::from_hours(-24 * 365);

#[test]
fn a_clock_that_runs_ahead_neither_makes_a_ca_nor_ends_one() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("clocks").await;
        let instance = |name| playground.instance(&space.namespace, name, json!({}));
        let uncertain = "ClockUncertain";
        let words = "set the one that is wrong";
        let steady = instance("steady").await;
        let ready = "CertificateAuthorityReady";
        steady.condition(ready, "True", None, SOON).await;

        // To the operator, which seems to be a year ahead, the CA before this one has expired.
        let expired = Ca::new("Expired", |params| {
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        let current = Ca::root("Current");
        playground.proxy().set_ahead(YEAR);
        let secret = format!("ca.{}.replaced", space.namespace);
        let content = json!({
            "tls.crt": current.certificate, "tls.key": current.key, "generation": "2",
            "previous.crt": expired.certificate, "previous.key": expired.key,
        });
        put(&playground, SYSTEM, &secret, &content).await;
        let replaced = instance("replaced").await;
        let says = replaced.condition(ROTATING, "True", Some(uncertain), SOON);
        let says = says.await.message;
        assert!(says.contains(words), "{says}");
        assert_eq!(certificates(&authority(&replaced).await.bundle), 2);
        let keys = keys_of(&playground, &secret).await;
        assert!(keys.contains(&"previous.key".to_owned()), "{keys:?}");

        annotate(&steady, well_known::ROTATE_CA, "now").await;
        let says = steady.condition(ROTATING, "False", Some(uncertain), SOON);
        assert!(says.await.message.contains(words));
        assert_eq!(authority(&steady).await.next, None);

        let fresh = instance("fresh").await;
        let says = fresh.condition(ready, "False", Some(uncertain), SOON).await;
        assert!(says.message.contains(words), "{}", says.message);
        assert_eq!(fresh.get().await.status.unwrap().ca, None);

        // As far as certificates are backdated, they may differ.
        playground.proxy().set_ahead(SignedDuration::from_mins(-4));
        replaced
            .condition(ROTATING, "False", Some("Completed"), SOON * 2)
            .await;
        let keys = keys_of(&playground, &secret).await;
        let left = keys.iter().all(|key| !key.starts_with("previous"));
        assert!(left, "{keys:?}");
        assert_eq!(certificates(&authority(&replaced).await.bundle), 1);
        steady
            .condition(ROTATING, "True", Some("Introduced"), SOON * 2)
            .await;
        fresh.condition(ready, "True", None, SOON * 2).await;
    });
}
