//! Quantities, by example and by law.

use proptest::prelude::*;

use super::*;

fn q(text: &str) -> Quantity {
    Quantity::parse(text).unwrap()
}

#[test]
fn texts_have_one_canonical_form() {
    for (text, canonical) in [
        ("0", "0"),
        ("0.0Gi", "0"),
        ("-0", "0"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.1", "100m"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1024Mi", "1Gi"),
        ("1000Ki", "1000Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("0.3Ki", "307200m"),
        ("1000k", "1M"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12345e-3", "12345e-3"),
        ("100e-2", "1"),
        ("1e4", "10e3"),
        ("1E", "1E"),
        ("100E", "100E"),
        ("0.000000001", "1n"),
        ("0.0000000001", "1n"),
        ("1.0000000001", "1000000001n"),
        ("-0.0000000001", "-1n"),
        ("1n", "1n"),
        ("1e-30", "1e-9"),
        ("+5", "5"),
        (".5", "500m"),
        ("1.", "1"),
        ("1.G", "1G"),
        ("007", "7"),
        ("-1.5Gi", "-1536Mi"),
        ("9223372036854775807", "9223372036854775807"),
        ("9223372036854775808", "9223372036854775807"),
        ("-99999999999999999999", "-9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("1e100", "9223372036854775807"),
    ] {
        assert_eq!(q(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn what_is_no_quantity_says_so() {
    for text in ["", "a", "1 ", " 1", "1..5", "1.2.3", "--1", "1ä", "ä", "1Gi5x", "-", "Gi"] {
        assert!(matches!(Quantity::parse(text), Err(ParseError::Format)), "{text}: {:?}", Quantity::parse(text));
    }
    for text in ["1e", "1Kb5", "1mm", "1Zi", "1ki", "1K", "1GiM", "1i"] {
        assert!(Quantity::parse(text).is_err(), "{text}");
    }
    assert_eq!(Quantity::parse("1K"), Err(ParseError::Suffix));
    assert_eq!(
        ParseError::Format.to_string(),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

#[test]
fn values_are_rounded_away_from_zero() {
    assert_eq!((q("1500m").value(), q("1500m").milli_value()), (2, 1500));
    assert_eq!((q("-1500m").value(), q("1u").milli_value()), (-2, 1));
    assert_eq!(q("100E").value(), i64::MAX);
    assert_eq!(q("128Mi").value(), 128 * 1024 * 1024);
}

#[test]
fn a_sum_keeps_the_first_format() {
    assert_eq!((Quantity::ZERO + q("1Ki") + q("1k")).to_string(), "2024");
    assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
    assert_eq!((q("1") - q("100m")).to_string(), "900m");
    assert_eq!([q("100m"), q("250m")].into_iter().sum::<Quantity>(), Quantity::from_millis(350));
    assert_eq!(ApiQuantity::from(q("0.5")), ApiQuantity("500m".into()));
}

fn any_quantity() -> impl Strategy<Value = String> {
    let suffix = "(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|e-[0-9]|E[0-9])?";
    (prop::bool::ANY, "[0-9]{1,12}", "(\\.[0-9]{0,10})?", suffix).prop_map(|(negative, whole, fraction, suffix)| {
        format!("{}{whole}{fraction}{suffix}", if negative { "-" } else { "" })
    })
}

proptest! {
    #[test]
    fn the_canonical_form_is_the_same_amount(text in any_quantity()) {
        let quantity = q(&text);
        let canonical = quantity.to_string();
        // A text of more than 18 digits is capped, which the canonical form of a smaller text need not be.
        prop_assume!(quantity.nanos.abs() < CAP && canonical.len() <= 18);
        prop_assert_eq!(q(&canonical), quantity, "{}", canonical);
        prop_assert_eq!(q(&canonical).to_string(), canonical);
    }

    #[test]
    fn taking_away_what_was_added_leaves_the_same(a in any_quantity(), b in any_quantity()) {
        let (a, b) = (q(&a), q(&b));
        prop_assert_eq!(a + b - b, a);
        prop_assert_eq!(a + b, b + a);
        prop_assert_eq!(a + b > a, !b.is_negative() && !b.is_zero());
    }

    #[test]
    fn no_text_panics(text in "[-+0-9.eEinumkKMGTPä]{0,40}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let _ = (quantity.to_string(), quantity.value(), quantity.milli_value());
        }
    }
}
