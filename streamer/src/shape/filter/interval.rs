//! `interval`: months, days and microseconds, which are different things until they are compared
//! (`src/backend/utils/adt/timestamp.c`). Infinite intervals (Postgres 17) are not known here.

use std::fmt::Write as _;

use super::datetime::DAY;

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) months: i32,
    pub(super) days: i32,
    pub(super) micros: i64,
}

const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;
const DAYS_PER_MONTH: i32 = 30;

/// To whole microseconds, as `TSROUND` does.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000_000.0).round_ties_even() / 1_000_000.0
}

#[expect(clippy::cast_possible_truncation, reason = "the range was looked at; C truncates here too")]
fn truncated(value: f64) -> Option<i32> {
    (value.is_finite() && value >= f64::from(i32::MIN) && value <= f64::from(i32::MAX)).then_some(value as i32)
}

#[expect(clippy::cast_possible_truncation, reason = "the range was looked at")]
#[expect(clippy::cast_precision_loss, reason = "2^63 is exact")]
fn whole(value: f64) -> Option<i64> {
    (value.is_finite() && value >= i64::MIN as f64 && value < -(i64::MIN as f64)).then_some(value as i64)
}

impl Interval {
    /// What comparisons see: a month is 30 days, a day 24 hours.
    pub(super) fn length(self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * i128::from(DAY) + i128::from(self.micros)
    }

    pub(super) fn add(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    pub(super) fn subtract(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_sub(other.months)?,
            days: self.days.checked_sub(other.days)?,
            micros: self.micros.checked_sub(other.micros)?,
        })
    }

    pub(super) fn negated(self) -> Option<Self> {
        Self { months: 0, days: 0, micros: 0 }.subtract(self)
    }

    /// `interval_mul`
    #[expect(clippy::cast_precision_loss, reason = "Postgres computes in doubles too")]
    pub(super) fn multiply(self, factor: f64) -> Option<Self> {
        let months = truncated(f64::from(self.months) * factor)?;
        let days = truncated(f64::from(self.days) * factor)?;
        let month_rest = rounded((f64::from(self.months) * factor - f64::from(months)) * f64::from(DAYS_PER_MONTH));
        let day_rest = f64::from(self.days) * factor - f64::from(days) + month_rest - month_rest.trunc();
        Self::spread(months, days, month_rest, day_rest, self.micros as f64 * factor)
    }

    /// `interval_div`
    #[expect(clippy::cast_precision_loss, reason = "Postgres computes in doubles too")]
    pub(super) fn divide(self, by: f64) -> Option<Self> {
        let months = truncated(f64::from(self.months) / by)?;
        let days = truncated(f64::from(self.days) / by)?;
        let month_rest = rounded((f64::from(self.months) / by - f64::from(months)) * f64::from(DAYS_PER_MONTH));
        let day_rest = f64::from(self.days) / by - f64::from(days) + month_rest - month_rest.trunc();
        Self::spread(months, days, month_rest, day_rest, self.micros as f64 / by)
    }

    /// What is left of months goes to days, what is left of days to seconds.
    fn spread(months: i32, days: i32, month_rest: f64, day_rest: f64, micros: f64) -> Option<Self> {
        let mut days = days;
        let mut seconds = rounded(day_rest * 86_400.0);
        if seconds.abs() >= 86_400.0 {
            let more = (seconds / 86_400.0).trunc();
            days = days.checked_add(truncated(more)?)?;
            seconds -= more * 86_400.0;
        }
        days = days.checked_add(truncated(month_rest)?)?;
        let micros = whole((micros + seconds * 1_000_000.0).round_ties_even())?;
        Some(Self { months, days, micros })
    }

    /// `justify_hours`
    pub(super) fn justify_hours(self) -> Option<Self> {
        let mut days = self.days.checked_add(i32::try_from(self.micros / DAY).ok()?)?;
        let mut micros = self.micros % DAY;
        if days > 0 && micros < 0 {
            micros += DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= DAY;
            days += 1;
        }
        Some(Self { months: self.months, days, micros })
    }

    /// `justify_days`
    pub(super) fn justify_days(self) -> Option<Self> {
        let mut months = self.months.checked_add(self.days / DAYS_PER_MONTH)?;
        let mut days = self.days % DAYS_PER_MONTH;
        if months > 0 && days < 0 {
            days += DAYS_PER_MONTH;
            months -= 1;
        } else if months < 0 && days > 0 {
            days -= DAYS_PER_MONTH;
            months += 1;
        }
        Some(Self { months, days, micros: self.micros })
    }

    /// `justify_interval`
    pub(super) fn justify(self) -> Option<Self> {
        let Self { mut months, mut days, mut micros } = self;
        // Days first where their sign is that of the time, so that what is added cannot overflow.
        if (days > 0 && micros > 0) || (days < 0 && micros < 0) {
            months = months.checked_add(days / DAYS_PER_MONTH)?;
            days %= DAYS_PER_MONTH;
        }
        days = days.checked_add(i32::try_from(micros / DAY).ok()?)?;
        micros %= DAY;
        months = months.checked_add(days / DAYS_PER_MONTH)?;
        days %= DAYS_PER_MONTH;
        if months > 0 && (days < 0 || (days == 0 && micros < 0)) {
            days += DAYS_PER_MONTH;
            months -= 1;
        } else if months < 0 && (days > 0 || (days == 0 && micros > 0)) {
            days -= DAYS_PER_MONTH;
            months += 1;
        }
        if days > 0 && micros < 0 {
            micros += DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= DAY;
            days += 1;
        }
        Some(Self { months, days, micros })
    }

    /// Reads `P1Y2M3DT4H5M6.7S` and `1 year -2 months 3 days 04:05:06.7`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        match text.strip_prefix('P') {
            Some(rest) => Self::read_iso(rest),
            None => Self::read_words(text),
        }
    }

    fn read_iso(text: &str) -> Option<Self> {
        let mut sum = Sum::default();
        let (mut rest, mut time) = (text, false);
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix('T') {
                if time || behind.is_empty() {
                    return None;
                }
                (time, rest) = (true, behind);
                continue;
            }
            let (number, behind) = Number::read(rest)?;
            let unit = behind.chars().next()?;
            rest = &behind[unit.len_utf8()..];
            let unit = match (unit, time) {
                ('Y', false) => "year",
                ('M', false) => "month",
                ('W', false) => "week",
                ('D', false) => "day",
                ('H', true) => "hour",
                ('M', true) => "minute",
                ('S', true) => "second",
                _ => return None,
            };
            sum.add(number, unit)?;
        }
        Some(sum.value)
    }

    fn read_words(text: &str) -> Option<Self> {
        let mut sum = Sum::default();
        let mut rest = text;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let (number, behind) = Number::read(rest)?;
            if behind.starts_with(':') {
                let end = rest.find(' ').unwrap_or(rest.len());
                sum.time(&rest[..end])?;
                rest = rest[end..].trim_start_matches(' ');
                continue;
            }
            let behind = behind.trim_start_matches(' ');
            let length = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = match behind[..length].to_ascii_lowercase().as_str() {
                "year" | "years" | "yr" | "yrs" | "y" => "year",
                "month" | "months" | "mon" | "mons" => "month",
                "week" | "weeks" | "w" => "week",
                "day" | "days" | "d" => "day",
                "hour" | "hours" | "hr" | "hrs" | "h" => "hour",
                "minute" | "minutes" | "min" | "mins" => "minute",
                "second" | "seconds" | "sec" | "secs" | "s" => "second",
                _ => return None,
            };
            sum.add(number, unit)?;
            let behind = &behind[length..];
            rest = behind.trim_start_matches(' ');
            if rest.len() == behind.len() && !rest.is_empty() {
                return None;
            }
        }
        Some(sum.value)
    }

    /// As `IntervalStyle = iso_8601` shows it.
    pub(super) fn show(self) -> String {
        if self.months == 0 && self.days == 0 && self.micros == 0 {
            return "PT0S".to_owned();
        }
        let mut text = "P".to_owned();
        let mut push = |value: i64, unit: char| {
            if value != 0 {
                text.push_str(&value.to_string());
                text.push(unit);
            }
        };
        push(i64::from(self.months / 12), 'Y');
        push(i64::from(self.months % 12), 'M');
        push(i64::from(self.days), 'D');
        if self.micros != 0 {
            text.push('T');
            let mut push = |value: i64, unit: char| {
                if value != 0 {
                    text.push_str(&value.to_string());
                    text.push(unit);
                }
            };
            push(self.micros / HOUR, 'H');
            push(self.micros / MINUTE % 60, 'M');
            let seconds = self.micros % MINUTE;
            if seconds != 0 {
                let sign = if seconds < 0 { "-" } else { "" };
                let (whole, fraction) = ((seconds / SECOND).abs(), (seconds % SECOND).abs());
                let _ = write!(text, "{sign}{whole}");
                if fraction != 0 {
                    text.push('.');
                    text.push_str(format!("{fraction:06}").trim_end_matches('0'));
                }
                text.push('S');
            }
        }
        text
    }
}

/// A number with at most six digits behind the point.
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    whole: i64,
    micros: i64,
    fractional: bool,
}

impl Number {
    fn read(text: &str) -> Option<(Self, &str)> {
        let (negative, body) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let length = body.bytes().take_while(u8::is_ascii_digit).count();
        let whole: i64 = body.get(..length).filter(|digits| !digits.is_empty())?.parse().ok()?;
        let rest = &body[length..];
        let Some(behind) = rest.strip_prefix('.') else {
            return Some((Self { negative, whole, micros: 0, fractional: false }, rest));
        };
        let length = behind.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=6).contains(&length) {
            return None;
        }
        let digits: i64 = behind[..length].parse().ok()?;
        let micros = digits * 10_i64.pow(6 - u32::try_from(length).ok()?);
        Some((Self { negative, whole, micros, fractional: true }, &behind[length..]))
    }
}

/// What was read so far, and which units: none may come twice.
struct Sum {
    value: Interval,
    seen: Vec<&'static str>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { value: Interval { months: 0, days: 0, micros: 0 }, seen: Vec::new() }
    }
}

impl Sum {
    fn see(&mut self, unit: &'static str) -> Option<()> {
        let new = !self.seen.contains(&unit);
        self.seen.push(unit);
        new.then_some(())
    }

    fn add(&mut self, number: Number, unit: &'static str) -> Option<()> {
        self.see(unit)?;
        // Fractions of a day or month spill into smaller units by rules of their own.
        if number.fractional && unit != "second" {
            return None;
        }
        let whole = if number.negative { -number.whole } else { number.whole };
        let narrow = i32::try_from(whole).ok();
        let value = &mut self.value;
        match unit {
            "year" => value.months = value.months.checked_add(narrow?.checked_mul(12)?)?,
            "month" => value.months = value.months.checked_add(narrow?)?,
            "week" => value.days = value.days.checked_add(narrow?.checked_mul(7)?)?,
            "day" => value.days = value.days.checked_add(narrow?)?,
            _ => {
                let size = match unit {
                    "hour" => HOUR,
                    "minute" => MINUTE,
                    _ => SECOND,
                };
                let fraction = if number.negative { -number.micros } else { number.micros };
                value.micros = value.micros.checked_add(whole.checked_mul(size)?.checked_add(fraction)?)?;
            }
        }
        Some(())
    }

    /// `[-]04:05[:06[.7]]`
    fn time(&mut self, text: &str) -> Option<()> {
        for unit in ["hour", "minute", "second"] {
            self.see(unit)?;
        }
        let negative = text.starts_with('-');
        let body = text.trim_start_matches(['-', '+']);
        let mut parts = body.split(':');
        let hours: i64 = parts.next()?.parse().ok()?;
        let minutes: i64 = parts.next().filter(|minutes| minutes.len() == 2)?.parse().ok()?;
        let (seconds, micros) = match parts.next() {
            Some(seconds) => match Number::read(seconds)? {
                (number, "") if !seconds.starts_with(['-', '+']) => (number.whole, number.micros),
                _ => return None,
            },
            None => (0, 0),
        };
        if parts.next().is_some() || minutes > 59 || seconds > 59 {
            return None;
        }
        let time = hours.checked_mul(HOUR)?.checked_add(minutes * MINUTE + seconds * SECOND + micros)?;
        self.value.micros = self.value.micros.checked_add(if negative { -time } else { time })?;
        Some(())
    }
}
