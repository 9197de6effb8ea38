//! What must be free on a node: kubelet's thresholds and the signals they are about, as its flags write them
//! (`memory.available<100Mi`, `nodefs.inodesFree<5%`).

use std::str::FromStr;
use std::time::Duration;

use coracle_proto::quantity::{Format, Quantity};

use crate::node::machine::Machine;

/// What a node may have too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`: bytes.
    Memory,
    /// `nodefs.available`: bytes of the file system with pods' data.
    Disk,
    /// `nodefs.inodesFree`: inodes of it.
    Inodes,
    /// `pid.available`: processes and threads that may still be started.
    Pids,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    /// All of it.
    pub(crate) whole: u64,
    /// What is left.
    pub(crate) free: u64,
}

impl Signal {
    const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::Inodes, Self::Pids];

    /// Kubelet's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::Disk => "nodefs.available",
            Self::Inodes => "nodefs.inodesFree",
            Self::Pids => "pid.available",
        }
    }

    /// Kubelet's name of what pods are to give back.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// How amounts of it are written.
    fn format(self) -> Format {
        match self {
            Self::Memory | Self::Disk => Format::BinarySi,
            Self::Inodes | Self::Pids => Format::DecimalSi,
        }
    }

    /// An amount of it as Kubernetes writes it.
    pub(super) fn shown(self, amount: u64) -> String {
        Quantity::new(i64::try_from(amount).unwrap_or(i64::MAX), self.format()).to_string()
    }

    /// What a machine has of it.
    pub(crate) fn of(self, machine: &Machine) -> Amount {
        let (whole, free) = match self {
            Self::Memory => (machine.memory, machine.memory_available),
            Self::Disk => (machine.disk, machine.disk_free),
            Self::Inodes => machine.inodes,
            Self::Pids => (machine.pids, machine.pids_free),
        };
        Amount { whole, free }
    }
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|signal| signal.name() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("unsupported eviction signal {text}: it must be one of {known}")
        })
    }
}

/// How little of something is too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Less than this.
    Amount(u64),
    /// Less than a part of all there is.
    Part {
        /// The part, in thousandths of a hundredth.
        of_100_000: u64,
        /// What is enough, however much there is. Hundredths of the disks of machines that people use for other things as well
        /// are tens of gigabytes.
        enough: Option<u64>,
    },
}

impl Least {
    /// What must be left where there is so much.
    pub(crate) fn of(self, whole: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Part { of_100_000, enough } => {
                let part = u128::from(whole) * u128::from(of_100_000) / 100_000;
                u64::try_from(part).unwrap_or(u64::MAX).min(enough.unwrap_or(u64::MAX))
            }
        }
    }
}

/// One thing that must be left. No pods begin where it is not, and when that has lasted as long as it may, pods go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// How much.
    pub least: Least,
    /// How long there may be less; not at all for a hard one.
    pub grace: Option<Duration>,
}

impl Threshold {
    /// Whether a machine has less.
    pub(crate) fn is_met(&self, machine: &Machine) -> bool {
        let Amount { whole, free } = self.signal.of(machine);
        // Some file systems do not count inodes: they have none and none free.
        whole > 0 && free < self.least.of(whole)
    }
}

/// What a flag says of one threshold: `memory.available<100Mi`, or a part as in `nodefs.available<5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    signal: Signal,
    /// Nothing is what none and all of it mean.
    least: Option<Least>,
}

impl FromStr for Statement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (signal, least) = text.split_once('<').ok_or("a threshold looks like memory.available<100Mi")?;
        let signal: Signal = signal.parse()?;
        let positive = |text: &str| {
            let quantity = Quantity::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
            if quantity.is_negative() { Err(format!("{text:?} must not be negative")) } else { Ok(quantity) }
        };
        let least = match least.strip_suffix('%') {
            Some(hundredths) => {
                let of_100_000 = u64::try_from(positive(hundredths)?.milli_value()).unwrap_or(0);
                match of_100_000 {
                    0 | 100_000 => None,
                    1..100_000 => Some(Least::Part { of_100_000, enough: None }),
                    _ => {
                        return Err(format!(
                            "eviction percentage threshold {} must be <= 100%: {least}",
                            signal.name()
                        ));
                    }
                }
            }
            None => match u64::try_from(positive(least)?.value()).unwrap_or(0) {
                0 => return Err(format!("eviction threshold {} must be positive: {least}", signal.name())),
                amount => Some(Least::Amount(amount)),
            },
        };
        Ok(Self { signal, least })
    }
}

/// How long there may be less than a soft threshold, as in `memory.available=1m30s`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn grace(text: &str) -> Result<(Signal, Duration), String> {
    let (signal, time) = text.split_once('=').ok_or("a grace period looks like memory.available=1m30s")?;
    Ok((signal.parse()?, duration(time)?))
}

/// A length of time that is not negative, as in `1m30s`.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let length: jiff::SignedDuration = text.parse().map_err(|_| format!("{text:?} is no duration such as 1m30s"))?;
    Duration::try_from(length).map_err(|_| format!("{text:?} must not be negative"))
}

/// All that must be left, and what follows when it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The thresholds; of several that are met the one on memory counts first, and then the first one.
    pub all: Vec<Threshold>,
    /// What pods get at most that go because of a soft one.
    pub most_grace: Duration,
    /// How long the node says it is short of something after it no longer is, so that pods do not come and go.
    pub transition: Duration,
}

impl Thresholds {
    /// Kubelet's [`Thresholds::transition`].
    pub const TRANSITION: Duration = Duration::from_secs(300);

    /// Kubelet's, but for the disk: k3s has five hundredths too, and two gigabytes are enough.
    #[must_use]
    pub fn usual() -> Self {
        let hard = |signal, least| Threshold { signal, least, grace: None };
        let part = |enough| Least::Part { of_100_000: 5000, enough };
        Self {
            all: vec![
                hard(Signal::Memory, Least::Amount(100 << 20)),
                hard(Signal::Disk, part(Some(2 << 30))),
                hard(Signal::Inodes, part(None)),
                hard(Signal::Pids, Least::Amount(100)),
            ],
            ..Self::none()
        }
    }

    /// None: the host is somebody else's care.
    #[must_use]
    pub fn none() -> Self {
        Self { all: Vec::new(), most_grace: Duration::ZERO, transition: Self::TRANSITION }
    }

    /// Those that flags say; the usual hard ones if they say none.
    ///
    /// # Errors
    /// A soft one has no grace period.
    pub(crate) fn read(hard: &[Statement], soft: &[Statement], graces: &[(Signal, Duration)]) -> Result<Self, String> {
        let mut thresholds = if hard.is_empty() { Self::usual() } else { Self::none() };
        let of = |statement: &Statement, grace| {
            statement.least.map(|least| Threshold { signal: statement.signal, least, grace })
        };
        thresholds.all.extend(hard.iter().filter_map(|statement| of(statement, None)));
        for statement in soft {
            let signal = statement.signal;
            let Some((_, grace)) = graces.iter().rev().find(|(of, _)| *of == signal) else {
                let name = signal.name();
                return Err(format!("grace period must be specified for the soft eviction threshold {name}"));
            };
            thresholds.all.extend(of(statement, Some(*grace)));
        }
        Ok(thresholds)
    }

    /// What of `whole` pods never get, because some go before it is taken.
    pub(crate) fn kept(&self, signal: Signal, whole: u64) -> u64 {
        let hard = self.all.iter().filter(|threshold| threshold.signal == signal && threshold.grace.is_none());
        hard.map(|threshold| threshold.least.of(whole)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Result<(Signal, Option<Least>), String> {
        text.parse().map(|Statement { signal, least }| (signal, least))
    }

    #[test]
    fn thresholds_are_read_as_kubelet_reads_them() {
        let part = |of_100_000| Some(Least::Part { of_100_000, enough: None });
        for (text, read) in [
            ("memory.available<100Mi", (Signal::Memory, Some(Least::Amount(100 << 20)))),
            ("nodefs.available<12.5%", (Signal::Disk, part(12_500))),
            ("nodefs.inodesFree<1k", (Signal::Inodes, Some(Least::Amount(1000)))),
            ("pid.available<99.999%", (Signal::Pids, part(99_999))),
            ("pid.available<0%", (Signal::Pids, None)),
            ("pid.available<100%", (Signal::Pids, None)),
        ] {
            assert_eq!(statement(text), Ok(read), "{text}");
        }
        for (text, why) in [
            ("memory.available", "a threshold looks like memory.available<100Mi"),
            (
                "imagefs.available<5%",
                "unsupported eviction signal imagefs.available: it must be one of memory.available, nodefs.available, \
                 nodefs.inodesFree, pid.available",
            ),
            ("memory.available<0", "eviction threshold memory.available must be positive: 0"),
            ("memory.available<-1", "\"-1\" must not be negative"),
            ("memory.available<101%", "eviction percentage threshold memory.available must be <= 100%: 101%"),
            ("memory.available<much", "\"much\": quantities must match the regular expression"),
        ] {
            let said = statement(text).unwrap_err();
            assert!(said.starts_with(why), "{text}: {said}");
        }
        assert_eq!(grace("memory.available=1m30s"), Ok((Signal::Memory, Duration::from_secs(90))));
        assert_eq!(grace("memory.available=-1s").unwrap_err(), "\"-1s\" must not be negative");
        assert!(grace("memory.available=soon").is_err() && grace("memory.available").is_err());
    }

    #[test]
    fn those_of_the_flags_stand_for_the_usual_ones() {
        let all = |hard: &[&str], soft: &[&str]| {
            let read = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<Statement>>();
            let graces = [(Signal::Memory, Duration::from_secs(9)), (Signal::Memory, Duration::from_secs(8))];
            Thresholds::read(&read(hard), &read(soft), &graces)
        };
        assert_eq!(all(&[], &[]).unwrap(), Thresholds::usual());
        assert_eq!(all(&["pid.available<0%"], &[]).unwrap(), Thresholds::none());
        let both = all(&["pid.available<7"], &["memory.available<1Gi"]).unwrap();
        let graces: Vec<_> = both.all.iter().map(|threshold| (threshold.signal, threshold.grace)).collect();
        assert_eq!(graces, [(Signal::Pids, None), (Signal::Memory, Some(Duration::from_secs(8)))]);
        assert_eq!((both.kept(Signal::Pids, 100), both.kept(Signal::Memory, 100)), (7, 0));
        let why = "grace period must be specified for the soft eviction threshold pid.available";
        assert_eq!(all(&[], &["pid.available<7"]).unwrap_err(), why);
    }

    #[test]
    fn a_part_is_of_what_there_is_and_some_of_much_is_enough() {
        let part = |of_100_000, enough| Least::Part { of_100_000, enough };
        assert_eq!(part(5000, None).of(1000), 50);
        assert_eq!(part(12_500, None).of(u64::MAX), u64::MAX / 8);
        assert_eq!(part(5000, Some(2 << 30)).of(1 << 40), 2 << 30);
        let least = |least| Threshold { signal: Signal::Inodes, least, grace: None };
        let machine = |inodes| Machine { inodes, ..Machine::default() };
        assert!(
            least(Least::Amount(5)).is_met(&machine((10, 4))) && !least(Least::Amount(5)).is_met(&machine((10, 5)))
        );
        assert!(!least(Least::Amount(5)).is_met(&machine((0, 0))), "a file system that does not count them");
    }
}
