use super::*;
use k8s_openapi::api::core::v1::ObjectReference;

/// A warning about a pod.
pub(in super::super) fn told(name: &str, note: &str) -> Told {
    let subject = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some("plant".to_owned()),
        name: Some(name.to_owned()),
        uid: Some("6f9d1c3e-1e0c-4d0f-8a53-3e8a3c1f2b60".to_owned()),
        ..ObjectReference::default()
    };
    Told {
        lane: Lane::Rest,
        type_: EventType::Warning,
        subject: Subject::named(subject).unwrap(),
        reason: "Denied".into(),
        action: "Deny".into(),
        note: note.into(),
        at: Timestamp::UNIX_EPOCH,
        stamp: None,
        counts: true,
        attempts: 0,
    }
}

fn in_lane(lane: Lane, note: &str) -> Told {
    Told {
        lane,
        ..told("agent", note)
    }
}

fn sent(outbox: &mut Outbox, now: Instant, pace: Pace) -> Box<Told> {
    match outbox.next(now, pace) {
        Next::Send(told) => told,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_people_have_to_know_goes_first() {
    let now = Instant::now();
    let mut outbox = Outbox::default();
    for (lane, note) in [
        (Lane::Rest, "issued"),
        (Lane::Decisions, "approved"),
        (Lane::First, "denied"),
        (Lane::Decisions, "approved too"),
    ] {
        outbox.put(in_lane(lane, note)).unwrap();
    }
    for note in ["denied", "approved", "approved too", "issued"] {
        assert_eq!(&*sent(&mut outbox, now, Pace::Hurry).note, note);
    }
    assert!(matches!(
        outbox.next(now, Pace::Hurry),
        Next::Nothing(false)
    ));
    outbox.close();
    assert!(matches!(outbox.next(now, Pace::Hurry), Next::Nothing(true)));
}

#[test]
fn a_quiet_time_is_used_and_work_is_given_way_to() {
    // How many of a flood go within two seconds.
    let go = |lane: Lane, pace: Pace| {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.put(in_lane(lane, "a")).unwrap();
        }
        let (start, mut count) = (Instant::now(), 0);
        let mut now = start;
        while now < start + Duration::from_secs(2) {
            match outbox.next(now, pace) {
                Next::Send(_) => count += 1,
                Next::At(at) => now = at,
                Next::Nothing(_) => break,
            }
        }
        count
    };
    assert_eq!(go(Lane::Rest, Pace::Quiet), 400);
    assert_eq!(go(Lane::Decisions, Pace::Busy), 50);
    assert_eq!(go(Lane::Rest, Pace::Busy), 2);
    assert_eq!(go(Lane::Rest, Pace::Hurry), 1000);

    let now = Instant::now();
    let mut outbox = Outbox::default();
    for lane in [Lane::Rest, Lane::Rest] {
        outbox.put(in_lane(lane, "issued")).unwrap();
    }
    sent(&mut outbox, now, Pace::Busy);
    let Next::At(later) = outbox.next(now, Pace::Busy) else {
        panic!("two at once");
    };
    outbox.put(in_lane(Lane::First, "denied")).unwrap();
    let Next::At(sooner) = outbox.next(now, Pace::Busy) else {
        panic!("two at once");
    };
    assert!(sooner < later, "a denial waits as long as all others");
    assert_eq!(&*sent(&mut outbox, sooner, Pace::Busy).note, "denied");
}

#[test]
fn a_flood_takes_no_more_than_its_room_and_nobody_elses() {
    let mut outbox = Outbox::default();
    let mut kept = 0;
    loop {
        match outbox.put(in_lane(Lane::Rest, &"a".repeat(100))) {
            Ok(()) => kept += 1,
            Err(first) => {
                assert!(first);
                break;
            }
        }
    }
    assert!(kept >= 10_000, "{kept} of usual length have room");
    let waiting = &outbox.lanes[Lane::Rest as usize];
    assert!(waiting.bytes <= 4 << 20);
    let one = told("agent", "").bytes();
    assert!(one < 400, "one takes {one} bytes");
    assert_eq!(
        outbox.put(in_lane(Lane::Rest, &"a".repeat(100))),
        Err(false)
    );
    outbox.put(in_lane(Lane::Decisions, "approved")).unwrap();
    outbox.put(in_lane(Lane::First, "denied")).unwrap();
    let now = Instant::now();
    while let Next::Send(_) = outbox.next(now, Pace::Hurry) {}
    assert!(outbox.lanes.iter().all(|lane| lane.bytes == 0));
    // The next flood is told of again.
    outbox.put(in_lane(Lane::Rest, "a")).unwrap();
    assert!(!outbox.lanes[Lane::Rest as usize].overflown);
}

#[test]
fn an_outage_is_waited_for_and_told_once() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let mut outbox = Outbox::default();
    for note in ["a", "b"] {
        outbox.put(told("agent", note)).unwrap();
    }
    let first = sent(&mut outbox, now, Pace::Hurry);
    let stamp = first.stamp;
    outbox.put_back(first);
    assert!(outbox.pause_until(now + second));
    assert!(!outbox.pause_until(now + second), "it is no news");
    for pace in [Pace::Hurry, Pace::Quiet] {
        assert!(matches!(outbox.next(now, pace), Next::At(at) if at == now + second));
    }
    let later = now + second;
    assert_eq!(&*sent(&mut outbox, later, Pace::Hurry).note, "b");
    assert!(outbox.go_on() && !outbox.go_on());
    let again = sent(&mut outbox, later, Pace::Hurry);
    assert_eq!((&*again.note, again.stamp), ("a", stamp));
}

#[test]
fn no_two_have_the_same_stamp() {
    let now = Instant::now();
    let mut outbox = Outbox::default();
    for second in [5, 5, 3, 7] {
        let at = Timestamp::from_second(second).unwrap();
        outbox
            .put(Told {
                at,
                ..told("agent", "a")
            })
            .unwrap();
    }
    let given = Told {
        stamp: Some(42),
        ..told("agent", "a")
    };
    outbox.put(given).unwrap();
    let stamps: Vec<_> = (0..5)
        .map(|_| sent(&mut outbox, now, Pace::Hurry).stamp.unwrap())
        .collect();
    let (five, seven) = (5_000_000_000, 7_000_000_000);
    assert_eq!(stamps, [five, five + 1, five + 2, seven, 42]);
}
