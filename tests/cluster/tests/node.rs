//! A whole node. Needs root; the first run builds into the cache.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use local_cluster::{Cache, Cluster, Component, Options, images};

const WRITER: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 999, fsGroup: 999}
  containers:
  - name: writer
    image: localhost/rabbitmq:4-management
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "id -u > /data/user && getent hosts kubernetes.default && cat /data/user && touch /tmp/done && sleep 1000"]
    readinessProbe: {exec: {command: [test, -f, /tmp/done]}, periodSeconds: 1}
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}, {name: tmp, emptyDir: {}}]
"#;

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program can be run");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_pod_runs_writes_its_volume_and_finds_names() {
    let cluster = Cluster::start(&Options::node()).unwrap();
    cluster
        .load_image(&images::rabbitmq(&Cache::open().unwrap()).unwrap())
        .unwrap();
    for component in [
        Component::Containerd,
        Component::Kubelet,
        Component::KubeProxy,
        Component::Scheduler,
    ] {
        cluster.kill(component).unwrap();
        cluster.start_component(component).unwrap();
    }
    let mut apply = cluster
        .kubectl()
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    apply
        .stdin
        .take()
        .unwrap()
        .write_all(WRITER.as_bytes())
        .unwrap();
    assert!(apply.wait().unwrap().success());
    let ready = output(cluster.kubectl().args([
        "wait",
        "--for=condition=Ready",
        "pod/writer",
        "--timeout=60s",
    ]));
    let state = output(cluster.kubectl().args(["describe", "pod/writer"]));
    assert!(ready.contains("condition met"), "{ready}{state}");
    let log = output(cluster.kubectl().args(["logs", "writer"]));
    assert!(
        log.contains("kubernetes.default.svc.cluster.local") && log.contains("999"),
        "{log}"
    );
    assert_eq!(
        output(
            cluster
                .kubectl()
                .args(["exec", "writer", "--", "cat", "/data/user"])
        )
        .trim(),
        "999"
    );
    let folder = cluster.folder().to_owned();
    cluster.down().unwrap();
    assert!(!folder.exists());
}
