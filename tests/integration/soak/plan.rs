//! What a soak does. All of it follows from the seed; only how it falls together is the machine's.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use std::str::FromStr;
use std::time::Duration;
use volttron_tests::Moment;

/// The last write of the leader that a fault waits for.
const LAST_WRITE: usize = 12;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub seed: u64,
    /// How many requests are approved at once, in each round.
    pub requests: usize,
    pub rounds: usize,
    /// How many faults of the operators there are in each round; others come on top.
    pub faults: usize,
}

/// What becomes of a request, and of those that follow it in the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Issued.
    Plain,
    /// Issued, and so is the one that renews it.
    Renewed,
    /// Renewed twice, so that the one in the middle is superseded.
    RenewedTwice,
    /// Renewed twice; then the identity is denied.
    RenewedAndDenied,
    /// Denied before it was approved.
    Refused,
    /// Denied at some moment after it was approved.
    Denied,
    /// Denied and approved again, each time when the last decision had taken effect.
    DeniedAndBack,
    /// The same, without waiting for anything.
    Wavering,
    /// Deleted at some moment after it was approved.
    Deleted,
    /// Deleted without a decision.
    Forgotten,
    /// Issued, deleted, and filed again under the same name with another key.
    Replaced,
}

/// Something that happens to the operators.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL to the leader, which comes back at once.
    Kill,
    /// SIGKILL to the leader at one of its next writes.
    KillAtWrite(usize, Moment),
    /// SIGKILL to the leader, which stays away until the other one leads.
    Replace,
    /// SIGKILL to both.
    KillBoth,
    /// SIGTERM to the leader.
    Terminate,
    /// The leader stands still until the other one leads, and goes on then.
    Pause,
    /// Neither reaches the API server for a moment.
    Away,
    /// Their watches end.
    Cut,
}

/// Something that happens to what the operators need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    ApiServer,
    Etcd,
    Broker,
    /// The broker comes back with an empty disk.
    WipedBroker,
}

/// Pauses come before what they stand beside.
pub struct Round {
    pub lives: Vec<(Life, Pauses)>,
    pub faults: Vec<(Duration, Fault)>,
    pub outages: Vec<(Duration, Outage)>,
}

/// Moments in the life of a request.
pub type Pauses = [Duration; 2];

impl Size {
    /// `SOAK_SEED`, `SOAK_REQUESTS`, `SOAK_ROUNDS` and `SOAK_FAULTS`, or what takes a minute.
    pub fn from_environment() -> Self {
        let requests = variable("SOAK_REQUESTS").unwrap_or(40);
        Self {
            seed: variable("SOAK_SEED").unwrap_or_else(|| rand::rng().random_range(0..100_000)),
            requests,
            rounds: variable("SOAK_ROUNDS").unwrap_or(1),
            faults: variable("SOAK_FAULTS").unwrap_or(requests / 7),
        }
    }

    /// The rounds.
    pub fn plan(self) -> Vec<Round> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        (0..self.rounds)
            .map(|number| self.round(number, &mut rng))
            .collect()
    }

    fn round(self, number: usize, rng: &mut StdRng) -> Round {
        use Life::*;
        let all = [
            Plain,
            Renewed,
            RenewedTwice,
            RenewedAndDenied,
            Refused,
            Denied,
            DeniedAndBack,
            Wavering,
            Deleted,
            Forgotten,
            Replaced,
        ];
        // Each kind at least once, and then half of them plain.
        let mut kinds: Vec<_> = all.into_iter().take(self.requests).collect();
        while kinds.len() < self.requests {
            let odd = *all.choose(rng).expect("there are kinds");
            kinds.push(if rng.random() { Plain } else { odd });
        }
        kinds.shuffle(rng);
        // The faults take about three seconds each; what is decided later falls among them.
        let span = Duration::from_secs(2) * u32::try_from(self.faults).unwrap_or(1);
        let lives = kinds
            .into_iter()
            .map(|kind| (kind, [moment(rng, span), moment(rng, span / 2)]))
            .collect();
        let mut faults: Vec<_> = (0..self.faults).map(|_| fault(rng)).collect();
        if number == 0 {
            faults.extend([Fault::Replace, Fault::KillAtWrite(3, Moment::After)]);
        }
        let mut outages = vec![
            Outage::Etcd,
            if number == 0 {
                Outage::WipedBroker
            } else {
                Outage::Broker
            },
        ];
        outages.extend((0..self.faults / 8).map(|_| {
            [Outage::ApiServer, Outage::Etcd, Outage::Broker]
                .choose(rng)
                .copied()
                .expect("there are outages")
        }));
        outages.push(Outage::ApiServer);
        faults.shuffle(rng);
        outages.shuffle(rng);
        let mut timed = |most| moment(rng, Duration::from_secs(most));
        Round {
            lives,
            faults: faults.into_iter().map(|it| (timed(2), it)).collect(),
            outages: outages.into_iter().map(|it| (timed(6), it)).collect(),
        }
    }
}

fn fault(rng: &mut StdRng) -> Fault {
    let moment = if rng.random() {
        Moment::Before
    } else {
        Moment::After
    };
    match rng.random_range(0..12) {
        0..=2 => Fault::Kill,
        3..=6 => Fault::KillAtWrite(rng.random_range(1..=LAST_WRITE), moment),
        7 => Fault::KillBoth,
        8 => Fault::Terminate,
        9 => Fault::Cut,
        10 => Fault::Away,
        _ => [Fault::Replace, Fault::Pause][rng.random_range(0..2)],
    }
}

fn moment(rng: &mut StdRng, within: Duration) -> Duration {
    within.mul_f64(rng.random())
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse();
    Some(value.unwrap_or_else(|_| panic!("{name} is a number, and not {text:?}")))
}
