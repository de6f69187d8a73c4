//! What the policies must hold, and whether those in the cluster do. A dry run shows that a policy
//! acts here and now; it cannot show that it acts in every namespace, on every object, when it
//! fails itself, or by every rule. That is read from the objects. Pure.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use std::fmt;

pub(super) mod stamping;

/// The policy that guards decisions.
pub(super) const GATE: &str = "volttron-approval-gate";
/// The policy that guards who may have requests approved without a decision.
pub(super) const AUTO_APPROVAL: &str = "volttron-auto-approval";

/// The policies the controller relies on, and their specs in the chart, where `CONTROLLER_USER`
/// stands for the controller. A policy may hold more: each validation only refuses more.
const POLICIES: [(&str, &str); 4] = [
    (
        GATE,
        include_str!("../../../../charts/volttron-operator/files/policies/approval-gate.yaml"),
    ),
    (
        AUTO_APPROVAL,
        include_str!("../../../../charts/volttron-operator/files/policies/auto-approval.yaml"),
    ),
    (
        "volttron-status",
        include_str!("../../../../charts/volttron-operator/files/policies/status.yaml"),
    ),
    (
        "volttron-cleanup",
        include_str!("../../../../charts/volttron-operator/files/policies/cleanup.yaml"),
    ),
];

/// A policy as it should be.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) name: &'static str,
    /// Kind of the policy, and of its binding.
    kinds: [&'static str; 2],
    spec: ValidatingAdmissionPolicySpec,
}

/// A policy and its binding as they are in the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) policy: Option<ValidatingAdmissionPolicy>,
    pub(super) binding: Option<ValidatingAdmissionPolicyBinding>,
}

/// What is wrong with a policy or a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    kind: &'static str,
    name: &'static str,
    /// What is wrong; `None` where it is missing.
    what: Option<String>,
}

/// The annotation by which Helm marks what it has installed.
const RELEASE: &str = "meta.helm.sh/release-name";
const VALIDATING: [&str; 2] = [
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// The policies as this version of the controller expects them, where it is `user`.
///
/// # Errors
/// Where a spec of the chart is no policy's, which a test rules out.
pub(super) fn guards(user: &str) -> Result<Vec<Guard>, serde_yaml_ng::Error> {
    let parse = |(name, text): (&'static str, &str)| {
        let text = text.replace("CONTROLLER_USER", user);
        serde_yaml_ng::from_str(&text).map(|spec| Guard {
            name,
            kinds: VALIDATING,
            spec,
        })
    };
    POLICIES.into_iter().map(parse).collect()
}

/// The names of all policies, which are those of their bindings as well.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    POLICIES.into_iter().map(|(name, _)| name)
}

impl Guard {
    /// Everything that is missing or weaker than it should be.
    pub(super) fn faults(&self, found: &Found) -> Vec<Fault> {
        let fault = |kind, what| Fault {
            kind,
            name: self.name,
            what,
        };
        let of_policy = match &found.policy {
            None => vec![None],
            Some(policy) => self
                .of_policy(&policy.spec.clone().unwrap_or_default())
                .into_iter()
                .map(Some)
                .collect(),
        };
        let of_binding = match &found.binding {
            None => vec![None],
            Some(binding) => self.of_binding(binding).into_iter().map(Some).collect(),
        };
        let [policy, binding] = self.kinds;
        let of_policy = of_policy.into_iter().map(|what| fault(policy, what));
        let of_binding = of_binding.into_iter().map(|what| fault(binding, what));
        of_policy.chain(of_binding).collect()
    }

    fn of_policy(&self, spec: &ValidatingAdmissionPolicySpec) -> Vec<String> {
        let mut faults = Vec::new();
        if spec.failure_policy.as_deref().unwrap_or("Fail") != "Fail" {
            faults.push(format!(
                "has failurePolicy {}, not Fail",
                spec.failure_policy.as_deref().unwrap_or_default()
            ));
        }
        if spec.param_kind.is_some() {
            faults.push("has a paramKind, which the chart's has not".to_owned());
        }
        let constraints = spec.match_constraints.clone().unwrap_or_default();
        let expected = self.spec.match_constraints.clone().unwrap_or_default();
        faults.extend(narrowing(&constraints).map(|field| narrowed("matchConstraints", field)));
        for (operation, resource) in uncovered(&constraints, &expected) {
            faults.push(format!(
                "does not match {operation} of {resource} in its matchConstraints"
            ));
        }
        let known = self.spec.match_conditions.as_deref().unwrap_or_default();
        for condition in spec.match_conditions.iter().flatten() {
            if !known
                .iter()
                .any(|it| same(&it.expression, &condition.expression))
            {
                faults.push(format!(
                    "acts only where its matchCondition {} holds, which is not the chart's",
                    condition.name
                ));
            }
        }
        for variable in self.spec.variables.iter().flatten() {
            let mut there = spec.variables.iter().flatten();
            if !there
                .any(|it| it.name == variable.name && same(&it.expression, &variable.expression))
            {
                faults.push(format!(
                    "has another variable {} than this controller expects",
                    variable.name
                ));
            }
        }
        for validation in self.spec.validations.iter().flatten() {
            let mut there = spec.validations.iter().flatten();
            if !there.any(|it| same(&it.expression, &validation.expression)) {
                faults.push(format!(
                    "lacks the rule {:?}, or has it in another form than this controller expects",
                    shortened(validation.message.as_deref().unwrap_or_default())
                ));
            }
        }
        faults
    }

    fn of_binding(&self, binding: &ValidatingAdmissionPolicyBinding) -> Vec<String> {
        let mut faults = Vec::new();
        let spec = binding.spec.clone().unwrap_or_default();
        let policy = spec.policy_name.as_deref().unwrap_or_default();
        if policy != self.name {
            faults.push(format!("binds policy {policy:?}"));
        }
        let actions = spec.validation_actions.unwrap_or_default();
        if !actions.iter().any(|action| action == "Deny") {
            faults.push(format!("has validationActions {actions:?} without Deny"));
        }
        if spec.param_ref.is_some() {
            faults.push("has a paramRef, which the chart's has not".to_owned());
        }
        if let Some(resources) = &spec.match_resources {
            faults.extend(narrowing(resources).map(|field| narrowed("matchResources", field)));
            if resources
                .resource_rules
                .as_ref()
                .is_some_and(|rules| !rules.is_empty())
            {
                faults.push(narrowed("matchResources", "resourceRules"));
            }
        }
        faults
    }
}

/// The fields that take objects out. An empty selector matches everything.
fn narrowing(resources: &MatchResources) -> impl Iterator<Item = &'static str> + use<> {
    let selects = |selector: &Option<LabelSelector>| {
        selector
            .as_ref()
            .is_some_and(|it| *it != LabelSelector::default() && !is_empty(it))
    };
    let excludes = resources
        .exclude_resource_rules
        .as_ref()
        .is_some_and(|rules| !rules.is_empty());
    [
        ("namespaceSelector", selects(&resources.namespace_selector)),
        ("objectSelector", selects(&resources.object_selector)),
        ("excludeResourceRules", excludes),
    ]
    .into_iter()
    .filter_map(|(field, narrows)| narrows.then_some(field))
}

fn is_empty(selector: &LabelSelector) -> bool {
    let labels = selector.match_labels.as_ref();
    let expressions = selector.match_expressions.as_ref();
    labels.is_none_or(std::collections::BTreeMap::is_empty) && expressions.is_none_or(Vec::is_empty)
}

fn narrowed(parent: &str, field: &str) -> String {
    format!("does not act everywhere: {parent}.{field} narrows it")
}

/// The operations on resources that `expected` matches and `actual` does not.
fn uncovered(actual: &MatchResources, expected: &MatchResources) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    for rule in expected.resource_rules.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for operation in rule.operations.iter().flatten() {
                let mut rules = actual.resource_rules.iter().flatten();
                if !rules.any(|it| covers(it, rule, resource, operation)) {
                    missing.push((operation.clone(), resource.clone()));
                }
            }
        }
    }
    missing
}

fn covers(
    rule: &NamedRuleWithOperations,
    expected: &NamedRuleWithOperations,
    resource: &str,
    operation: &str,
) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &str| {
        let mut list = list.iter().flatten();
        list.any(|it| it == wanted || it == "*")
    };
    let all = |list: &Option<Vec<String>>, wanted: &Option<Vec<String>>| {
        wanted.iter().flatten().all(|wanted| has(list, wanted))
    };
    let mut resources = rule.resources.iter().flatten();
    all(&rule.api_groups, &expected.api_groups)
        && all(&rule.api_versions, &expected.api_versions)
        && has(&rule.operations, operation)
        && rule.resource_names.as_ref().is_none_or(Vec::is_empty)
        && rule.scope.as_deref() != Some("Cluster")
        // "*" is every resource and no subresource, "*/*" every one of both.
        && resources.any(|it| {
            it == resource || it == "*/*" || (it == "*" && !resource.contains('/'))
        })
}

/// The user whom the policies are for, where that is another than `user`.
pub(super) fn written_for(found: &[Found], user: &str) -> Option<String> {
    let rules = found
        .iter()
        .filter_map(|it| it.policy.as_ref()?.spec.as_ref()?.validations.as_ref())
        .flatten();
    let names: Vec<_> = rules
        .filter_map(|rule| {
            let rest = rule
                .expression
                .strip_prefix("request.userInfo.username == '")?;
            rest.strip_suffix('\'')
        })
        .collect();
    let other = names.first()?;
    (!names.contains(&user)).then(|| (*other).to_owned())
}

/// Whether two expressions are the same but for white space, which YAML folds one way or another.
fn same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

fn shortened(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    match words.len() {
        0..=14 => words.join(" "),
        _ => format!("{} …", words[..14].join(" ")),
    }
}

/// What is wrong, and how it is mended, in one text. The release is read from what is left.
pub(super) fn describe(faults: &[Fault], found: &[Found], namespace: &str) -> String {
    const MOST: usize = 3;
    let mut text: Vec<String> = faults.iter().take(MOST).map(ToString::to_string).collect();
    if faults.len() > MOST {
        text.push(format!("and {} more", faults.len() - MOST));
    }
    // Helm merges: it restores what is missing, and leaves what was added by hand.
    let mut weakened: Vec<String> = faults
        .iter()
        .filter(|fault| fault.what.is_some())
        .map(|fault| format!("{}/{}", fault.kind.to_lowercase(), fault.name))
        .collect();
    weakened.dedup();
    let delete = if weakened.is_empty() {
        String::new()
    } else {
        format!("kubectl delete {} && ", weakened.join(" "))
    };
    format!(
        "{}. To restore it: `{delete}{}`",
        text.join("; "),
        upgrade(found, namespace)
    )
}

/// The command that restores what the chart has installed.
pub(super) fn upgrade(found: &[Found], namespace: &str) -> String {
    let release = |object: &dyn Fn(&Found) -> Option<String>| found.iter().find_map(object);
    let release = release(&|it| it.policy.as_ref()?.annotations().get(RELEASE).cloned())
        .or_else(|| release(&|it| it.binding.as_ref()?.annotations().get(RELEASE).cloned()));
    format!(
        "helm upgrade {} CHART --namespace {namespace} --reset-then-reuse-values",
        release.as_deref().unwrap_or("RELEASE")
    )
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.as_deref().unwrap_or("is missing");
        write!(f, "{} {} {what}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests;
