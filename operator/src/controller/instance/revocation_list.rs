//! The first revocation list of a CA. A broker refuses every certificate of a CA without a list in
//! force, so that one has to be there before the broker starts or trusts that CA.

use super::Fault;
use super::objects;
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error};
use crate::controller::events::full_name;
use crate::pki::{self, Authority, NameHashError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use tracing::info;
use volttron_crds::VolttronInstance;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// Sees that the broker finds a list of `authority`. What other lists there are stays.
pub(super) async fn ensure(
    instance: &VolttronInstance,
    authority: &Authority,
    context: &Context,
    now: Timestamp,
) -> Result<Result<(), Fault>, Error> {
    let file = match pki::list_file_of(authority) {
        Ok(file) => file,
        Err(error) => return Ok(Err(fault(&error))),
    };
    let namespace = instance.namespace().unwrap_or_default();
    let maps = Api::<ConfigMap>::namespaced(context.client.clone(), &namespace);
    let mut lists: BTreeMap<String, String> = maps
        .get_opt(&objects::revocation_lists_name(instance))
        .await
        .attempt("read the revocation lists")?
        .and_then(|map| map.data)
        .unwrap_or_default();
    if lists.get(&file).is_some_and(|list| is_kept(list, now)) {
        return Ok(Ok(()));
    }
    let list = pki::sign_revocation_list(authority, 1, &[], now)?;
    lists.insert(file, list.pem);
    let lists: Vec<_> = lists.into_iter().collect();
    super::broker::apply(&objects::crl_config_map(instance, &lists), context).await?;
    info!(instance = %full_name(instance), "first revocation list of the CA signed");
    Ok(Ok(()))
}

/// Whether there is nothing to do about a list: it names certificates, which only who knows them
/// may sign anew, or it is not due.
fn is_kept(list: &str, now: Timestamp) -> bool {
    let Ok(block) = pem::parse(list) else {
        return false;
    };
    let Ok((_, list)) = CertificateRevocationList::from_der(block.contents()) else {
        return false;
    };
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MIN)
    };
    let (begin, end) = (list.last_update(), list.next_update());
    list.iter_revoked_certificates().next().is_some()
        || end.is_some_and(|end| now < pki::resign_at(at(begin), at(end)))
}

fn fault(error: &NameHashError) -> Fault {
    Fault::new(
        "RevocationListUnusable",
        format!(
            "the broker cannot find a revocation list of this CA, and would refuse every \
             certificate of it: {error}; use a CA with another subject"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::is_kept;
    use crate::pki::{self, Authority, RevocationReason, Revoked, SerialNumber};
    use jiff::{SignedDuration, Timestamp};

    fn day(number: i64) -> Timestamp {
        let first: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        first + SignedDuration::from_hours(24 * number)
    }

    #[test]
    fn a_list_that_names_nobody_is_signed_anew_each_day_and_one_that_names_somebody_stays() {
        let settings = volttron_crds::GeneratedAuthority::default();
        let pair = pki::generate(&"central".parse().unwrap(), &settings, 1, day(0)).unwrap();
        let authority = Authority::load(&pair.certificate, &pair.key, None, day(0)).unwrap();
        let revoked = Revoked {
            serial: SerialNumber::random(),
            at: day(0),
            reason: RevocationReason::PrivilegeWithdrawn,
        };
        let sign = |revoked: &[Revoked]| {
            let list = pki::sign_revocation_list(&authority, 1, revoked, day(0)).unwrap();
            list.pem
        };
        let (empty, naming) = (sign(&[]), sign(&[revoked]));
        assert!(is_kept(&empty, day(0)));
        assert!(!is_kept(&empty, day(1)));
        assert!(is_kept(&naming, day(40)));
        assert!(!is_kept("damaged", day(0)));
        assert!(!is_kept("", day(0)));
    }
}
