//! Resource quantities: `100m`, `1.5Gi`, `2e3`, with exact arithmetic.
//!
//! A quantity is a whole number of nanos, Kubernetes' finest unit, so that sums and comparisons never round. Texts with
//! more digits are rounded away from zero ("an arbitrarily small amount is some amount").

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `1k`, `500m`.
    #[default]
    DecimalSi,
    /// `1Ki`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// Why a text is no quantity; the texts are Kubernetes'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number and a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;

/// What Kubernetes caps texts of more than 18 digits at.
const CAP: i128 = i64::MAX as i128 * NANO;

/// An exact amount and how to write it. Amounts are equal whatever their formats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    #[must_use]
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANO, format }
    }

    /// So many thousandths: millicores.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// So many billionths: what is used of cores.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { nanos: nanos as i128, format: Format::DecimalSi }
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// [`ParseError`] for a text that is none.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse(text)
    }

    /// How it is written.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// The same amount, written otherwise.
    #[must_use]
    pub const fn with_format(self, format: Format) -> Self {
        Self { nanos: self.nanos, format }
    }

    /// The amount in units, rounded away from zero, within the range of `i64`.
    #[must_use]
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// The amount in thousandths, rounded away from zero, within the range of `i64`.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(self, unit: i128) -> i64 {
        let rounded = away_from_zero(self.nanos, unit);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

fn away_from_zero(value: i128, unit: i128) -> i128 {
    let (whole, rest) = (value / unit, value % unit);
    whole + rest.signum()
}

fn suffix(text: &str) -> Result<(u32, i32, Format), ParseError> {
    let decimal = |exponent| Ok((10, exponent, Format::DecimalSi));
    let binary = |exponent| Ok((2, exponent, Format::BinarySi));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = text.strip_prefix(['e', 'E']).and_then(|digits| digits.parse::<i32>().ok());
            exponent.map(|exponent| (10, exponent, Format::DecimalExponent)).ok_or(ParseError::Suffix)
        }
    }
}

/// The longest prefix of bytes that `ok` takes, and the rest.
fn leading(text: &str, ok: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|b| !ok(b)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn parse(text: &str) -> Result<Quantity, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Format);
    }
    let digit = |b: u8| b.is_ascii_digit();
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (_, significant) = leading(unsigned, |b| b == b'0');
    let (whole, rest) = leading(significant, digit);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), |rest| leading(rest, digit));
    if unsigned == rest {
        return Err(ParseError::Format);
    }
    let (_, tail) = leading(rest, |b| b"eEinumkKMGTP".contains(&b));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(digit) {
        return Err(ParseError::Format);
    }
    let (base, exponent, format) = suffix(rest)?;
    let (amount, exact) = amount(whole, fraction, base, exponent);
    // Kubernetes caps what does not fit its short form; what does is kept as large as it is.
    let short = match format {
        Format::BinarySi => fraction.is_empty() && amount <= CAP,
        Format::DecimalSi | Format::DecimalExponent => whole.len().max(1) + fraction.len() <= 18,
    };
    let nanos = if short && exact { amount } else { amount.min(CAP) };
    Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
}

/// The digits as nanos, rounded up, and whether they fit; what does not fit is the cap.
fn amount(whole: &str, fraction: &str, base: u32, exponent: i32) -> (i128, bool) {
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
    if digits.iter().all(|d| *d == 0) {
        return (0, true);
    }
    // Where the decimal point stands among the digits, once nanos are whole.
    let decimal = if base == 10 { i64::from(exponent) } else { 0 };
    let point = whole.len() as i64 + 9 + decimal;
    let first = digits.iter().position(|d| *d != 0).unwrap_or(0) as i64;
    if point - first > 37 {
        return (CAP, false);
    }
    let mut value: i128 = 0;
    let mut rest: Vec<u8> = Vec::new();
    for (i, digit) in digits.iter().enumerate() {
        if (i as i64) < point {
            value = value * 10 + i128::from(*digit);
        } else {
            rest.push(*digit);
        }
    }
    for _ in (digits.len() as i64)..point {
        value *= 10;
    }
    if base == 10 {
        // A point far to the left leaves the zeros before the digits unsaid; they round up just the same.
        let lost = point < 0 || rest.iter().any(|d| *d != 0);
        return (value + i128::from(lost), true);
    }
    let factor = 1_i128 << exponent;
    let Some(scaled) = value.checked_mul(factor) else { return (CAP, false) };
    // The digits below nanos, times at most 2^60, to eighteen places; anything finer rounds up.
    let mut below: i128 = 0;
    for digit in rest.iter().take(18).chain(std::iter::repeat_n(&0, 18_usize.saturating_sub(rest.len()))) {
        below = below * 10 + i128::from(*digit);
    }
    let finer = rest.iter().skip(18).any(|d| *d != 0);
    let unit = 1_000_000_000_000_000_000_i128;
    let scaled_below = below * factor + i128::from(finer);
    (scaled + away_from_zero(scaled_below, unit), true)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps the mantissa whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANO == 0;
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && whole && !small {
            let (mut mantissa, mut step) = (self.nanos / NANO, 0);
            let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            while mantissa % 1024 == 0 && step < suffixes.len() - 1 {
                mantissa /= 1024;
                step += 1;
            }
            return write!(f, "{mantissa}{}", suffixes.get(step).unwrap_or(&""));
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{mantissa}{suffix}")
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = ParseError;

    fn try_from(quantity: &ApiQuantity) -> Result<Self, Self::Error> {
        parse(quantity.0.trim())
    }
}

impl From<Quantity> for ApiQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, in the format of the first amount that is not zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), format: self.format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests;
