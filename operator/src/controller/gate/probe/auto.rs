//! Tries to have the requests of an instance approved without anybody.

use super::trial::{Trial, Tried};
use super::{CANDIDATES, MAY_APPROVE, Prover, VERB_RULE, dry_patch};
use crate::controller::gate::guards::AUTO_APPROVAL;
use crate::controller::gate::served::if_found;
use kube::api::Patch;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use serde_json::json;
use tracing::debug;
use volttron_crds::{AutoApproval, VolttronInstance};

impl Prover {
    /// Tries to set an instance to approve everything, another one each time, which takes a right
    /// the controller has not. The fault, where it was let through.
    ///
    /// What something else refuses tells nothing, and is no fault: the policy was read and is whole,
    /// and whoever runs an instance must not bring the gate down for all others.
    pub(super) async fn auto_approval(
        &mut self,
        instances: &Store<VolttronInstance>,
    ) -> Result<Option<String>, kube::Error> {
        let all = instances.state();
        for _ in 0..CANDIDATES.min(all.len()) {
            let instance = &all[self.instance_round % all.len()];
            self.instance_round = self.instance_round.wrapping_add(1);
            let (name, namespace) = (
                instance.name_any(),
                instance.namespace().unwrap_or_default(),
            );
            let api = Api::<VolttronInstance>::namespaced(self.client.clone(), &namespace);
            // As it is now: what is so already is no change, and is let through.
            let Some(instance) = if_found(api.get(&name).await)? else {
                continue;
            };
            if instance.spec.approval.auto == AutoApproval::Always {
                continue;
            }
            let always = json!({
                "metadata": {"resourceVersion": instance.resource_version()},
                "spec": {"approval": {"auto": "Always"}},
            });
            let answer = api.patch(&name, &dry_patch(), &Patch::Merge(always)).await;
            let tried = Tried {
                what: "an instance set to approve everything by an account without the verb approve",
                policy: AUTO_APPROVAL,
                rule: VERB_RULE,
                name: &name,
            };
            match tried.judge(answer.map(drop))? {
                Trial::Refused => return Ok(None),
                Trial::Accepted(_) if self.may_approve(&namespace, &name).await? => {
                    return Ok(Some(MAY_APPROVE.to_owned()));
                }
                Trial::Accepted(fault) => return Ok(Some(fault)),
                Trial::Gone => {}
                Trial::Inconclusive(fault) => {
                    debug!(%namespace, %name, %fault, "nothing was shown on this instance");
                }
            }
        }
        Ok(None)
    }
}
