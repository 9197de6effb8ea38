//! Objects written as JSON with numbers as Go writes them: a whole one has no fraction. Clients compare what they sent
//! (`minimum: 1`) with what they get, and would take `1.0` for a change.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// From here on Go writes exponents.
const EXPONENTS_FROM: f64 = 1e21;

struct GoNumbers;

impl Formatter for GoNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value.fract() == 0.0 && value.abs() < EXPONENTS_FROM {
            write!(writer, "{value:.0}")
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

/// Appends a value.
///
/// # Errors
/// The type cannot be written as JSON.
pub fn append(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, GoNumbers))
}

/// A value as JSON.
///
/// # Errors
/// As [`append`].
pub fn to_vec(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    append(&mut out, value)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_fraction() {
        for (value, text) in [
            (1.0, "1"),
            (-3.0, "-3"),
            (0.0, "0"),
            (0.5, "0.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (f64::NAN, "null"),
        ] {
            assert_eq!(String::from_utf8(to_vec(&value).unwrap()).unwrap(), text);
        }
        let value = serde_json::json!({"a": [1.0, 2, "3.0"], "b": -0.25});
        assert_eq!(to_vec(&value).unwrap(), br#"{"a":[1,2,"3.0"],"b":-0.25}"#);
    }
}
