//! Values with units: times, rates, sizes and shares, exact to the last digit that is written.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::decode::{Decode, wrong};
use crate::problems::Problems;
use crate::yaml::{Node, Value};

/// A time as declared, in nanoseconds: `35ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time(pub u64);

/// A rate as declared, in bits per second: `1Gbit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(pub u64);

/// A size as declared, in bytes: `64KiB`, or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

/// A part of the whole as declared, in billionths: `0.1%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(pub u32);

/// A number as declared, finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Number(pub f64);

/// Units of one kind, the largest first: how each is spelled, and how many of the smallest it is.
type Units = [(&'static str, u64)];

const TIMES: &Units = &[("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];
const RATES: &Units = &[
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1000),
    ("bit", 1),
];
const SIZES: &Units = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];
/// One percent, in billionths.
const PERCENT: u64 = 10_000_000;

/// An hour: longer than anything a link is asked for, short enough that sums of times never overflow.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// A terabit a second.
const FASTEST_BPS: u64 = 1_000_000_000_000;
/// A link's memory is a computer's.
const LARGEST_BYTES: u64 = 1 << 40;

impl Share {
    pub const WHOLE: Self = Self(1_000_000_000);

    /// From 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }
}

impl Time {
    /// As a file says it.
    ///
    /// # Errors
    /// What was expected.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        Self::parse(text)
    }

    /// # Errors
    /// What was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        // What tc and people write besides.
        let text = text.replace('µ', "u");
        let time = measured(&text, TIMES).map(Self);
        time.filter(|time| time.0 <= LONGEST_NS)
            .ok_or("a time such as 35ms, 500us or 1.5s, at most an hour")
    }
}

impl Rate {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.strip_suffix("/s").unwrap_or(text);
        let rate = measured(text, RATES).map(Self);
        rate.filter(|rate| (1..=FASTEST_BPS).contains(&rate.0))
            .ok_or("a rate in bits per second, such as 1Gbit, 2.5Mbit or 64kbit")
    }
}

impl Size {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let size = measured(text, SIZES).or_else(|| text.parse().ok()).map(Self);
        size.filter(|size| size.0 <= LARGEST_BYTES)
            .ok_or("a size such as 64KiB, 1.5MB or 100000B")
    }
}

impl Share {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let percent = text.strip_suffix('%').map(str::trim_end);
        let share = match percent {
            Some(number) => decimal(number, PERCENT),
            // Nothing is nothing, whatever the unit.
            None => text.parse().ok().filter(|number: &u64| *number == 0),
        };
        share
            .and_then(|share| u32::try_from(share).ok())
            .filter(|share| *share <= Self::WHOLE.0)
            .map(Self)
            .ok_or("a percentage from 0% to 100%, such as 0.1%")
    }
}

/// `<number><unit>`, in the smallest unit; None unless it is a whole number of those.
fn measured(text: &str, units: &Units) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|it: char| !it.is_ascii_digit() && it != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let (_, scale) = units
        .iter()
        .find(|(spelled, _)| spelled.eq_ignore_ascii_case(unit))?;
    decimal(number, *scale)
}

/// A decimal number times `scale`, exactly.
fn decimal(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) || number.len() > 24 {
        return None;
    }
    let places = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = number.checked_mul(scale.into())?;
    (scaled % places == 0).then(|| u64::try_from(scaled / places).ok())?
}

/// In the largest unit that divides it.
fn written(value: u64, units: &Units) -> String {
    let fits = |scale: u64| value >= scale && value.is_multiple_of(scale);
    let (unit, scale) = units
        .iter()
        .find(|(_, scale)| fits(*scale))
        .unwrap_or(&units[units.len() - 1]);
    format!("{}{unit}", value / scale)
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&match self.0 {
            0 => "0s".to_owned(),
            time => written(time, TIMES),
        })
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&written(self.0, RATES))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&written(self.0, SIZES))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (u64::from(self.0) / PERCENT, u64::from(self.0) % PERCENT);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let fraction = format!("{rest:07}");
        write!(f, "{whole}.{}%", fraction.trim_end_matches('0'))
    }
}

macro_rules! values {
    ($($name:ident: $pattern:literal, $description:literal;)+) => {$(
        impl Decode for $name {
            fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
                let parsed = match &node.value {
                    Value::Scalar(text) => Self::parse(text),
                    _ => Self::parse(""),
                };
                parsed.map_err(|expected| wrong(node, at, expected, problems)).ok()
            }

            fn schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": ["string", "number"], "pattern": $pattern, "description": $description })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

values! {
    Time: "^[0-9.]+ ?([mun\u{b5}]?[sS]|[MUN][sS])$", "a time with its unit: s, ms, us or ns";
    Rate: "^[0-9.]+ ?[kKmMgG]?[bB][iI][tT](/s)?$", "a rate with its unit: bit, kbit, Mbit or Gbit per second";
    Size: "^[0-9.]+ ?([kKmMgG][iI]?)?[bB]?$", "a number of bytes, or one with its unit: B, KB, KiB, MB, MiB, GB or GiB";
    Share: "^([0-9.]+ ?%|0)$", "a percentage";
}

impl Decode for Number {
    fn decode(node: &Node, at: &str, problems: &mut Problems) -> Option<Self> {
        let number = match &node.value {
            Value::Scalar(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        };
        if number.is_none() {
            wrong(node, at, "a number", problems);
        }
        number.map(Self)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Rate, Share, Size, Time};

    #[test]
    fn values_are_read_exactly_or_not_at_all() {
        let time = |text: &str| Time::parse(text).ok().map(|it| it.0);
        assert_eq!(time("35ms"), Some(35_000_000));
        assert_eq!(time("1.5s"), Some(1_500_000_000));
        assert_eq!(time("0.25 µs"), Some(250));
        assert_eq!(time("7NS"), Some(7));
        for wrong in [
            "", "35", "ms", "-1ms", "0.5ns", "1e3s", "1..5s", ".5s", "1.s", "2h", "3601s",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        let rate = |text: &str| Rate::parse(text).ok().map(|it| it.0);
        assert_eq!(rate("1Gbit"), Some(1_000_000_000));
        assert_eq!(rate("2.5mbit/s"), Some(2_500_000));
        for wrong in ["0bit", "1Gbps", "1GB", "1000", "1001Gbit"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
        let size = |text: &str| Size::parse(text).ok().map(|it| it.0);
        assert_eq!(size("64KiB"), Some(65536));
        assert_eq!(size("1.5MB"), Some(1_500_000));
        assert_eq!(size("3000"), Some(3000));
        assert_eq!(size("1.5"), None);
        let share = |text: &str| Share::parse(text).ok().map(|it| it.0);
        assert_eq!(share("0.1%"), Some(1_000_000));
        assert_eq!(share("100%"), Some(1_000_000_000));
        assert_eq!(share("0"), Some(0));
        for wrong in ["0.1", "101%", "100.0000001%", "0.00000001%", "-1%", "1"] {
            assert_eq!(share(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(
            time in 0..=super::LONGEST_NS,
            rate in 1..=super::FASTEST_BPS,
            size in 0..=super::LARGEST_BYTES,
            share in 0..=Share::WHOLE.0,
            round in 0_u32..12,
        ) {
            // Round numbers take other units.
            let trim = |value: u64| value / 10_u64.pow(round) * 10_u64.pow(round);
            for time in [time, trim(time)] {
                prop_assert_eq!(Time::parse(&Time(time).to_string()), Ok(Time(time)));
            }
            for rate in [rate, trim(rate).max(1)] {
                prop_assert_eq!(Rate::parse(&Rate(rate).to_string()), Ok(Rate(rate)));
            }
            for size in [size, trim(size)] {
                prop_assert_eq!(Size::parse(&Size(size).to_string()), Ok(Size(size)));
            }
            prop_assert_eq!(Share::parse(&Share(share).to_string()), Ok(Share(share)));
        }
    }
}
