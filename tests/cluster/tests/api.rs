//! A control plane without nodes. The first run builds into the cache.

use std::process::Command;

use local_cluster::{Cluster, Component, Options, Tier, sweep};

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program can be run");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn it_survives_the_death_of_its_parts_and_leaves_nothing() {
    let cluster = Cluster::start(&Options::api()).unwrap();
    assert_eq!(cluster.tier(), Tier::Api);
    let folder = cluster.folder().to_owned();
    output(cluster.kubectl().args(["create", "namespace", "kept"]));
    for component in [
        Component::Etcd,
        Component::ApiServer,
        Component::ControllerManager,
    ] {
        cluster.kill(component).unwrap();
        assert!(!cluster.is_running(component));
        cluster.start_component(component).unwrap();
        assert!(cluster.is_running(component));
    }
    cluster.stop(Component::ApiServer).unwrap();
    cluster.start_component(Component::ApiServer).unwrap();
    assert!(output(cluster.kubectl().args(["get", "namespaces"])).contains("kept"));
    assert!(cluster.start_component(Component::Kubelet).is_err());
    drop(cluster);
    assert!(!folder.exists());
}

#[test]
fn a_user_is_who_the_kubeconfig_says_and_may_do_nothing_yet() {
    let cluster = Cluster::start(&Options::api()).unwrap();
    let kubeconfig = cluster
        .kubeconfig_for("alice", &["approvers", "building-7"])
        .unwrap();
    let alice = |args: &[&str]| output(cluster.kubectl().env("KUBECONFIG", &kubeconfig).args(args));
    let whoami = alice(&["auth", "whoami"]);
    for word in ["alice", "approvers", "building-7", "system:authenticated"] {
        assert!(whoami.contains(word), "{word} is missing in {whoami}");
    }
    assert!(alice(&["get", "secrets"]).contains("forbidden"));
    let token = output(cluster.kubectl().args(["create", "token", "default"]));
    let bare = output(
        cluster
            .kubectl()
            .env("KUBECONFIG", "/dev/null")
            .args(["--insecure-skip-tls-verify", "--server", &cluster.url()])
            .args(["--token", token.trim(), "auth", "whoami"]),
    );
    assert!(
        bare.contains("system:serviceaccount:default:default"),
        "{bare}"
    );
}

#[test]
fn what_lives_is_not_swept() {
    let cluster = Cluster::start(&Options::api()).unwrap();
    assert!(!sweep().unwrap().contains(&cluster.name()));
    assert!(cluster.is_running(Component::Etcd));
}
