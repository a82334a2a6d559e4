//! Unix seconds to the proleptic Gregorian calendar in UTC, for any i64.

/// A date and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    /// 0 is Sunday.
    pub(crate) weekday: u32,
    /// From 1.
    pub(crate) day_of_year: u32,
}

impl Civil {
    pub(crate) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let rest = seconds.rem_euclid(86_400) as u32;
        // Days are counted from 0000-03-01, so that a leap day ends its year; an era is 400 years.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_shifted_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_shifted_year + 2) / 153;
        let day = (day_of_shifted_year - (153 * shifted_month + 2) / 5 + 1) as u32;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let before: u32 = (1..month).map(|earlier| days_in_month(year, earlier)).sum();
        Self {
            year,
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year: before + day,
        }
    }

    pub(crate) fn days_in_month(&self) -> u32 {
        days_in_month(self.year, self.month)
    }
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        let check = |seconds, year, month, day, weekday, day_of_year| {
            let civil = Civil::from_unix(seconds);
            let got = (civil.year, civil.month, civil.day, civil.weekday, civil.day_of_year);
            assert_eq!(got, (year, month, day, weekday, day_of_year), "{seconds}");
        };
        check(0, 1970, 1, 1, 4, 1);
        check(-1, 1969, 12, 31, 3, 365);
        check(1_136_239_445, 2006, 1, 2, 1, 2);
        check(1_483_191_420, 2016, 12, 31, 6, 366);
        check(951_782_400, 2000, 2, 29, 2, 60);
    }
}
