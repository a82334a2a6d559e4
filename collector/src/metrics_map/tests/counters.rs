//! Differences: resets, late births, restarts, limits.

use proptest::prelude::*;
use windrose_proto::time::UnixNanos;

use super::{Scraped, codes, title};
use crate::metrics_map::Options;

fn rq(code: u16, value: u64) -> String {
    format!("envoy_cluster_upstream_rq{{response_code=\"{code}\",cluster_name=\"users\"}} {value}\n")
}

fn sidecar() -> Scraped {
    Scraped::new(&[("app", "orders"), ("kind", "sidecar")])
}

/// Pages ten seconds apart against the codes counted in each interval.
#[track_caller]
fn check(pages: &[(&str, &str)]) {
    let mut target = sidecar();
    for (number, (page, expect)) in pages.iter().enumerate() {
        let seen = target.page(1000 + 10 * number as u64, page);
        let found = seen.edges.first().map(|edge| codes(&edge.counts)).unwrap_or_default();
        assert_eq!(&found, expect, "page {number}");
    }
}

#[test]
fn the_first_page_yields_nothing() {
    check(&[(&rq(200, 50), ""), (&rq(200, 57), "200:7"), (&rq(200, 57), "")]);
}

#[test]
fn a_counter_that_went_down_counts_from_zero() {
    check(&[(&rq(200, 50), ""), (&rq(200, 7), "200:7"), (&rq(200, 9), "200:2")]);
}

#[test]
fn a_series_born_between_two_pages_counts_from_zero() {
    let both = format!("{}{}", rq(200, 51), rq(504, 2));
    check(&[(&rq(200, 50), ""), (&both, "200:1 504:2")]);
    // The page was there, the cluster was not.
    check(&[("envoy_server_live{} 1\n", ""), (&rq(200, 3), "200:3")]);
}

#[test]
fn a_series_that_vanished_goes_on_where_it_was() {
    check(&[(&rq(200, 50), ""), ("envoy_server_live{} 1\n", ""), (&rq(200, 53), "200:3")]);
}

#[test]
fn a_restart_is_recognised_by_the_start_time() {
    let page = |uptime: u64, value: u64| format!("envoy_server_uptime{{}} {uptime}\n{}", rq(200, value));
    // Ten seconds later the process is 4 s old: 60 requests are all new, although 60 > 50.
    check(&[(&page(100, 50), ""), (&page(4, 60), "200:60"), (&page(14, 61), "200:1")]);
    let started = |at: u64, value: u64| format!("process_start_time_seconds {at}\n{}", rq(200, value));
    check(&[(&started(500, 50), ""), (&started(1005, 60), "200:60"), (&started(1005, 61), "200:1")]);
    let mut target = sidecar();
    assert!(!target.page(1000, &page(100, 1)).proxy.restarted);
    assert!(!target.page(1010, &page(100, 1)).proxy.restarted, "uptime is set when statistics are flushed");
    assert!(target.page(1020, &page(1, 1)).proxy.restarted);
}

#[test]
fn numbers_that_are_no_counts_say_nothing() {
    let nan = "envoy_cluster_upstream_rq{response_code=\"200\",cluster_name=\"users\"} NaN\n";
    check(&[(&rq(200, 50), ""), (nan, ""), (&rq(200, 53), "200:3")]);
}

#[test]
fn the_interval_lies_between_the_two_scrapes() {
    let mut target = sidecar();
    let _first = target.page(1000, &rq(200, 1));
    let seen = target.page(1015, &rq(200, 2));
    let interval = seen.edges[0].interval;
    assert_eq!((interval.start(), interval.end()), (UnixNanos::from_secs(1000), UnixNanos::from_secs(1015)));
    // A clock that was set back gives an empty interval.
    let seen = target.page(900, &rq(200, 3));
    assert_eq!(seen.edges[0].interval.start(), seen.edges[0].interval.end());
}

#[test]
fn code_and_class_of_the_same_requests_count_once() {
    let page = |codes: u64, sub: u64| {
        format!(
            "envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"u\"}} {codes}\n\
             envoy_cluster_upstream_rq{{response_code_class=\"2xx\",cluster_name=\"u\"}} {codes}\n\
             envoy_cluster_upstream_rq_completed{{cluster_name=\"u\"}} {codes}\n\
             envoy_cluster_external_upstream_rq{{response_code=\"200\",cluster_name=\"u\"}} {sub}\n\
             envoy_cluster_zone_a_b_upstream_rq{{response_code=\"200\",cluster_name=\"u\"}} {sub}\n\
             envoy_cluster_canary_upstream_rq{{response_code=\"200\",cluster_name=\"u\"}} {sub}\n"
        )
    };
    check(&[(&page(10, 10), ""), (&page(15, 15), "200:5")]);
}

#[test]
fn without_codes_the_classes_count() {
    let page = |ok: u64, bad: u64| {
        format!(
            "envoy_cluster_upstream_rq_xx{{envoy_response_code_class=\"2\",envoy_cluster_name=\"u\"}} {ok}\n\
             envoy_cluster_upstream_rq_xx{{envoy_response_code_class=\"5\",envoy_cluster_name=\"u\"}} {bad}\n\
             envoy_cluster_upstream_rq_completed{{envoy_cluster_name=\"u\"}} {}\n",
            ok + bad
        )
    };
    check(&[(&page(10, 0), ""), (&page(15, 2), "2xx:5 5xx:2")]);
}

#[test]
fn requests_in_flight_are_not_aborted_ones() {
    let page = |total: u64, done: u64, active: u64| {
        format!(
            "envoy_cluster_upstream_rq_total{{cluster_name=\"u\"}} {total}\n\
             envoy_cluster_upstream_rq{{response_code=\"200\",cluster_name=\"u\"}} {done}\n\
             envoy_cluster_upstream_rq_active{{cluster_name=\"u\"}} {active}\n"
        )
    };
    // Three begun and running; then two of them answered and one given up by the caller, which is
    // believed when the next page says so too.
    let given_up = page(13, 12, 0);
    check(&[(&page(10, 10, 0), ""), (&page(13, 10, 3), ""), (&given_up, "200:2"), (&given_up, "0:1"), (&given_up, "")]);
    // Counted as begun while the page was written, and as answered only on the next one.
    check(&[(&page(10, 10, 0), ""), (&page(11, 10, 0), ""), (&page(11, 11, 0), "200:1"), (&page(11, 11, 0), "")]);
    // A busy proxy does that on two pages in a row.
    check(&[
        (&page(10, 10, 0), ""),
        (&page(12, 11, 0), "200:1"),
        (&page(14, 13, 0), "200:2"),
        (&page(14, 14, 0), "200:1"),
        (&page(14, 14, 0), ""),
    ]);
    // Running at the first page, answered later: nothing is aborted.
    check(&[(&page(10, 8, 2), ""), (&page(10, 10, 0), "200:2")]);
}

#[test]
fn histogram_buckets_are_differences_too() {
    let page = |le5: &str, le10: u64, all: u64, sum: u64| {
        let line = |le: &str, value: u64| {
            format!("envoy_cluster_upstream_rq_time_bucket{{cluster_name=\"u\",le=\"{le}\"}} {value}\n")
        };
        let first = le5.parse().map(|value| line("5", value)).unwrap_or_default();
        format!(
            "{first}{}{}envoy_cluster_upstream_rq_time_sum{{cluster_name=\"u\"}} {sum}\n\
             envoy_cluster_upstream_rq_time_count{{cluster_name=\"u\"}} {all}\n",
            line("10", le10),
            line("+Inf", all)
        )
    };
    let mut target = sidecar();
    let _first = target.page(1, &page("-", 2, 3, 40));
    // The bucket of 5 ms is left out as long as it is empty, and counts from zero when it appears.
    let seen = target.page(2, &page("1", 5, 8, 140));
    let duration = seen.edges[0].counts.duration.clone().unwrap();
    assert_eq!(duration.bounds, [0.005, 0.01]);
    assert_eq!(duration.counts, [1, 2, 2]);
    assert_eq!((duration.count, (duration.sum * 1e6).round()), (5, 100_000.0));
    // Reset: some buckets are lower, one happens to be equal; all count from zero.
    let seen = target.page(3, &page("1", 1, 2, 12));
    let duration = seen.edges[0].counts.duration.clone().unwrap();
    assert_eq!((duration.counts, duration.count), (vec![1, 0, 1], 2));
}

#[test]
fn series_beyond_the_limit_are_counted() {
    let mut target = sidecar();
    target.options = Options { series_max: 3, ..Options::default() };
    let page: String = (200..210).map(|code| rq(code, 1)).collect();
    let seen = target.page(1, &page);
    assert_eq!((seen.stats.mapped, seen.stats.over_limit, target.state.series_len()), (10, 7, 3));
}

#[test]
fn what_vanished_long_ago_is_forgotten() {
    let mut target = sidecar();
    for number in 0..600_u64 {
        let _seen =
            target.page(number, &format!("{}{}", rq(200, number), if number < 5 { rq(503, 1) } else { String::new() }));
    }
    assert_eq!(target.state.series_len(), 1);
    // The rest was kept: differences go on.
    let seen = target.page(601, &rq(200, 700));
    assert_eq!(codes(&seen.edges[0].counts), "200:101");
}

#[test]
fn a_series_told_twice_on_a_page_counts_once() {
    let twice = |value: u64| format!("{}{}", rq(200, value), rq(200, value));
    let mut target = sidecar();
    assert_eq!(target.page(1, &twice(1)).stats.duplicate, 1);
    assert_eq!(codes(&target.page(2, &twice(3)).edges[0].counts), "200:2");
}

#[test]
fn spans_are_counted_for_the_proxy_as_a_whole() {
    let page = |sent: u64| {
        format!("envoy_tracing_opentelemetry_spans_sent{{}} {sent}\nenvoy_tracing_opentelemetry_spans_dropped{{}} 0\n")
    };
    let mut target = sidecar();
    let _first = target.page(1, &page(5));
    let proxy = target.page(2, &page(12)).proxy;
    assert_eq!((proxy.spans_sent, proxy.spans_dropped), (Some(7), Some(0)));
}

proptest! {
    /// Whatever the counter does, what was counted is what was added, restarts included.
    #[test]
    fn differences_add_up(steps in prop::collection::vec((0_u64..1000, prop::bool::weighted(0.2)), 1..40)) {
        let mut target = sidecar();
        let (mut value, mut started, mut expected, mut found) = (0_u64, 500_u64, 0_i64, 0_i64);
        let page = |value: u64, started: u64| format!("process_start_time_seconds {started}\n{}", rq(200, value));
        let _first = target.page(1000, &page(value, started));
        for (number, (amount, restarts)) in steps.into_iter().enumerate() {
            let now = 1010 + 10 * number as u64;
            value = if restarts { amount } else { value + amount };
            started = if restarts { now } else { started };
            expected += amount as i64;
            found += target.page(now, &page(value, started)).edges.iter().map(|edge| edge.counts.answered).sum::<i64>();
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_page_is_survived(pages in prop::collection::vec("([a-z_{}=\",0-9. \n]|envoy_cluster_upstream_rq_total|istio_requests_total|kong_http_status){0,40}", 0..5)) {
        let mut target = sidecar();
        for (number, page) in pages.iter().enumerate() {
            let Ok(seen) = target.try_page(UnixNanos::from_secs(number as u64), page) else { continue };
            for edge in seen.edges {
                prop_assert!(!title(&edge).is_empty());
            }
        }
    }

    /// A page that is refused changes nothing about those around it.
    #[test]
    fn refused_pages_leave_no_trace(values in prop::collection::vec((0_u64..1000, any::<bool>(), any::<bool>()), 1..30)) {
        let (mut disturbed, mut quiet) = (sidecar(), sidecar());
        for (number, (value, is_refused, has_more)) in values.into_iter().enumerate() {
            let at = UnixNanos::from_secs(number as u64);
            let more = if has_more { rq(503, value) } else { String::new() };
            if is_refused {
                disturbed.try_page(at, &format!("{more}{}broken", rq(504, value))).unwrap_err();
            } else {
                let page = format!("{}{more}", rq(200, value));
                let (one, other) = (disturbed.page_at(at, &page), quiet.page_at(at, &page));
                prop_assert_eq!(one.edges, other.edges);
            }
        }
    }
}
