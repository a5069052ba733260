//! Timestamps of the system columns, in the canonical text form, without the cost of a general parser.

use chrono::{DateTime, NaiveDate, Utc};
use storage_core::{Result, value};

/// The canonical form: `2026-11-21T09:30:00.000000Z`. Its bytewise order is the order of time.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> String {
    value::timestamp(time)
}

/// Reads what [`timestamp`] wrote.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) where it is not a timestamp.
pub fn parse_timestamp(text: &str) -> Result<DateTime<Utc>> {
    match parse_canonical(text.as_bytes()) {
        Some(time) => Ok(time),
        None => value::parse_timestamp(text),
    }
}

fn parse_canonical(text: &[u8]) -> Option<DateTime<Utc>> {
    let &[y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', mi1, mi2, b':', s1, s2, b'.', ref micros @ .., b'Z'] =
        text
    else {
        return None;
    };
    let (micros, year) = (number(micros)?, number(&[y1, y2, y3, y4])?);
    if text.len() != 27 {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, number(&[mo1, mo2])?, number(&[d1, d2])?)?;
    Some(date.and_hms_micro_opt(number(&[h1, h2])?, number(&[mi1, mi2])?, number(&[s1, s2])?, micros)?.and_utc())
}

fn number(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0_u32, |sum, digit| digit.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parsers_agree() {
        for text in [
            "2026-11-21T09:30:00.123456Z",
            "0001-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
            "2024-02-29T00:00:00.000001Z",
        ] {
            let time = parse_canonical(text.as_bytes()).unwrap();
            assert_eq!(time, value::parse_timestamp(text).unwrap());
            assert_eq!(timestamp(time), text);
        }
    }

    #[test]
    fn other_forms_go_the_slow_way_and_nonsense_is_refused() {
        for text in ["2026-11-21T09:30:00Z", "2026-11-21T10:30:00.5+01:00", "2026-11-21T09:30:00.1234567Z"] {
            assert!(parse_canonical(text.as_bytes()).is_none() && parse_timestamp(text).is_ok(), "{text}");
        }
        for text in ["", "2026-13-21T09:30:00.000000Z", "2026-11-21T09:30:00.00000xZ", "yesterday"] {
            assert!(parse_timestamp(text).is_err(), "{text}");
        }
    }
}
