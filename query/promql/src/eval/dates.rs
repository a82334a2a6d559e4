//! Calendar functions.

use super::civil::Civil;
use super::row::Row;
use super::stream::Sink;
use super::{Evaluated, Evaluator, Grid};
use crate::ast::Call;
use crate::value::is_absent;
use windrose_proto::metric::labels::Labels;

/// What a calendar function reads off a date, `None` for other functions.
pub(super) fn calendar_function(name: &str) -> Option<fn(&Civil) -> f64> {
    Some(match name {
        "day_of_month" => |civil| f64::from(civil.day),
        "day_of_week" => |civil| f64::from(civil.weekday),
        "day_of_year" => |civil| f64::from(civil.day_of_year),
        "days_in_month" => |civil| f64::from(civil.days_in_month()),
        "hour" => |civil| f64::from(civil.hour),
        "minute" => |civil| f64::from(civil.minute),
        "month" => |civil| f64::from(civil.month),
        "year" => |civil| civil.year as f64,
        _ => return None,
    })
}

impl Evaluator<'_> {
    /// Of the values of the argument, or without one of the evaluation time.
    pub(super) fn stream_calendar(
        &self,
        call: &Call,
        read: fn(&Civil) -> f64,
        grid: &Grid,
        sink: Sink<'_>,
    ) -> Evaluated<()> {
        let Some(arg) = call.args.first() else {
            let values = (0..grid.count).map(|step| read(&Civil::from_unix(grid.time(step).div_euclid(1000))));
            return sink(Row::new(Labels::default(), values.collect()));
        };
        let change = &mut |row: &mut Row| {
            row.drop_histograms();
            for value in row.values.iter_mut().filter(|value| !is_absent(**value)) {
                *value = read(&Civil::from_unix(*value as i64));
            }
            Ok(())
        };
        self.stream_renamed(arg, grid, change, sink)
    }
}
