//! Who of several requesters has a name.

use super::{Conflict, Group, Ruling, created, full_name};
use jiff::Timestamp;
use kube::ResourceExt;
use std::cmp::Ordering;
use std::sync::Arc;
use volttron_crds::{DecisionHow, Phase, VolttronCertRequest};

/// Who else is in the way of `request`.
pub(super) fn conflict(
    request: &VolttronCertRequest,
    own: &Group<'_>,
    ruling: Option<&Ruling>,
    peers: &[Arc<VolttronCertRequest>],
) -> Option<Conflict> {
    if request.phase() == Some(Phase::Issued) {
        return None;
    }
    let found = |other: &VolttronCertRequest, bound| {
        Some(Conflict {
            requester: other.spec.requester.clone(),
            request: full_name(other),
            bound,
        })
    };
    let rank = |at: Timestamp, request: &VolttronCertRequest| (at, created(request), request.uid());
    let own_rank = ruling
        .filter(|ruling| ruling.approved)
        .and_then(|_| own.latest_approval())
        .map(|(at, carrier)| rank(at, carrier));
    let mut requesters: Vec<&str> = peers
        .iter()
        .map(|peer| peer.spec.requester.as_str())
        .filter(|requester| *requester != request.spec.requester)
        .collect();
    requesters.sort_unstable();
    requesters.dedup();
    let groups: Vec<_> = requesters
        .into_iter()
        .map(|requester| Group::of(requester, peers.iter().map(AsRef::as_ref)))
        .collect();
    for other in &groups {
        let issued = other.members.iter().find(|member| {
            member.phase() == Some(Phase::Issued) && other.denial_of(member).is_none()
        });
        if let Some(issued) = issued {
            return found(issued, true);
        }
        let approved = other.latest_approval().filter(|(at, carrier)| {
            own_rank
                .as_ref()
                .is_none_or(|own| rank(*at, carrier) < *own)
        });
        if let Some((_, carrier)) = approved {
            return found(carrier, true);
        }
    }
    if ruling.is_some_and(|ruling| ruling.how != DecisionHow::Policy) {
        return None;
    }
    groups
        .iter()
        .flat_map(|other| other.members.iter().copied())
        .filter(|member| {
            matches!(
                member.phase(),
                None | Some(Phase::Pending | Phase::Approved)
            ) && was_before(member, request)
        })
        .min_by_key(|member| (created(member), member.uid()))
        .and_then(|member| found(member, false))
}

/// Whether `other` was filed before `request`. Of two that were filed in the same second, which is
/// as fine as creation times are, the one that was looked at first is; once that has been told, it
/// stays so.
fn was_before(other: &VolttronCertRequest, request: &VolttronCertRequest) -> bool {
    let told = |request: &VolttronCertRequest| {
        let status = request.status.as_ref();
        status.is_some_and(|status| status.conditions.iter().any(|it| it.type_ == "Conflict"))
    };
    match created(other).cmp(&created(request)) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal if request.phase().is_none() => other.phase().is_some(),
        Ordering::Equal if told(request) != told(other) => told(request),
        Ordering::Equal => other.uid() < request.uid(),
    }
}
