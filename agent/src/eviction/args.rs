//! The flags of eviction, by kubelet's names.

use std::time::Duration;

use coracle_process::WrongUse;

use super::threshold::{self, Signal, Statement, Thresholds};

/// When a node is short of something, and what follows.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct EvictionArgs {
    /// When a pod goes at once: SIGNAL<AMOUNT or SIGNAL<PERCENT%, in place of memory.available<100Mi, nodefs.available<5%
    /// (or 2Gi), nodefs.inodesFree<5% and pid.available<100.
    #[arg(long, env = "CORACLE_EVICTION_HARD", value_name = "SIGNAL<AMOUNT", value_delimiter = ',')]
    pub eviction_hard: Vec<Statement>,
    /// When a pod goes if it lasts longer than --eviction-soft-grace-period.
    #[arg(long, env = "CORACLE_EVICTION_SOFT", value_name = "SIGNAL<AMOUNT", value_delimiter = ',')]
    pub eviction_soft: Vec<Statement>,
    /// How long that may last, as in memory.available=1m30s.
    #[arg(long, env = "CORACLE_EVICTION_SOFT_GRACE_PERIOD", value_name = "SIGNAL=DURATION", value_delimiter = ',',
        value_parser = threshold::grace)]
    pub eviction_soft_grace_period: Vec<(Signal, Duration)>,
    /// Seconds a pod gets at most to end that goes because of --eviction-soft.
    #[arg(long, env = "CORACLE_EVICTION_MAX_POD_GRACE_PERIOD", value_name = "SECONDS", default_value_t = 0)]
    pub eviction_max_pod_grace_period: u32,
    /// How long the node says it is short of something after it no longer is.
    #[arg(long, env = "CORACLE_EVICTION_PRESSURE_TRANSITION_PERIOD", value_name = "DURATION", default_value = "5m",
        value_parser = threshold::duration)]
    pub eviction_pressure_transition_period: Duration,
}

impl EvictionArgs {
    /// What must be free.
    ///
    /// # Errors
    /// A soft threshold has no grace period.
    pub(crate) fn thresholds(&self) -> Result<Thresholds, WrongUse> {
        let read = Thresholds::read(&self.eviction_hard, &self.eviction_soft, &self.eviction_soft_grace_period)
            .map_err(|why| WrongUse(format!("--eviction-soft: {why}")))?;
        let most_grace = Duration::from_secs(self.eviction_max_pod_grace_period.into());
        Ok(Thresholds { most_grace, transition: self.eviction_pressure_transition_period, ..read })
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::super::threshold::Threshold;
    use super::*;

    fn read(flags: &[&str]) -> Result<EvictionArgs, String> {
        let command = EvictionArgs::augment_args(clap::Command::new("node"));
        let matches = command.try_get_matches_from([&["node"], flags].concat()).map_err(|error| error.to_string())?;
        EvictionArgs::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_thresholds() {
        assert_eq!(read(&[]).unwrap().thresholds(), Ok(Thresholds::usual()));
        let flags = [
            "--eviction-hard",
            "memory.available<200Mi,pid.available<10%",
            "--eviction-soft=nodefs.available<1Gi",
            "--eviction-soft-grace-period=nodefs.available=2m",
            "--eviction-max-pod-grace-period=7",
            "--eviction-pressure-transition-period=30s",
        ];
        let thresholds = read(&flags).unwrap().thresholds().unwrap();
        let of = |threshold: &Threshold| (threshold.signal, threshold.grace.map(|grace| grace.as_secs()));
        assert_eq!(
            thresholds.all.iter().map(of).collect::<Vec<_>>(),
            [(Signal::Memory, None), (Signal::Pids, None), (Signal::Disk, Some(120))]
        );
        assert_eq!((thresholds.most_grace.as_secs(), thresholds.transition.as_secs()), (7, 30));
        for (flags, words) in [
            (&["--eviction-hard", "swap<1"][..], "--eviction-hard <SIGNAL<AMOUNT>': unsupported eviction signal swap"),
            (&["--eviction-pressure-transition-period", "long"], "\"long\" is no duration such as 1m30s"),
        ] {
            let said = read(flags).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
        let without = read(&["--eviction-soft=pid.available<7"]).unwrap().thresholds().unwrap_err().0;
        assert!(without.starts_with("--eviction-soft: grace period must be specified"), "{without}");
    }
}
