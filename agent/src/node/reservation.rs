//! Whether what is reserved on a node leaves its pods anything: kubelet does not start where it does not.

use std::collections::BTreeMap;

use coracle_proto::quantity::{Format, Quantity};

use super::machine::Machine;
use crate::eviction::threshold::{Signal, Thresholds};

/// What of a machine can be reserved at most, by resource: all but what must stay free of it lest pods are evicted.
pub(super) fn reservable(machine: &Machine, thresholds: &Thresholds) -> BTreeMap<&'static str, u64> {
    let all_but = |signal, whole: u64| whole.saturating_sub(thresholds.kept(signal, whole));
    BTreeMap::from([
        ("cpu", u64::try_from(machine.cpus).unwrap_or(u64::MAX)),
        ("memory", all_but(Signal::Memory, machine.memory)),
        ("ephemeral-storage", machine.disk / 10 * 9),
        ("pid", all_but(Signal::Pids, machine.pids)),
    ])
}

/// What is wrong with these reservations, in thousandths, on this machine: all of which there is more than it has.
///
/// # Errors
/// A sentence for each, with what was reserved and what could be at most.
pub(crate) fn check(
    machine: &Machine,
    thresholds: &Thresholds,
    reserved: &BTreeMap<String, i128>,
) -> Result<(), String> {
    let most = reservable(machine, thresholds);
    let excess = |(name, amount): (&String, &i128)| {
        let most = *most.get(name.as_str())?;
        let format = if name == "cpu" || name == "pid" { Format::DecimalSi } else { Format::BinarySi };
        let shown = |thousandths: i128| {
            let thousandths = i64::try_from(thousandths).unwrap_or(i64::MAX);
            Quantity::from_millis(thousandths).with_format(format).to_string()
        };
        (*amount > i128::from(most) * 1000).then(|| {
            let (amount, most) = (shown(*amount), shown(i128::from(most) * 1000));
            format!("{amount} of {name} are reserved, which on this machine can be at most {most}")
        })
    };
    let all: Vec<String> = reserved.iter().filter_map(excess).collect();
    if all.is_empty() { Ok(()) } else { Err(all.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_can_be_reserved_than_there_is_besides_what_must_stay_free() {
        let machine = Machine { cpus: 4, memory: 4 << 30, disk: 100 << 30, pids: 30_000, ..Machine::default() };
        let of = |reserved: &[(&str, i128)]| {
            let usual = Thresholds::usual();
            check(&machine, &usual, &reserved.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect())
        };
        let all = [
            ("cpu", 4000),
            ("memory", 1000 * ((4 << 30) - (100 << 20))),
            ("ephemeral-storage", 90_000 << 30),
            ("pid", 29_900_000),
        ];
        assert_eq!(of(&[]), Ok(()));
        assert_eq!(of(&all), Ok(()));
        for ((name, amount), words) in all.into_iter().zip([
            "4001m of cpu are reserved, which on this machine can be at most 4",
            "4190109696001m of memory are reserved, which on this machine can be at most 3996Mi",
            "96636764160001m of ephemeral-storage are reserved, which on this machine can be at most 90Gi",
            "29900001m of pid are reserved, which on this machine can be at most 29900",
        ]) {
            assert_eq!(of(&[(name, amount + 1)]), Err(words.to_owned()));
        }
        let two = of(&[("memory", 500_000 << 30), ("cpu", 5000)]).unwrap_err();
        assert_eq!(
            two,
            "5 of cpu are reserved, which on this machine can be at most 4; 500Gi of memory are reserved, which on this \
             machine can be at most 3996Mi"
        );
    }
}
