//! The operator, killed at each call that changes a broker: nobody is ever let in without topic permissions, and what was begun is
//! brought to its end.

use super::{Seen, at_each_write, live};
use crate::shared::{Turn, disturbed};
use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use volttron_tests::{Agent, Broker, Login, ManagementProxy, Space, run};

/// More agents than are let in one by one.
const MANY: usize = 10;
/// The start of an operator on a busy machine, and its comparison with the broker.
const PUT_RIGHT: Duration = Duration::from_secs(90);

#[test]
fn a_request_survives_a_kill_at_each_call_to_its_broker() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("kill-calls").await;
        let proxy = between(&playground, broker).await;
        let users = [
            "users",
            "topic-permissions/volttron",
            "permissions/volttron",
        ];
        proxy.count(&users.map(|what| format!("/api/{what}/central.kill.")));
        let seen = Seen::watch(&space);
        let killed = at_each_write(
            &playground,
            &proxy,
            async |_| (),
            async |name| live(&space, broker, name).await,
            async || confined(broker).await,
            async |_| (),
        )
        .await;
        for name in killed.keys() {
            seen.check(name);
        }
        let kinds = [
            "PUT /api/users/",
            "PUT /api/topic-",
            "PUT /api/perm",
            "DELETE /api/users/",
        ];
        assert_kinds(&killed, &kinds);
    });
}

#[test]
fn a_broker_that_was_changed_is_put_right_despite_a_kill_at_each_call_to_it() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("kill-repairs").await;
        let logins = join_all((0..MANY).map(|number| issued(&space, broker, number))).await;
        let names: Vec<_> = (0..MANY)
            .map(|number| common_name(&space, number))
            .collect();
        let wanted = users(broker, &space).await;
        let proxy = between(&playground, broker).await;
        proxy.count(&["/api/".to_owned()]);
        let killed = at_each_write(
            &playground,
            &proxy,
            async |_| (),
            async |_| {
                let login = || broker.connect(logins[0].clone());
                let connection = playground
                    .eventually("the agent connects", PUT_RIGHT, login)
                    .await;
                spoil(broker, &names[0], &names[1..]).await;
                look(broker).await;
                playground
                    .eventually("all is as before", PUT_RIGHT, async || {
                        if connection.status().connected() {
                            return Err("what was bound meanwhile stays".to_owned());
                        }
                        let found = users(broker, &space).await;
                        (found == wanted).then_some(()).ok_or(found)
                    })
                    .await;
            },
            async || confined(broker).await,
            async |_| (),
        )
        .await;
        assert_kinds(&killed, &["POST /api/definitions", "DELETE /api/users/"]);
    });
}

/// A proxy through which the operator calls the broker from now on.
async fn between<'a>(playground: &Turn, broker: &Broker<'a>) -> ManagementProxy<'a> {
    let proxy = broker.behind_proxy().await;
    // The connections that it has to the broker itself end.
    playground.operator().kill();
    playground.operator().start_again();
    playground.operator().wait_ready().await;
    proxy
}

/// Gives one agent all permissions, and takes the users of the others away.
async fn spoil(broker: &Broker<'_>, grown: &str, lost: &[String]) {
    let lost: Vec<_> = lost.iter().map(|name| format!("<<\"{name}\">>")).collect();
    let lost = lost.join(", ");
    let spoil = format!(
        r#"
        By = <<"somebody">>, All = <<".*">>,
        rabbit_auth_backend_internal:set_permissions(<<"{grown}">>, <<"volttron">>, All, All, All, By),
        [rabbit_auth_backend_internal:delete_user(Name, By) || Name <- [{lost}]].
        "#
    );
    broker.ctl(&["eval", &spoil]).await;
}

/// Has the operator compare the broker.
async fn look(broker: &Broker<'_>) {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {"tests/look": now}}});
    let (api, name) = (broker.instance.api(), &broker.instance.name);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Nobody has permissions and no topic permissions, with which one can bind anything.
async fn confined(broker: &Broker<'_>) {
    let unconfined = r#"
        Names = fun(List) -> [proplists:get_value(user, Row) || Row <- List] end,
        Confined = Names(rabbit_auth_backend_internal:list_vhost_topic_permissions(<<"volttron">>)),
        [Name || <<"central.", _/binary>> = Name
            <- Names(rabbit_auth_backend_internal:list_vhost_permissions(<<"volttron">>)),
            not lists:member(Name, Confined)].
    "#;
    let unconfined = broker.ctl(&["eval", unconfined]).await;
    assert_eq!(unconfined.trim(), "[]", "who may bind anything");
}

/// The users of the agents here, with what they may.
async fn users(broker: &Broker<'_>, space: &Space<'_>) -> String {
    let prefix = format!("central.{}.", space.namespace);
    let listed = format!(
        r#"
        Ours = fun(List) -> lists:sort([Row || Row <- List,
            string:prefix(proplists:get_value(user, Row), "{prefix}") =/= nomatch]) end,
        {{Ours(rabbit_auth_backend_internal:list_users()),
          Ours(rabbit_auth_backend_internal:list_vhost_permissions(<<"volttron">>)),
          Ours(rabbit_auth_backend_internal:list_vhost_topic_permissions(<<"volttron">>))}}.
        "#
    );
    broker.ctl(&["eval", &listed]).await
}

async fn issued(space: &Space<'_>, broker: &Broker<'_>, number: usize) -> Login {
    let (name, agent) = (
        format!("agent-{number}"),
        Agent::new(&common_name(space, number)),
    );
    space.file(&name, &broker.instance, &agent.csr).await;
    space.approve(&name).await;
    Login::certificate(&agent, &space.issued(&name).await)
}

fn common_name(space: &Space<'_>, number: usize) -> String {
    format!("central.{}.agent-{number}", space.namespace)
}

fn assert_kinds(killed: &BTreeMap<String, String>, kinds: &[&str]) {
    for kind in kinds {
        let is_there = killed.values().any(|write| write.contains(kind));
        assert!(is_there, "no {kind} among {killed:#?}");
    }
}
