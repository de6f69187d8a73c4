//! The decision an administrator wrote onto a request.

use kube::ResourceExt;
use volttron_crds::{VolttronCertRequest, well_known};

/// An administrator's decision, as annotated. The admission policy has made sure that whoever
/// wrote it may decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Approved, or denied.
    pub approved: bool,
    /// Who wrote it, where the API server could stamp it.
    pub by: Option<String>,
    /// Why, in the approver's words.
    pub reason: Option<String>,
}

/// Reads the decision from the annotations of `request`. Anything but `approved` and `denied` is no
/// decision.
#[must_use]
pub fn verdict(request: &VolttronCertRequest) -> Option<Verdict> {
    let annotations = request.annotations();
    let approved = match annotations.get(well_known::DECISION)?.as_str() {
        "approved" => true,
        "denied" => false,
        _ => return None,
    };
    let text = |key: &str| {
        annotations
            .get(key)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    Some(Verdict {
        approved,
        by: text(well_known::DECIDED_BY),
        reason: text(well_known::REASON),
    })
}
