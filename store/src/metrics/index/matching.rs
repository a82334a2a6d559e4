//! Which series satisfy matchers.
//!
//! A matcher is answered from the values of its label: literals are looked up, prefixes and other
//! patterns are tried on each value once, never on each series.

use std::sync::Arc;

use hashbrown::HashMap;
use roaring::{MultiOps, RoaringBitmap};
use windrose_proto::metric::matcher::Pattern;
use windrose_proto::metric::{MatchOp, Matcher};

use super::{OWN, SeriesIndex, Slot};
use crate::metrics::symbols::{Symbol, Symbols};

impl SeriesIndex {
    /// The series that satisfy all of `matchers`.
    pub(in crate::metrics) fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut series: Option<RoaringBitmap> = None;
        let mut bases: Option<RoaringBitmap> = None;
        for matcher in matchers {
            let (found, so_far) = match OWN.iter().position(|name| *name == matcher.name) {
                Some(place) => (Self::of_values(&self.symbols, &self.own[place], matcher), &mut series),
                None => (self.bases_matching(matcher), &mut bases),
            };
            let all = match so_far.take() {
                None => found,
                Some(known) => known & found,
            };
            if all.is_empty() {
                return all;
            }
            *so_far = Some(all);
        }
        match (series, bases) {
            (None, None) => self.live.clone(),
            (Some(series), None) => series,
            (None, Some(bases)) => self.series_of(&bases).collect(),
            (Some(series), Some(bases)) => {
                let of_bases: u64 = bases.iter().map(|base| self.bases[base as usize].series.len() as u64).sum();
                if of_bases < series.len() {
                    self.series_of(&bases).filter(|slot| series.contains(*slot)).collect()
                } else {
                    let base_of = |slot: &Slot| bases.contains(self.key(*slot).base);
                    RoaringBitmap::from_sorted_iter(series.iter().filter(base_of)).unwrap_or_default()
                }
            }
        }
    }

    /// The series that satisfy all matchers of at least one of `sets`.
    pub(in crate::metrics) fn select_any(&self, sets: &[Vec<Matcher>]) -> RoaringBitmap {
        sets.iter().map(|set| self.select(set)).union()
    }

    fn series_of<'a>(&'a self, bases: &'a RoaringBitmap) -> impl Iterator<Item = Slot> + 'a {
        bases.iter().flat_map(|base| self.bases[base as usize].series.iter().copied())
    }

    fn bases_matching(&self, matcher: &Matcher) -> RoaringBitmap {
        let all = || RoaringBitmap::from_sorted_iter(0..self.bases.len() as u32).unwrap_or_default();
        let label = self.symbols.find(&matcher.name).and_then(|name| self.labels.get(&name));
        let Some(label) = label else {
            return if matcher.matches("") { all() } else { RoaringBitmap::new() };
        };
        if !matcher.matches("") {
            return Self::of_values(&self.symbols, &label.values, matcher);
        }
        // Absent counts as empty, so everything but the values that do not match.
        let refused = label.values.iter().filter(|(value, _)| !matcher.matches(self.text(**value)));
        all() - refused.map(|(_, bases)| bases).union()
    }

    /// The union of the postings of all matching values.
    fn of_values(symbols: &Symbols, values: &HashMap<Symbol, RoaringBitmap>, matcher: &Matcher) -> RoaringBitmap {
        let of_literal = |literal: &str| symbols.find(literal).and_then(|value| values.get(&value));
        match (matcher.op, matcher.pattern()) {
            (MatchOp::Equal, _) => of_literal(&matcher.value).cloned().unwrap_or_default(),
            (MatchOp::Regex, Some(Pattern::Literals(literals))) => {
                literals.iter().filter_map(|literal| of_literal(literal)).union()
            }
            (MatchOp::Regex | MatchOp::NotRegex | MatchOp::NotEqual, _) => {
                let matching = values.iter().filter(|(value, _)| matcher.matches(text(symbols, **value)));
                matching.map(|(_, postings)| postings).union()
            }
        }
    }
}

fn text(symbols: &Symbols, symbol: Symbol) -> &Arc<str> {
    symbols.text(symbol)
}
