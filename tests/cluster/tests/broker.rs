//! A real broker, on the machine's RabbitMQ. Needs root; the first run builds into the cache.

use std::{net::TcpStream, time::Duration};

use local_cluster::{Base, Hosts, RabbitMq, RabbitMqOptions};

fn options(name: &str, base: Base) -> RabbitMqOptions {
    let file = |path: &str, content: &str| (path.to_owned(), content.as_bytes().to_vec());
    RabbitMqOptions {
        name: name.to_owned(),
        files: vec![
            file(
                "/etc/rabbitmq/rabbitmq.conf",
                "listeners.tcp.default = 5672\n",
            ),
            file("/etc/rabbitmq/enabled_plugins", "[rabbitmq_management]."),
            file("/etc/volttron/extra/note", "kept"),
        ],
        env: Vec::new(),
        base,
    }
}

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_broker_keeps_its_data_when_killed_and_loses_it_when_wiped() {
    let broker = RabbitMq::start(options("one", Base::Machine)).unwrap();
    broker.wait_ready(LIMIT).unwrap();
    TcpStream::connect((broker.address(), 5672)).unwrap();
    TcpStream::connect((broker.address(), 15672)).unwrap();
    broker.rabbitmqctl(&["add_vhost", "kept"]).unwrap();
    broker.kill().unwrap();
    assert!(TcpStream::connect((broker.address(), 5672)).is_err());
    broker.start_again().unwrap();
    broker.wait_ready(LIMIT).unwrap();
    assert!(
        broker
            .rabbitmqctl(&["list_vhosts"])
            .unwrap()
            .contains("kept")
    );
    broker.stop().unwrap();
    broker.wipe_data().unwrap();
    broker.start_again().unwrap();
    broker.wait_ready(LIMIT).unwrap();
    assert!(
        !broker
            .rabbitmqctl(&["list_vhosts"])
            .unwrap()
            .contains("kept")
    );
}

#[test]
fn two_brokers_of_two_versions_stand_side_by_side() {
    let old = RabbitMq::start(options("same", Base::Machine)).unwrap();
    let new = RabbitMq::start(options("same", Base::Image)).unwrap();
    old.wait_ready(LIMIT).unwrap();
    new.wait_ready(LIMIT).unwrap();
    assert_ne!(old.address(), new.address());
    assert!(old.rabbitmqctl(&["version"]).unwrap().starts_with("3."));
    assert!(new.rabbitmqctl(&["version"]).unwrap().starts_with("4."));
}

#[test]
fn a_childs_names_can_be_changed_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = Hosts::new(folder.path()).unwrap();
    hosts.set(&[("broker.test", [10, 0, 0, 1].into())]).unwrap();
    let script = "getent hosts broker.test; read line; getent hosts broker.test; echo pid $$";
    let mut child = hosts
        .command("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    std::thread::sleep(Duration::from_millis(300));
    hosts.set(&[("broker.test", [10, 0, 0, 2].into())]).unwrap();
    drop(child.stdin.take());
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(
        output.starts_with("10.0.0.1") && output.contains("10.0.0.2"),
        "{output}"
    );
    assert!(
        output.contains(&format!("pid {pid}")),
        "the child is the program itself: {output}"
    );
}
