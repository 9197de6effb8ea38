//! Resource lists: requests and limits, capacity.

use std::{collections::BTreeMap, ops::Add};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::blank::list;

/// Amounts by resource name, as objects carry them.
pub(super) type ResourceList = BTreeMap<String, Quantity>;

/// An amount in billionths, the finest part a quantity can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(i128);

impl Amount {
    /// Whether it is nothing.
    pub(super) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is less than nothing.
    pub(super) fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Whether it is a whole number.
    pub(super) fn is_whole(self) -> bool {
        self.0 % BILLION == 0
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

const BILLION: i128 = 1_000_000_000;

/// Amounts by resource name, to reckon with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Amounts(pub(super) BTreeMap<String, Amount>);

impl Amounts {
    /// Adds the other amounts to these.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.get(name).map_or(*amount, |sum| *sum + *amount);
            self.0.insert(name.clone(), sum);
        }
    }
}

/// The amount a quantity names, nothing when it is not one.
pub(super) fn parse(quantity: &Quantity) -> Option<Amount> {
    let text = quantity.0.as_str();
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (digits, suffix) = rest.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut numerator: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        numerator = numerator.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let (multiplier, mut exponent) = scale(suffix)?;
    exponent += 9 - i32::try_from(fraction.len()).ok()?;
    let mut amount = numerator.checked_mul(multiplier)?;
    while exponent > 0 {
        amount = amount.checked_mul(10)?;
        exponent -= 1;
    }
    while exponent < 0 {
        // What is finer than a billionth is rounded up, as Kubernetes does.
        amount = amount / 10 + i128::from(amount % 10 != 0);
        exponent += 1;
    }
    Some(Amount(sign * amount))
}

/// A suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into()),
    })
}

/// Writes every amount in its canonical form.
pub(super) fn canonical(list: &mut ResourceList) {
    for quantity in list.values_mut() {
        canonical_quantity(quantity);
    }
}

/// Writes the quantity in its canonical form: a mantissa without fraction, the largest fitting suffix of its kind.
pub(super) fn canonical_quantity(quantity: &mut Quantity) {
    let Some(amount) = parse(quantity) else { return };
    let text = quantity.0.as_str();
    let binary = text.ends_with('i');
    let exponent = text.trim_start_matches(['+', '-']).find(['e', 'E']).is_some_and(|at| at + 1 < text.len());
    if let Some(canonical) = write_canonical(amount, binary, exponent) {
        quantity.0 = canonical;
    }
}

fn write_canonical(Amount(nanos): Amount, binary: bool, exponent: bool) -> Option<String> {
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    if nanos == 0 {
        return Some("0".to_owned());
    }
    if binary && nanos % BILLION == 0 && (nanos / BILLION).abs() >= 1024 {
        let mut value = nanos / BILLION;
        let mut steps = 0;
        while value % 1024 == 0 && steps + 1 < BINARY.len() {
            value /= 1024;
            steps += 1;
        }
        return BINARY.get(steps).map(|suffix| format!("{value}{suffix}"));
    }
    let (mut value, mut steps) = (nanos, 0);
    while value % 1000 == 0 && steps + 1 < DECIMAL.len() {
        value /= 1000;
        steps += 1;
    }
    if exponent {
        let power = i32::try_from(steps).ok()? * 3 - 9;
        return Some(if power == 0 { value.to_string() } else { format!("{value}e{power}") });
    }
    DECIMAL.get(steps).map(|suffix| format!("{value}{suffix}"))
}

/// Requests what is limited and not requested.
pub(super) fn default_requests(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    if limits.is_empty() {
        return;
    }
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

fn requests_of(container: &Container) -> Amounts {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    Amounts(requests.into_iter().flatten().filter_map(|(name, q)| Some((name.clone(), parse(q)?))).collect())
}

/// What the containers request together: the sum of those that run side by side, or the most any start-up step needs.
pub(super) fn pod_requests(spec: &PodSpec) -> ResourceList {
    let mut sum = Amounts::default();
    for container in &spec.containers {
        sum.add(&requests_of(container));
    }
    let (mut sidecars, mut peak) = (Amounts::default(), Amounts::default());
    for container in list(&spec.init_containers) {
        let own = requests_of(container);
        let mut step = sidecars.clone();
        step.add(&own);
        if container.restart_policy.as_deref() == Some("Always") {
            sum.add(&own);
            sidecars = step.clone();
        }
        for (name, amount) in step.0 {
            let most = peak.0.get(&name).map_or(amount, |most| amount.max(*most));
            peak.0.insert(name, most);
        }
    }
    for (name, amount) in peak.0 {
        let most = sum.0.get(&name).map_or(amount, |sum| amount.max(*sum));
        sum.0.insert(name, most);
    }
    let written = sum.0.into_iter().filter_map(|(name, amount)| {
        let binary = name != "cpu";
        Some((name, Quantity(write_canonical(amount, binary, false)?)))
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_one_canonical_form() {
        for (given, canonical) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("0.5Ki", "512"),
            ("1000k", "1M"),
            ("100", "100"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("0.1m", "100u"),
            ("-5", "-5"),
            ("00.10", "100m"),
            ("nonsense", "nonsense"),
        ] {
            let mut quantity = Quantity(given.to_owned());
            canonical_quantity(&mut quantity);
            assert_eq!(quantity.0, canonical, "{given}");
        }
    }
}
