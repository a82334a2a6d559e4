use proptest::prelude::*;
use windrose_proto::metric::{Labels, MatchOp, Matcher};

use super::*;

fn labels(text: &str) -> Labels {
    Labels::from_pairs(text.split(' ').filter_map(|pair| pair.split_once('=')))
}

fn index(series: &[&str]) -> SeriesIndex {
    let mut index = SeriesIndex::default();
    series.iter().for_each(|text| {
        index.insert(&labels(text));
    });
    index
}

const SERIES: [&str; 6] = [
    "__name__=up job=envoy pod=a",
    "__name__=up job=envoy pod=b",
    "__name__=requests_bucket job=envoy pod=a le=1",
    "__name__=requests_bucket job=envoy pod=a le=+Inf",
    "__name__=requests_bucket job=kong le=1",
    "le=weird",
];

#[track_caller]
fn check(matchers: &[(&str, MatchOp, &str)], expect: &[u32]) {
    let index = index(&SERIES);
    let matchers: Vec<Matcher> =
        matchers.iter().map(|(name, op, value)| Matcher::new(*op, *name, *value).unwrap()).collect();
    assert_eq!(index.select(&matchers).iter().collect::<Vec<_>>(), expect, "{matchers:?}");
}

#[test]
fn matchers_select() {
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    check(&[("__name__", Equal, "up")], &[0, 1]);
    check(&[("__name__", Equal, "up"), ("pod", Equal, "b")], &[1]);
    check(&[("job", Equal, "envoy")], &[0, 1, 2, 3]);
    check(&[("pod", Equal, "")], &[4, 5]);
    check(&[("pod", NotEqual, "")], &[0, 1, 2, 3]);
    check(&[("pod", NotEqual, "a")], &[1, 4, 5]);
    check(&[("le", Regex, ".*")], &[0, 1, 2, 3, 4, 5]);
    check(&[("le", Regex, ".+"), ("job", Regex, "kong|envoy")], &[2, 3, 4]);
    check(&[("__name__", Equal, "")], &[5]);
    check(&[("__name__", Regex, "requests_.*"), ("le", NotEqual, "1")], &[3]);
    check(&[("job", NotRegex, "env.*"), ("__name__", NotEqual, "")], &[4]);
    check(&[("nothing", Equal, "x")], &[]);
    check(&[("nothing", NotEqual, "x"), ("job", Regex, "k.n.")], &[4]);
    check(&[], &[0, 1, 2, 3, 4, 5]);
}

#[test]
fn labels_come_back_sorted_and_compare_like_label_sets() {
    let index = index(&SERIES);
    for (slot, text) in (0..).zip(SERIES) {
        assert_eq!(index.labels(slot), labels(text));
        assert_eq!(index.find(labels(text).iter().map(|label| (&*label.name, &*label.value))), Some(slot));
        for (other, other_text) in (0..).zip(SERIES) {
            assert_eq!(index.compare(slot, other), labels(text).compare(&labels(other_text)), "{text} {other_text}");
        }
    }
    assert_eq!(index.find([("job", "envoy")]), None);
    assert_eq!(index.labels(4).get("job"), "kong");
    assert_eq!(index.labels(4).get("pod"), "");
}

fn sorted(mut texts: Vec<&Arc<str>>) -> Vec<&str> {
    texts.sort();
    texts.into_iter().map(|text| &**text).collect()
}

#[test]
fn listings_follow_the_selection() {
    let index = index(&SERIES);
    assert_eq!(sorted(index.names(None)), ["__name__", "job", "le", "pod"]);
    let kong = index.select(&[Matcher::equal("job", "kong")]);
    assert_eq!(sorted(index.names(Some(&kong))), ["__name__", "job", "le"]);
    assert_eq!(sorted(index.values("__name__", Some(&kong))), ["requests_bucket"]);
    assert_eq!(sorted(index.values("pod", None)), ["a", "b"]);
    assert_eq!(sorted(index.values("pod", Some(&kong))), [] as [&str; 0]);
    let mut counts: Vec<_> = index
        .series_per_value()
        .flat_map(|(name, values)| values.into_iter().map(move |value| (name, value)))
        .collect();
    counts.sort_unstable();
    assert!(counts.contains(&("job", ("envoy", 4))) && counts.contains(&("le", ("1", 2))), "{counts:?}");
}

#[test]
fn a_rebuild_keeps_slots_and_frees_what_expired() {
    let mut index = index(&SERIES);
    index.rebuild(&[1, 4].into_iter().collect());
    assert_eq!(index.len(), 4);
    assert_eq!(index.labels(3), labels(SERIES[3]));
    assert_eq!(index.select(&[Matcher::equal("job", "kong")]).len(), 0);
    assert_eq!(sorted(index.values("job", None)), ["envoy"]);
    assert_eq!(index.insert(&labels("__name__=new")), 1);
    assert_eq!(index.insert(&labels("__name__=newer")), 4);
    assert_eq!(index.insert(&labels("__name__=newest")), 6);
    assert_eq!(index.labels(4), labels("__name__=newer"));
}

fn label_set() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let names = prop::sample::select(&["__name__", "le", "a", "z", "A"][..]);
    let values = prop::sample::select(&["", "x", "y", "xx"][..]);
    prop::collection::vec((names, values), 0..6)
}

proptest! {
    /// The index says what trying every series says.
    #[test]
    fn selection_is_that_of_a_scan(
        sets in prop::collection::vec(label_set(), 0..30),
        expired in prop::collection::vec(0_u32..30, 0..5),
        matchers in prop::collection::vec(
            (0_usize..4, prop::sample::select(&["__name__", "le", "a", "z", "none"][..]),
             prop::sample::select(&["", "x", "x|y", "x.*", "x.+", ".*", ".+", "(x|y)?"][..])),
            0..4,
        ),
    ) {
        let mut index = SeriesIndex::default();
        for set in sets {
            let labels = Labels::from_pairs(set);
            if index.find(labels.iter().map(|label| (&*label.name, &*label.value))).is_none() {
                index.insert(&labels);
            }
        }
        let expired: RoaringBitmap = expired.into_iter().filter(|slot| index.live().contains(*slot)).collect();
        if !expired.is_empty() {
            index.rebuild(&expired);
        }
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
        let matchers: Vec<Matcher> =
            matchers.into_iter().map(|(op, name, value)| Matcher::new(ops[op], name, value).unwrap()).collect();
        let scan: Vec<u32> = index
            .live()
            .iter()
            .filter(|slot| matchers.iter().all(|matcher| matcher.matches(index.labels(*slot).get(&matcher.name))))
            .collect();
        prop_assert_eq!(index.select(&matchers).iter().collect::<Vec<_>>(), scan);
    }
}
