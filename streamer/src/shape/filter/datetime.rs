//! Dates and times as Postgres counts them (days and microseconds from 2000-01-01), and the part of its input formats that
//! means the same under every setting: ISO 8601. Everything else (`31/1/2024`, `today`, named zones) is refused.

use super::interval::Interval;

/// What a date or timestamp says when it has no end; the smallest number is its opposite.
pub(super) const DATE_INFINITY: i32 = i32::MAX;
pub(super) const DATE_MINUS_INFINITY: i32 = i32::MIN;
pub(super) const INFINITY: i64 = i64::MAX;
pub(super) const MINUS_INFINITY: i64 = i64::MIN;

pub(super) const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;
const MINUTE: i64 = 60_000_000;
const SECOND: i64 = 1_000_000;

/// 4714-11-24 BC, the first day that Postgres has.
const FIRST_DAY: i64 = -2_451_545;
/// The day after the last date, 5874897-12-31.
const END_DAY: i64 = 2_147_483_494 - 2_451_545;
/// The day after the last timestamp's, 294276-12-31.
const TIMESTAMP_END_DAY: i64 = 109_203_528 - 2_451_545;
const FIRST_TIMESTAMP: i64 = FIRST_DAY * DAY;
const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;

/// A zone is at most so many hours from Greenwich (`MAX_TZDISP_HOUR`).
const MAX_ZONE_HOURS: i64 = 15;

/// A day of the proleptic Gregorian calendar as days from 2000-01-01 (Howard Hinnant's `days_from_civil`).
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 730_425
}

/// Year, month and day.
pub(super) fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 730_425;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A date, if Postgres has it.
pub(super) fn date(days: i64) -> Option<i32> {
    if (FIRST_DAY..END_DAY).contains(&days) { i32::try_from(days).ok() } else { None }
}

/// A timestamp, if Postgres has it.
pub(super) fn timestamp(micros: i64) -> Option<i64> {
    (FIRST_TIMESTAMP..END_TIMESTAMP).contains(&micros).then_some(micros)
}

/// Midnight of a date; none beyond the last timestamp.
pub(super) fn midnight(date: i32) -> Option<i64> {
    match date {
        DATE_INFINITY => Some(INFINITY),
        DATE_MINUS_INFINITY => Some(MINUS_INFINITY),
        _ if i64::from(date) >= TIMESTAMP_END_DAY => None,
        _ => Some(i64::from(date) * DAY),
    }
}

/// The day of a timestamp.
pub(super) fn day_of(micros: i64) -> Option<i32> {
    match micros {
        INFINITY => Some(DATE_INFINITY),
        MINUS_INFINITY => Some(DATE_MINUS_INFINITY),
        _ => i32::try_from(micros.div_euclid(DAY)).ok(),
    }
}

/// Months first, the day kept within its month, then days, then time.
pub(super) fn add_interval(micros: i64, interval: Interval) -> Option<i64> {
    if micros == INFINITY || micros == MINUS_INFINITY {
        return Some(micros);
    }
    let (mut days, time) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    if interval.months != 0 {
        let (year, month, day) = civil(days);
        let months = year * 12 + month - 1 + i64::from(interval.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        days = day_number(year, month, day.min(month_length(year, month)));
        timestamp(days.checked_mul(DAY)?.checked_add(time)?)?;
    }
    days += i64::from(interval.days);
    let there = timestamp(days.checked_mul(DAY)?.checked_add(time)?)?;
    timestamp(there.checked_add(interval.micros)?)
}

/// Reads from the front of a text.
struct Scanner<'a>(&'a str);

impl Scanner<'_> {
    fn take(&mut self, sign: char) -> bool {
        match self.0.strip_prefix(sign) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn spaces(&mut self) -> bool {
        let rest = self.0.trim_start_matches(' ');
        let some = rest.len() < self.0.len();
        self.0 = rest;
        some
    }

    /// A number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        if length < least || length > most {
            return None;
        }
        let value = self.0[..length].parse().ok();
        self.0 = &self.0[length..];
        value
    }

    /// Behind a point, to microseconds.
    fn fraction(&mut self) -> Option<i64> {
        if !self.take('.') {
            return Some(0);
        }
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let value = self.number(1, 6)?;
        Some(value * 10_i64.pow(6 - u32::try_from(length).ok()?))
    }

    /// `2024-01-31`; the year that `BC` at the end would make of it is told apart later.
    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (year, month, day) = if length == 8 {
            let all = self.number(8, 8)?;
            (all / 10_000, all / 100 % 100, all % 100)
        } else {
            let year = self.number(4, 7)?;
            if !self.take('-') {
                return None;
            }
            let month = self.number(1, 2)?;
            if !self.take('-') {
                return None;
            }
            (year, month, self.number(1, 2)?)
        };
        (year > 0 && (1..=12).contains(&month) && day >= 1).then_some((year, month, day))
    }

    /// `12:34[:56[.789]]`
    fn time(&mut self) -> Option<i64> {
        let hours = self.number(1, 2)?;
        if !self.take(':') {
            return None;
        }
        let minutes = self.number(2, 2)?;
        let (seconds, fraction) = if self.take(':') { (self.number(2, 2)?, self.fraction()?) } else { (0, 0) };
        if hours > 24 || minutes > 59 || seconds > 59 {
            return None;
        }
        let time = hours * HOUR + minutes * MINUTE + seconds * SECOND + fraction;
        (time <= DAY).then_some(time)
    }

    /// `Z`, `UTC`, `+02`, `+02:00`, `-0330`: microseconds east.
    fn zone(&mut self) -> Option<i64> {
        if let Some(word) =
            self.0.get(..3).filter(|word| word.eq_ignore_ascii_case("utc") || word.eq_ignore_ascii_case("gmt"))
        {
            self.0 = &self.0[word.len()..];
            return Some(0);
        }
        if self.take('Z') || self.take('z') {
            return Some(0);
        }
        let west = if self.take('-') {
            true
        } else if self.take('+') {
            false
        } else {
            return None;
        };
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (hours, minutes, seconds) = if length == 4 {
            let all = self.number(4, 4)?;
            (all / 100, all % 100, 0)
        } else {
            let hours = self.number(1, 2)?;
            let minutes = if self.take(':') { self.number(2, 2)? } else { 0 };
            let seconds = if self.take(':') { self.number(2, 2)? } else { 0 };
            (hours, minutes, seconds)
        };
        if hours > MAX_ZONE_HOURS || minutes > 59 || seconds > 59 {
            return None;
        }
        let east = hours * HOUR + minutes * MINUTE + seconds * SECOND;
        Some(if west { -east } else { east })
    }

    /// ` BC` or ` AD` at the end; then nothing more.
    fn era(&mut self) -> Option<bool> {
        if self.0.is_empty() {
            return Some(false);
        }
        if !self.spaces() {
            return None;
        }
        let before = self.0.eq_ignore_ascii_case("bc");
        (before || self.0.eq_ignore_ascii_case("ad")).then_some(before)
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
}

fn days((year, month, day): (i64, i64, i64), before: bool) -> Option<i64> {
    let year = if before { 1 - year } else { year };
    (day <= month_length(year, month)).then(|| day_number(year, month, day))
}

/// Reads a date.
pub(super) fn read_date(text: &str) -> Option<i32> {
    let text = trimmed(text);
    match text.to_ascii_lowercase().as_str() {
        "infinity" => return Some(DATE_INFINITY),
        "-infinity" => return Some(DATE_MINUS_INFINITY),
        "epoch" => return date(-10_957),
        _ => {}
    }
    let mut scanner = Scanner(text);
    let civil = scanner.date()?;
    // A time behind the date is dropped, as Postgres drops it: clients send whole timestamps for dates.
    if scanner.take('T')
        || (scanner.0.starts_with(' ') && scanner.0.trim_start().starts_with(|c: char| c.is_ascii_digit()))
    {
        scanner.spaces();
        scanner.time()?;
        let _ = scanner.zone();
    }
    date(days(civil, scanner.era()?)?)
}

/// Reads a time of day.
pub(super) fn read_time(text: &str) -> Option<i64> {
    let mut scanner = Scanner(trimmed(text));
    let time = scanner.time()?;
    scanner.0.is_empty().then_some(time)
}

/// Reads a timestamp; the zone counts only `with_zone`, and is UTC if there is none.
pub(super) fn read_timestamp(text: &str, with_zone: bool) -> Option<i64> {
    let text = trimmed(text);
    match text.to_ascii_lowercase().as_str() {
        "infinity" => return Some(INFINITY),
        "-infinity" => return Some(MINUS_INFINITY),
        "epoch" => return Some(-10_957 * DAY),
        _ => {}
    }
    let mut scanner = Scanner(text);
    let civil = scanner.date()?;
    let (mut time, mut zone) = (0, 0);
    let behind = scanner.0.trim_start_matches(' ');
    if scanner.take('T') || scanner.take('t') || behind.starts_with(|c: char| c.is_ascii_digit()) {
        scanner.spaces();
        time = scanner.time()?;
        let before_zone = scanner.0;
        scanner.spaces();
        match scanner.zone() {
            Some(east) => zone = east,
            None => scanner.0 = before_zone,
        }
    }
    let days = days(civil, scanner.era()?)?;
    if !(FIRST_DAY..TIMESTAMP_END_DAY).contains(&days) {
        return None;
    }
    let local = days.checked_mul(DAY)?.checked_add(time)?;
    timestamp(if with_zone { local.checked_sub(zone)? } else { local })
}

/// Whether a zone's name is one of those of UTC. (A number would be a POSIX zone, with its sign the other way round.)
pub(super) fn is_utc(zone: &str) -> bool {
    ["utc", "gmt", "z"].iter().any(|name| zone.eq_ignore_ascii_case(name))
}

/// `2024-01-31`, `0044-03-15 BC`
pub(super) fn show_date(date: i32) -> String {
    match date {
        DATE_INFINITY => "infinity".to_owned(),
        DATE_MINUS_INFINITY => "-infinity".to_owned(),
        _ => {
            let (year, month, day) = civil(i64::from(date));
            let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
            format!("{shown:04}-{month:02}-{day:02}{era}")
        }
    }
}

/// `12:34:56.789`
pub(super) fn show_time(time: i64) -> String {
    let fraction = time % SECOND;
    let whole = format!("{:02}:{:02}:{:02}", time / HOUR, time / MINUTE % 60, time / SECOND % 60);
    if fraction == 0 { whole } else { format!("{whole}.{}", format!("{fraction:06}").trim_end_matches('0')) }
}

/// `2024-01-31 12:34:56`, with `+00` behind it if it has a zone.
pub(super) fn show_timestamp(micros: i64, with_zone: bool) -> String {
    match micros {
        INFINITY => "infinity".to_owned(),
        MINUS_INFINITY => "-infinity".to_owned(),
        _ => {
            let (year, month, day) = civil(micros.div_euclid(DAY));
            let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
            let time = show_time(micros.rem_euclid(DAY));
            let zone = if with_zone { "+00" } else { "" };
            format!("{shown:04}-{month:02}-{day:02} {time}{zone}{era}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_calendar_agree() {
        assert_eq!(day_number(2000, 1, 1), 0);
        assert_eq!(day_number(1970, 1, 1), -10_957);
        assert_eq!(day_number(-4713, 11, 24), FIRST_DAY);
        for days in (FIRST_DAY..2_000_000).step_by(17) {
            let (year, month, day) = civil(days);
            assert_eq!(day_number(year, month, day), days);
        }
    }
}
