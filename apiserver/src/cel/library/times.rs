//! The parts of times and spans.

use crate::cel::{
    eval::{Budget, Error},
    time,
    value::Value,
};

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], _: &mut Budget) -> Option<Result<Value, Error>> {
    match args {
        [Value::Duration(d)] => {
            let millis = d.as_millis();
            let value = match function {
                "getHours" => millis / 3_600_000,
                "getMinutes" => millis / 60_000,
                "getSeconds" => millis / 1000,
                "getMilliseconds" => millis % 1000,
                _ => return None,
            };
            Some(Ok(Value::Int(i64::try_from(value).unwrap_or(i64::MAX))))
        }
        [Value::Timestamp(t), rest @ ..] => {
            let zone = match rest {
                [] => None,
                [Value::Text(zone)] => Some(&**zone),
                _ => return None,
            };
            let z = match time::zoned(*t, zone) {
                Ok(z) => z,
                Err(error) => return Some(Err(Error::new(error))),
            };
            let value = match function {
                "getFullYear" => i64::from(z.year()),
                "getMonth" => i64::from(z.month()) - 1,
                "getDayOfYear" => i64::from(z.day_of_year()) - 1,
                "getDayOfMonth" => i64::from(z.day()) - 1,
                "getDate" => i64::from(z.day()),
                "getDayOfWeek" => i64::from(z.weekday().to_sunday_zero_offset()),
                "getHours" => i64::from(z.hour()),
                "getMinutes" => i64::from(z.minute()),
                "getSeconds" => i64::from(z.second()),
                "getMilliseconds" => i64::from(z.millisecond()),
                _ => return None,
            };
            Some(Ok(Value::Int(value)))
        }
        _ => None,
    }
}
