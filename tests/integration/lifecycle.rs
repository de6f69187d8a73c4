//! A request from its filing to its end.

use crate::shared::{central, playground};
use volttron_crds::Phase;
use volttron_tests::{Agent, Login, run};

#[test]
fn an_approved_agent_connects() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("first").await;
        let agent = Agent::new("central.first.forwarder");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        space.phase("forwarder", Phase::Pending).await;
        space.approve("forwarder").await;
        let issued = space.issued("forwarder").await;
        let connection = broker.connect(Login::certificate(&agent, &issued)).await.unwrap();
        assert!(connection.status().connected());
    });
}
