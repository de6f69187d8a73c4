//! Decides how the certificate authority of an instance is replaced. Pure.
//!
//! A rotation is three steps. *Introduce*: a new CA is trusted everywhere, and signs nothing.
//! *Activate*: it signs, and the old one is still trusted. *Retire*: the old one is not trusted any
//! more. Before each step, what the one before was for is proven: everybody who connects during a
//! rotation accepts, and is accepted by, everybody else, whichever of both CAs has signed for them.

use super::Fault;
use super::generations::{CaPair, Generations, Origin};
use crate::controller::runtime::Authorities;
use crate::pki::Authority;
use jiff::{SignedDuration, Timestamp, Unit};
use std::time::Duration;

/// How many names a message gives before it only counts.
const NAMED: usize = 3;

/// What was found.
pub(super) struct Observed<'a> {
    pub(super) generations: &'a Generations,
    pub(super) authorities: &'a Authorities,
    pub(super) wanted: &'a Wanted,
    /// The value of the annotation that asks for a rotation.
    pub(super) request: Option<&'a str>,
    /// The Secrets of certificates that do not hold the trust bundle yet.
    pub(super) unpublished: &'a [String],
    /// The Secrets of certificates that cannot be given the trust bundle, each with the reason. One
    /// owner's Secret is no reason to keep everybody on an old CA: the bundle is in the status of
    /// the instance too, and the cross certificate leads who knows the old root alone to it.
    pub(super) hindered: &'a [String],
    /// The requests whose certificate was signed by the previous CA and is in force.
    pub(super) holders: &'a [String],
    /// Whether the broker trusts the CA that is introduced, or serves what the one that signs has
    /// issued; else why that is not proven.
    pub(super) broker: &'a Result<(), String>,
    /// How long others have to notice.
    pub(super) settle: SignedDuration,
}

/// What `spec.ca` asks for.
pub(super) enum Wanted {
    /// A CA that the operator makes.
    Generated,
    /// The CA of a Secret.
    Brought(CaPair, Box<Authority>),
    /// A Secret that is not there or holds no CA.
    Faulty(Fault),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing, and nothing goes on; perhaps there is something to be said.
    Rest(Option<Fault>),
    /// Nothing yet; the next step waits.
    Wait(Progress),
    /// To replace the one that signs, or the one that is introduced already, by what is wanted.
    Introduce,
    /// To take back what was introduced.
    Withdraw,
    /// To note that all is ready for the next step.
    Settle,
    /// To sign with what was introduced.
    Activate,
    /// To trust the previous one no more.
    Retire,
    /// To take over another certificate of the CA that signs.
    Renew,
}

/// How far a rotation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// The reason of the condition.
    pub(super) reason: &'static str,
    /// What the next step waits for.
    pub(super) message: String,
    /// When to look again at the latest.
    pub(super) again: Duration,
}

/// How soon to look again at what changes without telling, such as the broker's files.
const SOON: Duration = Duration::from_secs(5);
/// How soon to look again at what tells of its changes.
pub(super) const LATER: Duration = Duration::from_secs(30);

/// The next step.
pub(super) fn plan(observed: &Observed<'_>, now: Timestamp) -> Step {
    let generations = observed.generations;
    if generations.previous.is_some() {
        activated(observed, now)
    } else if generations.next.is_some() {
        introduced(observed, now)
    } else {
        at_rest(observed, now)
    }
}

/// When a CA is old enough to be replaced: after two thirds of its life.
pub(super) fn due_at(authority: &Authority) -> Timestamp {
    let life = authority.not_after().duration_since(authority.not_before());
    authority
        .not_before()
        .saturating_add(life / 3 * 2)
        .unwrap_or(Timestamp::MAX)
}

fn at_rest(observed: &Observed<'_>, now: Timestamp) -> Step {
    let signing = &observed.authorities.signing;
    let asked = is_asked(observed);
    let due = now >= due_at(signing);
    match observed.wanted {
        Wanted::Generated => {
            let other = observed.generations.signing.origin != Origin::Generated;
            if other || asked || due {
                Step::Introduce
            } else {
                Step::Rest(None)
            }
        }
        Wanted::Brought(pair, authority) if authority.is_renewal_of(signing) => {
            if *pair != observed.generations.signing {
                return Step::Renew;
            }
            let secret = secret_of(&pair.origin);
            if asked {
                return Step::Rest(Some(Fault::new(
                    "SecretUnchanged",
                    format!(
                        "a rotation was asked for, but this CA was brought along: it is rotated by \
                         putting another CA into Secret {secret}"
                    ),
                )));
            }
            Step::Rest(due.then(|| {
                Fault::new(
                    "ReplacementDue",
                    format!(
                        "the CA ends at {}, with {}: put another one into Secret {secret} in time; \
                         both are trusted until nobody needs the old one",
                        signing.not_after(),
                        signing.first_to_end()
                    ),
                )
            }))
        }
        Wanted::Brought(pair, authority) if authority.is_namesake_of(signing) => {
            Step::Rest(Some(namesake(&pair.origin, authority)))
        }
        Wanted::Brought(..) => Step::Introduce,
        Wanted::Faulty(fault) => Step::Rest(Some(fault.clone())),
    }
}

fn introduced(observed: &Observed<'_>, now: Timestamp) -> Step {
    let authorities = observed.authorities;
    let (Some(next), Some((pair, _))) = (&authorities.next, &observed.generations.next) else {
        return Step::Withdraw;
    };
    let wait = |what: String, again: Duration| {
        let message = format!(
            "CA {} is introduced and signs nothing yet: {what}{}{}",
            short(next),
            not_waited_for(observed.hindered),
            also_asked(observed)
        );
        Step::Wait(Progress {
            reason: "Introduced",
            message,
            again,
        })
    };
    match observed.wanted {
        Wanted::Faulty(fault) => return wait(fault.message.clone(), LATER),
        Wanted::Generated if pair.origin == Origin::Generated => {}
        Wanted::Brought(_, wanted) if wanted.is_renewal_of(next) => {}
        Wanted::Generated if observed.generations.signing.origin == Origin::Generated => {
            return Step::Withdraw;
        }
        Wanted::Brought(_, wanted) if wanted.is_renewal_of(&authorities.signing) => {
            return Step::Withdraw;
        }
        Wanted::Brought(_, wanted) if wanted.is_namesake_of(&authorities.signing) => {
            return Step::Withdraw;
        }
        // Another CA is wanted by now; this one has signed nothing.
        Wanted::Generated | Wanted::Brought(..) => return Step::Introduce,
    }
    if !observed.unpublished.is_empty() {
        let names = some_of(observed.unpublished);
        return wait(
            format!(
                "Secrets of certificates do not hold it in ca.crt yet: {names}; the operator \
                 writes it there"
            ),
            SOON,
        );
    }
    if let Err(why) = observed.broker {
        return wait(format!("the broker does not trust it yet: {why}"), SOON);
    }
    match settled(observed, now) {
        Settled::No => Step::Settle,
        Settled::Until(end, left) => wait(
            format!("mounted files are given time to follow until {end}"),
            left,
        ),
        Settled::Yes => Step::Activate,
    }
}

fn activated(observed: &Observed<'_>, now: Timestamp) -> Step {
    let Some(previous) = &observed.authorities.previous else {
        // It has expired, and so has all it has signed.
        return Step::Retire;
    };
    let wait = |what: String, again: Duration| {
        let message = format!(
            "CA {} signs, {} is still trusted: {what}{}",
            short(&observed.authorities.signing),
            short(previous),
            also_asked(observed)
        );
        Step::Wait(Progress {
            reason: "Activated",
            message,
            again,
        })
    };
    if let Err(why) = observed.broker {
        let what = format!("the broker does not serve a certificate of the new CA yet: {why}");
        return wait(what, SOON);
    }
    match settled(observed, now) {
        Settled::No => return Step::Settle,
        Settled::Until(end, left) if observed.holders.is_empty() => {
            let what = format!("mounted files are given time to follow until {end}");
            return wait(what, left);
        }
        Settled::Until(..) | Settled::Yes => {}
    }
    if !observed.holders.is_empty() {
        let what = format!(
            "requests hold certificates that it has signed: {}; it leaves when their owners have \
             renewed them, or when these requests are deleted",
            some_of(observed.holders)
        );
        return wait(what, LATER);
    }
    Step::Retire
}

fn secret_of(origin: &Origin) -> &str {
    match origin {
        Origin::Secret(name) => name,
        Origin::Generated => "spec.ca.secretRef",
    }
}

/// Nothing is introduced that brokers and agents cannot tell from what is in use: RabbitMQ looks
/// revocation lists up by the name of their CA (`ssl_crl_hash_dir`), where one is published for each
/// name, and libraries that build a path do not try another CA of the same name.
fn namesake(origin: &Origin, authority: &Authority) -> Fault {
    Fault::new(
        "SubjectInUse",
        format!(
            "Secret {} holds another CA with the subject of the one in use, {}: RabbitMQ looks \
             revocation lists up by that name, so that both cannot be trusted at once; put a CA \
             with another subject into the Secret",
            secret_of(origin),
            authority.name()
        ),
    )
}

enum Settled {
    No,
    Until(Timestamp, Duration),
    Yes,
}

fn settled(observed: &Observed<'_>, now: Timestamp) -> Settled {
    let Some(since) = observed.generations.settling_since else {
        return Settled::No;
    };
    // Noted by a clock that ran ahead.
    if since > now {
        return Settled::No;
    }
    let end = since
        .saturating_add(observed.settle)
        .unwrap_or(Timestamp::MAX);
    if now >= end {
        return Settled::Yes;
    }
    let left = Duration::try_from(end.duration_since(now)).unwrap_or(SOON);
    // For people, who need no fractions.
    Settled::Until(end.round(Unit::Second).unwrap_or(end), left)
}

fn is_asked(observed: &Observed<'_>) -> bool {
    observed.request.is_some() && observed.request != observed.generations.honoured.as_deref()
}

fn also_asked(observed: &Observed<'_>) -> &'static str {
    if is_asked(observed) {
        "; another rotation was asked for, and begins when this one has ended"
    } else {
        ""
    }
}

fn not_waited_for(hindered: &[String]) -> String {
    if hindered.is_empty() {
        return String::new();
    }
    let names = some_of(hindered);
    format!(
        "; Secrets of certificates that cannot be given it are not waited for, and their owners \
         find it in status.ca.bundle of the instance: {names}"
    )
}

/// As much of the fingerprint as tells CAs apart.
fn short(authority: &Authority) -> String {
    let sha256 = authority.sha256();
    format!("{}…", sha256.get(..12).unwrap_or(sha256))
}

fn some_of(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => format!("{} ({first})", names.len()),
        more => format!("{} ({first} and {more} more)", names.len()),
    }
}

#[cfg(test)]
mod tests;
