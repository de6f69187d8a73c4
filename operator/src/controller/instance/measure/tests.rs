use super::*;
use jiff::ToSpan as _;
use volttron_crds::{VolttronCertRequestSpec, VolttronCertRequestStatus};

/// Issued at 0; renewed at 8 hours, over at 12 hours, so that it is overdue after 10.
fn request(name: &str, phase: Phase, from_hour: i64) -> VolttronCertRequest {
    let spec = VolttronCertRequestSpec {
        requester: "system:serviceaccount:plant:agent".to_owned(),
        ..VolttronCertRequestSpec::default()
    };
    let mut request = VolttronCertRequest::new(name, spec);
    let renew_at = (phase == Phase::Issued).then(|| at(from_hour + 8).to_string());
    request.status = Some(VolttronCertRequestStatus {
        phase: Some(phase),
        common_name: Some(format!("central.plant.{name}")),
        certificate: Some("a chain".to_owned()),
        not_after: Some(at(from_hour + 12).to_string()),
        renew_at,
        ..VolttronCertRequestStatus::default()
    });
    request
}

fn at(hour: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + hour.hours()
}

fn lives(requests: &[VolttronCertRequest], hour: i64) -> (Option<Timestamp>, usize, usize) {
    let lives = Lives::of(requests, at(hour));
    (lives.earliest_end, lives.overdue, lives.expired)
}

#[test]
fn without_certificates_there_is_no_end() {
    let mut lapsed = request("a", Phase::Expired, 0);
    lapsed.status.as_mut().unwrap().certificate = None;
    let waiting = request("b", Phase::Pending, 0);
    assert_eq!(lives(&[], 1), (None, 0, 0));
    assert_eq!(lives(&[lapsed, waiting], 20), (None, 0, 0));
}

#[test]
fn the_first_end_is_told_of_identities_and_not_of_certificates() {
    let renewed = [
        request("a", Phase::Issued, 0),
        request("a", Phase::Issued, 8),
    ];
    assert_eq!(lives(&renewed, 9), (Some(at(20)), 0, 0));
    let mut all = renewed.to_vec();
    all.push(request("b", Phase::Issued, 1));
    assert_eq!(lives(&all, 9), (Some(at(13)), 0, 0));
}

#[test]
fn a_renewal_is_overdue_when_half_of_the_time_for_it_is_over() {
    let issued = [
        request("a", Phase::Issued, 0),
        request("b", Phase::Issued, 3),
    ];
    assert_eq!(lives(&issued, 9).1, 0);
    assert_eq!(lives(&issued, 10).1, 1);
    assert_eq!(lives(&issued, 13).1, 1, "a has run out, b is overdue");
    let renewed = [
        request("a", Phase::Issued, 0),
        request("a", Phase::Issued, 9),
    ];
    assert_eq!(lives(&renewed, 11).1, 0);
}

#[test]
fn what_ran_out_is_told_until_it_is_renewed_or_denied() {
    // The moment it has run out its phase is still Issued.
    assert_eq!(lives(&[request("a", Phase::Issued, 0)], 12), (None, 0, 1));
    let expired = request("a", Phase::Expired, 0);
    assert_eq!(lives(std::slice::from_ref(&expired), 14), (None, 0, 1));
    let renewed = [expired, request("a", Phase::Issued, 13)];
    assert_eq!(lives(&renewed, 14), (Some(at(25)), 0, 0));
    // With its identity a request is denied that had run out.
    assert_eq!(lives(&[request("a", Phase::Denied, 0)], 14), (None, 0, 0));
}

#[test]
fn the_same_name_of_another_requester_is_another_identity() {
    let mut other = request("a", Phase::Issued, 5);
    other.spec.requester = "alice".to_owned();
    let requests = [request("a", Phase::Expired, 0), other];
    assert_eq!(lives(&requests, 12), (Some(at(17)), 0, 1));
}
