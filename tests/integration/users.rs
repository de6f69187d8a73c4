//! The approval gate's table, with users who have certificates and tokens of their own.

use crate::gate::{Installation, Stamping, Users, check};
use crate::shared::disturbed;
use kube::Client;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use volttron_tests::{Playground, run};

#[test]
fn only_an_approver_approves() {
    run(async {
        let playground = disturbed().await;
        // The rows are about the API server alone: the operator would answer the requests they file.
        playground.operator().kill();
        let everyone = Everyone(&playground);
        let summary = check(&playground.admin(), &everyone, &Installation::default()).await;
        let summary = summary.unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(summary.stamping, Stamping::On, "this API server stamps");
        println!("{} rows", summary.rows);

        // As where the API server does not stamp: the gate stands alone.
        let kinds = "mutatingadmissionpolicy,mutatingadmissionpolicybinding";
        let (gone, said) = playground
            .kubectl(&["delete", kinds, "volttron-stamping"], "")
            .await;
        assert!(gone, "{said}");
        let checked = check(&playground.admin(), &everyone, &Installation::default()).await;
        playground.upgrade_chart().await;
        let summary = checked.unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(summary.stamping, Stamping::Off);
        println!("{} rows without stamping", summary.rows);
    });
}

struct Everyone<'a>(&'a Playground);

impl Users for Everyone<'_> {
    fn client(&self, user: &str, groups: &[&str]) -> Client {
        // Whoever shows a certificate is in this group without its saying so.
        let groups: Vec<_> = groups
            .iter()
            .copied()
            .filter(|group| *group != "system:authenticated")
            .collect();
        block_in_place(|| Handle::current().block_on(self.0.client_of(user, &groups)))
    }

    fn with_token(&self, token: &str) -> Client {
        self.0.client_with_token(token)
    }
}
