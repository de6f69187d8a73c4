//! The demo's steps.

use crate::clock;
use crate::forward::Forward;
use crate::interrupt;
use crate::show::Show;
use anyhow::{Context as _, ensure};
use serde_json::Value;
use volttron_tests::node::Node;

/// Namespace of the agents.
pub const AGENTS: &str = "building-7";
/// Where something can go wrong.
pub const NAMESPACES: [&str; 3] = ["volttron-system", "volttron", AGENTS];

/// Starts the cluster and gives it the images.
pub fn start(show: &Show, name: &str, keep: bool) -> anyhow::Result<Node> {
    if let Some(node) = Node::existing()? {
        show.say("Using the cluster of KUBECONFIG, as CLUSTER=existing asks");
        show.run(&node, "kubectl get nodes")?;
        refuse_what_is_in_use(&node)?;
        return Ok(node);
    }
    show.say("Starting a Kubernetes of one node on this machine");
    show.command("make cluster-up");
    interrupt::take_down(name.to_owned());
    let node = clock::during(|| Node::start(name, keep))?;
    show.result(&node.run("kubectl get nodes")?);
    Ok(node)
}

/// From the first image to the last look.
pub fn play(show: &Show, node: &Node) -> anyhow::Result<()> {
    if !node.is_existing() {
        show.say("Giving it the images, since there is no registry here");
        show.command("target/debug/cluster load-image target/images/*.tar $(target/debug/cluster rabbitmq-image)");
        clock::during(|| node.load_images())?;
    }
    install(show, node)?;
    let [forwarder, datapuller] = ask(show, node)?;
    decide(show, node, &forwarder, &datapuller)?;
    look_at_the_certificate(show, node, &forwarder)?;
    look_at_the_connection(show, node)?;
    read_back(show, node)?;
    look_at_the_denied(show, node)
}

/// The demo takes away everything that it makes, so nothing of it may be there before.
fn refuse_what_is_in_use(node: &Node) -> anyhow::Result<()> {
    let found = node.run(&format!(
        "kubectl get --ignore-not-found -o name namespace/volttron-system namespace/volttron \
         namespace/{AGENTS} clusterrolebinding/approvers crd/volttroninstances.volttron.org \
         crd/volttroncertrequests.volttron.org clusterrole/volttron-operator-controller"
    ))?;
    ensure!(
        found.trim().is_empty(),
        "this cluster has something the demo would make, and take away in the end; it was left as \
         it is. Use a cluster without:\n{found}"
    );
    Ok(())
}

/// Takes away what the demo put into a cluster that was there before. The agents go first, so that
/// the operator can end their access.
pub fn clean(show: &Show, node: &Node) -> anyhow::Result<()> {
    for line in [
        format!("kubectl delete namespace {AGENTS} volttron --ignore-not-found"),
        "helm uninstall volttron-operator -n volttron-system --wait --ignore-not-found".to_owned(),
        "kubectl delete namespace volttron-system --ignore-not-found".to_owned(),
        "kubectl delete clusterrolebinding approvers --ignore-not-found".to_owned(),
        "kubectl delete crd volttroncertrequests.volttron.org volttroninstances.volttron.org --ignore-not-found"
            .to_owned(),
    ] {
        show.run(node, &line)?;
    }
    Ok(())
}

fn install(show: &Show, node: &Node) -> anyhow::Result<()> {
    show.say("Installing the operator");
    show.run(
        node,
        "helm install volttron-operator charts/volttron-operator -n volttron-system --create-namespace --wait --hide-notes",
    )?;
    show.say("Making alice an approver: cluster administrators are, nobody else");
    show.run(
        node,
        "kubectl create clusterrolebinding approvers --clusterrole volttron-operator-approver --user alice",
    )?;
    show.say(
        "Making an instance: a CA, and a RabbitMQ that lets in nothing but client certificates",
    );
    show.run(node, "kubectl create namespace volttron")?;
    show.run(
        node,
        "kubectl apply -n volttron -f tests/demo/instance.yaml",
    )?;
    show.run(
        node,
        "kubectl wait -n volttron vinst/central --for=condition=Ready --timeout=3m",
    )?;
    show.run(node, "kubectl get vinst -n volttron").map(drop)
}

/// Two agents ask; returns the names of their requests.
fn ask(show: &Show, node: &Node) -> anyhow::Result<[String; 2]> {
    show.say("Starting two agents, each with the sidecar beside it");
    show.run(node, &format!("kubectl create namespace {AGENTS}"))?;
    show.run(
        node,
        &format!("kubectl apply -n {AGENTS} -f examples/agent-pod.yaml"),
    )?;
    show.run(
        node,
        &format!(
            "sed s/forwarder/datapuller/ examples/agent-pod.yaml | kubectl apply -n {AGENTS} -f -"
        ),
    )?;
    show.say("Both have asked for a certificate, and wait: their containers have not started");
    let table = show.until(
        node,
        &format!("kubectl get vcr -n {AGENTS}"),
        "two requests are Pending",
        |table| table.matches("Pending").count() == 2,
    )?;
    show.run(node, &format!("kubectl get pods -n {AGENTS}"))?;
    let name = |agent: &str| {
        let line = table.lines().find(|line| line.starts_with(agent));
        line.and_then(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .with_context(|| format!("no request of {agent} in the table"))
    };
    Ok([name("forwarder")?, name("datapuller")?])
}

fn decide(show: &Show, node: &Node, approved: &str, denied: &str) -> anyhow::Result<()> {
    show.say("alice approves one and denies the other");
    let annotate = format!("kubectl --as alice annotate vcr -n {AGENTS}");
    show.run(
        node,
        &format!("{annotate} {approved} volttron.org/decision=approved"),
    )?;
    show.run(
        node,
        &format!(
            "{annotate} {denied} volttron.org/decision=denied volttron.org/reason='not on the list'"
        ),
    )?;
    show.until(
        node,
        &format!("kubectl get vcr -n {AGENTS}"),
        "one request is Issued and the other Denied",
        |table| table.contains("Issued") && table.contains("Denied"),
    )
    .map(drop)
}

fn look_at_the_certificate(show: &Show, node: &Node, request: &str) -> anyhow::Result<()> {
    show.say("The certificate is in a Secret, without the key, which never left the pod");
    show.run(
        node,
        &format!("kubectl get secret -n {AGENTS} {request}-tls"),
    )?;
    let text = show.run(
        node,
        &format!(
            "kubectl get secret -n {AGENTS} {request}-tls -o 'jsonpath={{.data.tls\\.crt}}' | base64 -d |\n\
             openssl x509 -noout -subject -issuer -dates -ext basicConstraints,keyUsage,extendedKeyUsage"
        ),
    )?;
    ensure!(
        text.contains(&format!("central.{AGENTS}.forwarder")),
        "the certificate is for somebody else"
    );
    Ok(())
}

fn look_at_the_connection(show: &Show, node: &Node) -> anyhow::Result<()> {
    show.say("The first agent starts, now that its sidecar is connected");
    show.run(
        node,
        &format!("kubectl wait -n {AGENTS} pod/forwarder --for=condition=Ready --timeout=1m"),
    )?;
    show.until(
        node,
        &format!("kubectl logs -n {AGENTS} forwarder -c agent"),
        "the agent has published",
        |log| log.contains("published"),
    )?;
    show.say("RabbitMQ's own list: sidecar and agent, both as the certificate's name, over TLS, with EXTERNAL");
    show.until(
        node,
        "kubectl exec -n volttron central-rabbitmq-0 -- rabbitmqctl -q list_connections user ssl_protocol auth_mechanism peer_cert_issuer",
        "the agent's user is connected with EXTERNAL over TLS",
        |list| {
            list.lines().any(|line| {
                line.contains(&format!("central.{AGENTS}.forwarder"))
                    && line.contains("tlsv1.3")
                    && line.contains("EXTERNAL")
            })
        },
    )
    .map(drop)
}

/// Reads a message of the agent from its queue, over the management API, as the operator.
fn read_back(show: &Show, node: &Node) -> anyhow::Result<()> {
    show.say("A message of the agent, read back from the broker");
    let forward = Forward::start(show, node, "volttron", "service/central-rabbitmq :15671")?;
    let secret = "kubectl get secret -n volttron-system broker.volttron.central -o 'jsonpath={.data.password}' | base64 -d";
    let bundle = "kubectl get vinst -n volttron central -o 'jsonpath={.status.ca.bundle}'";
    let queue = format!("central.{AGENTS}.forwarder.pubsub.persistent.demo");
    let line = format!(
        "curl --silent --show-error --fail --cacert <({bundle}) --user \"volttron-operator:$({secret})\" \\
  https://localhost:{}/api/queues/volttron/{queue}/get \\
  --json '{{\"count\": 1, \"ackmode\": \"ack_requeue_true\", \"encoding\": \"auto\"}}'",
        forward.port()
    );
    show.command(&line);
    let answer = clock::during(|| node.run(&line))?;
    let messages: Value = serde_json::from_str(&answer).context("the answer is no JSON")?;
    let message = &messages[0];
    show.result(&serde_json::to_string_pretty(&serde_json::json!({
        "exchange": message["exchange"],
        "routing_key": message["routing_key"],
        "app_id": message["properties"]["app_id"],
        "payload": message["payload"],
    }))?);
    let payload = message["payload"].as_str().unwrap_or_default();
    ensure!(
        payload.contains("temperature"),
        "that is no message of the agent"
    );
    Ok(())
}

fn look_at_the_denied(show: &Show, node: &Node) -> anyhow::Result<()> {
    show.say("The second agent was never started; the pod tells why");
    show.run(node, &format!("kubectl get pods -n {AGENTS}"))?;
    let started = show.run(
        node,
        &format!(
            "kubectl get pod -n {AGENTS} datapuller -o 'jsonpath={{.status.containerStatuses[0].state}}{{\"\\n\"}}'"
        ),
    )?;
    ensure!(
        started.contains("waiting"),
        "the denied agent's container was started"
    );
    show.until(
        node,
        &format!(
            "kubectl get events -n {AGENTS} --field-selector involvedObject.name=datapuller,reason=Denied -o 'custom-columns=REASON:.reason,MESSAGE:.message'"
        ),
        "an Event on the pod tells of the denial",
        |events| events.contains("denied"),
    )?;
    show.until(
        node,
        &format!("kubectl logs -n {AGENTS} datapuller -c volttron-sidecar --tail 1"),
        "the sidecar's log tells of the denial",
        |log| log.contains("not on the list"),
    )
    .map(drop)
}
