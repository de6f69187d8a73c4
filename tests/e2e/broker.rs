//! What RabbitMQ itself says.

use crate::world::{PLANT, World};
use anyhow::Context as _;
use serde_json::{Value, json};

/// A connection as RabbitMQ lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The user, which is the certificate's common name.
    pub user: String,
    /// Version of TLS.
    pub protocol: String,
    /// How it logged in.
    pub mechanism: String,
}

impl World {
    /// Runs `rabbitmqctl` in the broker's pod.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let within = ["exec", "central-rabbitmq-0", "--namespace", PLANT];
        let command = ["--container=rabbitmq", "--", "rabbitmqctl", "--quiet"];
        let line = [&within[..], &command, arguments].concat();
        Ok(self.node.kubectl(&line)?)
    }

    /// The connections of one user.
    pub fn connections_of(&self, user: &str) -> anyhow::Result<Vec<Connection>> {
        let columns = ["user", "ssl_protocol", "auth_mechanism"];
        let list = self.rabbitmqctl(&[&["list_connections"][..], &columns].concat())?;
        let all = list.lines().filter_map(|line| {
            let mut columns = line.split('\t').map(str::to_owned);
            Some(Connection {
                user: columns.next()?,
                protocol: columns.next()?,
                mechanism: columns.next()?,
            })
        });
        Ok(all.filter(|connection| connection.user == user).collect())
    }

    /// Whether the broker has a user.
    pub fn has_user(&self, user: &str) -> anyhow::Result<bool> {
        let list = self.rabbitmqctl(&["list_users"])?;
        Ok(list
            .lines()
            .any(|line| line.split('\t').next() == Some(user)))
    }

    /// Leaves a persistent message in a queue.
    pub fn publish(&self, queue: &str, text: &str) -> anyhow::Result<()> {
        let message = json!({
            "properties": {"delivery_mode": 2}, "routing_key": queue,
            "payload": text, "payload_encoding": "string",
        });
        let answer = self.manage("exchanges/volttron/amq.default/publish", &message)?;
        anyhow::ensure!(answer["routed"] == true, "{queue} got no message: {answer}");
        Ok(())
    }

    /// The payloads of all messages in a queue, which stay there.
    pub fn messages(&self, queue: &str) -> anyhow::Result<Vec<String>> {
        let all = json!({"count": 10_000, "ackmode": "ack_requeue_true", "encoding": "auto"});
        let answer = self.manage(&format!("queues/volttron/{queue}/get"), &all)?;
        let messages = answer.as_array().context("a list of messages")?;
        let payloads = messages
            .iter()
            .filter_map(|message| message["payload"].as_str());
        Ok(payloads.map(str::to_owned).collect())
    }

    /// Asks the management API, as the operator does, by the address the certificate is for.
    fn manage(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        const HOST: &str = "central-rabbitmq.volttron.svc";
        let secret = self
            .node
            .object("volttron-system", "secret", "broker.volttron.central")?;
        let password = secret["data"]["password"].as_str().context("a password")?;
        let service = self.node.object(PLANT, "service", "central-rabbitmq")?;
        let address = service["spec"]["clusterIP"]
            .as_str()
            .context("an address")?;
        let bundle = "kubectl get vinst --namespace volttron central --output 'jsonpath={.status.ca.bundle}'";
        let answer = self.node.run(&format!(
            "curl --silent --show-error --fail-with-body --cacert <({bundle}) --resolve {HOST}:15671:{address} \
             --user \"volttron-operator:$(base64 -d <<<{password})\" --json '{body}' https://{HOST}:15671/api/{path}"
        ))?;
        Ok(serde_json::from_str(&answer)?)
    }
}
