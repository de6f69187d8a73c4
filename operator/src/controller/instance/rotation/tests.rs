use super::*;
use crate::pki;
use volttron_crds::GeneratedAuthority;

const SETTLE: SignedDuration = SignedDuration::from_secs(120);

fn start() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn ca(number: i64, origin: Origin) -> CaPair {
    let settings = GeneratedAuthority {
        duration: "900h".to_owned(),
        ..GeneratedAuthority::default()
    };
    let made = pki::generate(&"central".parse().unwrap(), &settings, number, start()).unwrap();
    CaPair {
        certificate: made.certificate,
        key: made.key,
        roots: None,
        origin,
    }
}

fn generated(number: i64) -> CaPair {
    ca(number, Origin::Generated)
}

fn own(number: i64) -> CaPair {
    ca(number, Origin::Secret("own".to_owned()))
}

fn brought(pair: &CaPair) -> Wanted {
    Wanted::Brought(pair.clone(), Box::new(pair.load(start()).unwrap()))
}

fn faulty() -> Wanted {
    Wanted::Faulty(Fault::new("KeyMismatch", "it does not fit"))
}

/// A world in which everything is as the next step needs it.
struct World {
    generations: Generations,
    wanted: Wanted,
    request: Option<&'static str>,
    unpublished: Vec<String>,
    hindered: Vec<String>,
    holders: Vec<String>,
    broker: Result<(), String>,
}

impl World {
    fn new(signing: CaPair) -> Self {
        Self {
            generations: Generations::only(1, signing, None),
            wanted: Wanted::Generated,
            request: None,
            unpublished: Vec::new(),
            hindered: Vec::new(),
            holders: Vec::new(),
            broker: Ok(()),
        }
    }

    fn introduced(next: CaPair) -> Self {
        Self::new(generated(1)).then(|it| it.introduce(next, String::new(), None))
    }

    fn activated() -> Self {
        Self::introduced(generated(2)).then(Generations::activate)
    }

    fn then(self, step: impl FnOnce(Generations) -> Generations) -> Self {
        Self {
            generations: step(self.generations),
            ..self
        }
    }

    fn settled(self) -> Self {
        self.then(|it| it.settle(start()))
    }

    fn plan(&self, now: Timestamp) -> Step {
        let observed = Observed {
            generations: &self.generations,
            authorities: &self.generations.load(now).unwrap(),
            wanted: &self.wanted,
            request: self.request,
            unpublished: &self.unpublished,
            hindered: &self.hindered,
            holders: &self.holders,
            broker: &self.broker,
            settle: SETTLE,
        };
        plan(&observed, now)
    }

    fn waits(&self, now: Timestamp) -> (&'static str, String) {
        match self.plan(now) {
            Step::Wait(progress) => (progress.reason, progress.message),
            other => panic!("it does not wait but takes the step {other:?}"),
        }
    }

    fn rests(&self) -> Option<&'static str> {
        match self.plan(start()) {
            Step::Rest(fault) => fault.map(|fault| fault.reason),
            other => panic!("it does not rest but takes the step {other:?}"),
        }
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("field/agent-{number}"))
        .collect()
}

#[test]
fn a_generated_ca_is_replaced_when_it_is_due_or_somebody_asks() {
    let mut world = World::new(generated(1));
    assert_eq!(world.rests(), None);
    assert_eq!(world.plan(after(599 * 3600)), Step::Rest(None));
    assert_eq!(world.plan(after(600 * 3600)), Step::Introduce);
    world.request = Some("now");
    assert_eq!(world.plan(start()), Step::Introduce);
    world.generations.honoured = Some("now".to_owned());
    assert_eq!(world.rests(), None, "it is asked for once");
    world.request = Some("again");
    assert_eq!(world.plan(start()), Step::Introduce);
    world.request = None;
    assert_eq!(
        world.rests(),
        None,
        "an annotation that is taken away asks for nothing"
    );
}

#[test]
fn a_brought_ca_is_replaced_by_its_secret_alone() {
    let mut world = World::new(own(1));
    world.wanted = brought(&world.generations.signing);
    assert_eq!(world.rests(), None);
    world.request = Some("now");
    assert_eq!(world.rests(), Some("SecretUnchanged"));
    world.request = None;
    let Step::Rest(Some(fault)) = world.plan(after(600 * 3600)) else {
        panic!("it says nothing");
    };
    assert_eq!(fault.reason, "ReplacementDue");
    assert!(fault.message.contains("Secret own"), "{}", fault.message);
    world.wanted = faulty();
    assert_eq!(world.rests(), Some("KeyMismatch"));
    world.wanted = brought(&own(2));
    assert_eq!(world.plan(start()), Step::Introduce);
    world.wanted = Wanted::Generated;
    assert_eq!(
        world.plan(start()),
        Step::Introduce,
        "another kind of CA is wanted"
    );
}

#[test]
fn the_same_ca_from_elsewhere_takes_no_rotation() {
    let mut world = World::new(generated(1));
    let moved = CaPair {
        origin: Origin::Secret("exported".to_owned()),
        ..world.generations.signing.clone()
    };
    world.wanted = brought(&moved);
    assert_eq!(world.plan(start()), Step::Renew);
    let world = world.then(|it| it.renew(moved));
    assert_eq!(world.rests(), None);
}

#[test]
fn a_namesake_with_another_key_is_not_introduced() {
    let mut world = World::new(own(1));
    world.wanted = brought(&own(1));
    let Step::Rest(Some(fault)) = world.plan(start()) else {
        panic!("it says nothing");
    };
    assert_eq!(fault.reason, "SubjectInUse");
    for words in ["Secret own", "CN=central root CA", "another subject"] {
        assert!(fault.message.contains(words), "{}", fault.message);
    }
    let mut world = World::new(own(1)).then(|it| it.introduce(own(2), String::new(), None));
    world.wanted = brought(&own(1));
    assert_eq!(world.plan(start()), Step::Withdraw);
    world.wanted = brought(&own(3));
    assert_eq!(world.plan(start()), Step::Introduce);
}

#[test]
fn a_secret_that_cannot_be_written_holds_nobody_up() {
    let mut world = World::introduced(generated(2));
    world.hindered = vec!["field/agent: exceeded quota".to_owned()];
    world.broker = Err("away".to_owned());
    let (_, message) = world.waits(start());
    for words in ["away", "not waited for", "field/agent: exceeded quota"] {
        assert!(message.contains(words), "{message}");
    }
    world.broker = Ok(());
    assert_eq!(world.plan(start()), Step::Settle);
    let world = world.settled();
    assert!(world.waits(after(119)).1.contains("exceeded quota"));
    assert_eq!(world.plan(after(120)), Step::Activate);
}

#[test]
fn what_is_introduced_signs_when_everybody_trusts_it() {
    let mut world = World::introduced(generated(2));
    world.unpublished = names(5);
    let (reason, message) = world.waits(start());
    assert_eq!(reason, "Introduced");
    let counted = "5 (field/agent-0, field/agent-1, field/agent-2 and 2 more)";
    assert!(message.contains(counted), "{message}");
    world.unpublished.clear();
    world.broker = Err("unknown CA".to_owned());
    assert!(world.waits(start()).1.contains("unknown CA"));
    world.broker = Ok(());
    assert_eq!(
        world.plan(start()),
        Step::Settle,
        "time counts from when all is ready"
    );
    let mut world = world.settled();
    assert!(world.waits(after(119)).1.contains("2026-06-01T12:02:00Z"));
    assert_eq!(world.plan(after(120)), Step::Activate);
    world.broker = Err("away".to_owned());
    world.waits(after(500));
    world.broker = Ok(());
    world.unpublished = names(1);
    world.waits(after(500));
}

#[test]
fn a_clock_that_ran_ahead_does_not_hold_a_rotation_up_for_years() {
    let world = World::introduced(generated(2)).then(|it| it.settle(after(1_000_000)));
    assert_eq!(world.plan(start()), Step::Settle);
}

#[test]
fn what_is_introduced_follows_what_is_wanted() {
    let mut world = World::introduced(own(2)).settled();
    let next = world.generations.next.as_ref().unwrap().0.clone();
    let late = after(120);
    world.wanted = brought(&next);
    assert_eq!(world.plan(late), Step::Activate);
    world.wanted = faulty();
    assert!(
        world.waits(late).1.contains("it does not fit"),
        "it signs nothing while in doubt"
    );
    world.wanted = brought(&own(2));
    assert_eq!(
        world.plan(late),
        Step::Introduce,
        "another one before this has signed"
    );
    world.wanted = Wanted::Generated;
    assert_eq!(
        world.plan(late),
        Step::Withdraw,
        "the one that signs is wanted again"
    );
    let mut world = World::new(own(1)).then(|it| it.introduce(generated(2), String::new(), None));
    world.wanted = brought(&world.generations.signing);
    assert_eq!(world.plan(start()), Step::Withdraw);
}

#[test]
fn the_previous_ca_goes_when_nobody_needs_it() {
    let mut world = World::activated();
    world.broker = Err("it still shows the old one".to_owned());
    let (reason, message) = world.waits(start());
    assert_eq!(reason, "Activated");
    assert!(message.contains("still shows"), "{message}");
    world.broker = Ok(());
    assert_eq!(world.plan(start()), Step::Settle);
    let mut world = world.settled();
    world.waits(after(119));
    assert_eq!(world.plan(after(120)), Step::Retire);
    world.holders = names(2);
    let (_, message) = world.waits(after(500));
    assert!(
        message.contains("2 (field/agent-0, field/agent-1)"),
        "{message}"
    );
    world.holders.clear();
    world.broker = Err("away".to_owned());
    world.waits(after(500));
}

#[test]
fn a_rotation_that_is_asked_for_meanwhile_begins_afterwards() {
    let mut world = World::activated();
    world.holders = names(1);
    world.request = Some("again");
    let mut world = world.settled();
    assert!(
        world
            .waits(after(500))
            .1
            .contains("begins when this one has ended")
    );
    world.holders.clear();
    assert_eq!(world.plan(after(500)), Step::Retire);
    let world = world.then(Generations::retire);
    assert_eq!(world.plan(after(500)), Step::Introduce);
}

#[test]
fn what_has_expired_needs_no_overlap() {
    let mut world = World::activated();
    world.broker = Err("away".to_owned());
    world.holders = names(1);
    // The CA that signs is younger in life.
    world.generations.signing = {
        let settings = GeneratedAuthority::default();
        let name = "central".parse().unwrap();
        let made = pki::generate(&name, &settings, 2, start()).unwrap();
        CaPair {
            certificate: made.certificate,
            key: made.key,
            roots: None,
            origin: Origin::Generated,
        }
    };
    assert_eq!(world.plan(after(901 * 3600)), Step::Retire);
}
