//! What `kubectl` says about all this, as the documentation promises it.

use crate::world::{PLANT, scene};
use anyhow::ensure;

/// Fails with the text where it lacks one of the words.
fn says(text: &str, words: &[&str]) -> anyhow::Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    Ok(())
}

#[test]
fn kubectl_tells_who_asks_for_what_and_what_to_do() {
    scene("e2e-words", |world, space| {
        let kubectl = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            world.node.kubectl(&words)
        };
        let request = space.ask("forwarder")?;
        let table = kubectl("get vcr -n e2e-words -o wide")?;
        says(
            &table,
            &[
                "INSTANCE",
                "COMMON NAME",
                "PHASE",
                "REQUESTER",
                "EXPIRES",
                "AGE",
                "REASON",
                "KEY",
                "FINGERPRINT",
                "central.e2e-words.forwarder",
                "Pending",
                "WaitingForApproval",
                "ECDSA P-256",
                "system:serviceaccount:e2e-words:forwarder",
            ],
        )?;
        let pending = kubectl(&format!("describe vcr -n e2e-words {request}"))?;
        let annotate =
            format!("kubectl annotate vcr -n e2e-words {request} volttron.org/decision=approved");
        says(&pending, &["WaitingForApproval", &annotate])?;
        let log = space.log("forwarder", "volttron-sidecar")?;
        says(
            &log,
            &[
                "waiting for an administrator",
                "volttron.org/decision=approved",
            ],
        )?;

        space.approve(&request)?;
        space.is_ready("forwarder")?;
        let issued = kubectl(&format!("describe vcr -n e2e-words {request}"))?;
        let secret = format!("the certificate is in Secret {request}-tls");
        says(
            &issued,
            &["approved by alice", &secret, "Serial Number:", "Not After:"],
        )?;

        let instance = kubectl(&format!("get vinst -n {PLANT}"))?;
        says(
            &instance,
            &[
                "READY",
                "ADDRESS",
                "True",
                "amqps://central-rabbitmq.volttron.svc:5671/volttron",
            ],
        )?;
        let described = kubectl(&format!("describe vinst -n {PLANT} central"))?;
        says(
            &described,
            &[
                "CertificateAuthorityReady",
                "BrokerReady",
                "approved requests are signed",
            ],
        )?;

        let request = kubectl("explain vcr.spec.request")?;
        says(&request, &["FIELD: request", "base64"])?;
        let image = kubectl("explain vinst.spec.broker.managed.image")?;
        says(&image, &["FIELD: image", "official `rabbitmq` image"])
    });
}
