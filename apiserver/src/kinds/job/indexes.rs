//! Lists of completion indexes as text: `1,3-5,7`.

/// How many indexes a list names, all below `completions` and in order.
///
/// # Errors
/// What is wrong with the list, in Kubernetes' words.
pub(super) fn count(text: &str, completions: i32) -> Result<i32, String> {
    let (mut total, mut last) = (0_i32, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total = total.saturating_add(end.saturating_sub(first).saturating_add(1));
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both lists name; parts that cannot be read are passed over.
pub(super) fn overlap(one: &str, other: &str, completions: i32) -> Option<i32> {
    let read = |text: &str| -> Vec<(i32, i32)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (one, other) = (read(one), read(other));
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (ones.peek(), others.peek()) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 {
            ones.next()
        } else {
            others.next()
        };
    }
    None
}

fn interval(text: &str, completions: i32) -> Result<(i32, i32), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let index = |part: &str| -> Result<i32, String> {
        let number: i64 = part.parse().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))?;
        i32::try_from(number)
            .ok()
            .filter(|number| *number < completions)
            .ok_or_else(|| format!("too large index: {part:?}"))
    };
    match parts.as_slice() {
        [only] => index(only).map(|index| (index, index)),
        [first, end] => {
            let (first, end) = (index(first)?, index(end)?);
            if first >= end {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
            Ok((first, end))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated \
             by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_or_refused_with_the_reason() {
        for (text, expected) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("1,3-5,7", Ok(5)),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("5-3", Err("non-increasing order, previous: 5, current: 3")),
            ("1,x", Err("cannot convert string to integer for index: \"x\"")),
            ("1,,2", Err("cannot convert string to integer for index: \"\"")),
            ("10", Err("too large index: \"10\"")),
            ("3-99999999999", Err("too large index: \"99999999999\"")),
        ] {
            assert_eq!(count(text, 10), expected.map_err(str::to_owned), "{text}");
        }
        assert!(count("1-2-3", 10).is_err_and(|why| why.contains("at most two parts")));
    }

    #[test]
    fn the_first_index_in_both_lists_is_named() {
        assert_eq!(overlap("0-2,5", "3,4", 10), None);
        assert_eq!(overlap("0-2,5-8", "3,7-9", 10), Some(7));
        assert_eq!(overlap("", "1", 10), None);
        assert_eq!(overlap("x,4", "1,4", 10), Some(4));
    }
}
