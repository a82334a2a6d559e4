//! Results in the JSON of the HTTP API, byte for byte. Written by hand: numbers keep Go's spelling, and a large
//! matrix goes straight into one buffer.

use crate::annotations::{Annotations, MAX_SHOWN};
use crate::histogram::FloatHistogram;
use crate::number::{write_api_timestamp, write_api_value};
use crate::value::{QueryResult, Sample, Series};
use windrose_proto::metric::labels::Labels;

/// The whole body of a successful answer to `query` or `query_range`.
pub fn success_body(result: &QueryResult, annotations: &Annotations, query: &str) -> String {
    let mut out = String::with_capacity(256);
    out.push_str("{\"status\":\"success\",\"data\":");
    write_result(&mut out, result);
    let (warnings, infos) = annotations.to_strings(query, MAX_SHOWN);
    write_list(&mut out, "warnings", &warnings);
    write_list(&mut out, "infos", &infos);
    out.push('}');
    out
}

/// `,"name":["..",".."]`, or nothing for an empty list.
pub fn write_list(out: &mut String, name: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":[");
    for (index, text) in texts.iter().enumerate() {
        separate(out, index);
        write_string(out, text);
    }
    out.push(']');
}

/// `{"resultType":..,"result":..}`
pub fn write_result(out: &mut String, result: &QueryResult) {
    match result {
        QueryResult::Vector(samples, time) => {
            out.push_str("{\"resultType\":\"vector\",\"result\":[");
            for (index, (labels, sample)) in samples.iter().enumerate() {
                separate(out, index);
                out.push_str("{\"metric\":");
                write_labels(out, labels);
                out.push_str(if matches!(sample, Sample::Float(_)) { ",\"value\":" } else { ",\"histogram\":" });
                write_point(out, *time, sample);
                out.push('}');
            }
            out.push_str("]}");
        }
        QueryResult::Matrix(series) => {
            out.push_str("{\"resultType\":\"matrix\",\"result\":[");
            for (index, series) in series.iter().enumerate() {
                separate(out, index);
                write_series(out, series);
            }
            out.push_str("]}");
        }
        QueryResult::Scalar(value, time) => {
            out.push_str("{\"resultType\":\"scalar\",\"result\":");
            write_point(out, *time, &Sample::Float(*value));
            out.push('}');
        }
        QueryResult::String(text, time) => {
            out.push_str("{\"resultType\":\"string\",\"result\":[");
            write_api_timestamp(out, *time);
            out.push(',');
            write_string(out, text);
            out.push_str("]}");
        }
    }
}

fn write_series(out: &mut String, series: &Series) {
    out.push_str("{\"metric\":");
    write_labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.push_str(",\"values\":[");
        for (index, (time, value)) in series.floats.iter().enumerate() {
            separate(out, index);
            write_float_point(out, *time, *value);
        }
        out.push(']');
    }
    if !series.histograms.is_empty() {
        out.push_str(",\"histograms\":[");
        for (index, (time, histogram)) in series.histograms.iter().enumerate() {
            separate(out, index);
            write_histogram_point(out, *time, histogram);
        }
        out.push(']');
    }
    out.push('}');
}

fn write_point(out: &mut String, time: i64, sample: &Sample) {
    match sample {
        Sample::Float(value) => write_float_point(out, time, *value),
        Sample::Histogram(histogram) => write_histogram_point(out, time, histogram),
    }
}

fn write_float_point(out: &mut String, time: i64, value: f64) {
    out.push('[');
    write_api_timestamp(out, time);
    out.push_str(",\"");
    write_api_value(out, value);
    out.push_str("\"]");
}

fn write_histogram_point(out: &mut String, time: i64, histogram: &FloatHistogram) {
    out.push('[');
    write_api_timestamp(out, time);
    out.push(',');
    write_histogram(out, histogram);
    out.push(']');
}

fn write_histogram(out: &mut String, histogram: &FloatHistogram) {
    out.push_str("{\"count\":\"");
    write_api_value(out, histogram.count);
    out.push_str("\",\"sum\":\"");
    write_api_value(out, histogram.sum);
    out.push('"');
    let mut first = true;
    for bucket in histogram.all_buckets() {
        if bucket.count == 0.0 {
            continue;
        }
        out.push_str(if first { ",\"buckets\":[[" } else { ",[" });
        first = false;
        let boundary = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => '0',
            (true, false) => '1',
            (false, false) => '2',
            (true, true) => '3',
        };
        out.push(boundary);
        for value in [bucket.lower, bucket.upper, bucket.count] {
            out.push_str(",\"");
            write_api_value(out, value);
            out.push('"');
        }
        out.push(']');
    }
    if !first {
        out.push(']');
    }
    out.push('}');
}

/// `{"name":"value",..}` in label order.
pub fn write_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (index, label) in labels.iter().enumerate() {
        separate(out, index);
        write_string(out, &label.name);
        out.push(':');
        write_string(out, &label.value);
    }
    out.push('}');
}

/// A JSON string; like Go without HTML escaping.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => {
                out.push_str(&text[plain..at]);
                out.push_str("\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
                }
                plain = at + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escape);
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn separate(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: &QueryResult) -> String {
        success_body(result, &Annotations::default(), "")
    }

    #[test]
    fn every_result_type_has_the_shape_of_the_api() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a\"b")]);
        let vector = QueryResult::Vector(vec![(labels.clone(), Sample::Float(1e-7))], 10_500);
        assert_eq!(
            text(&vector),
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a\"b"},"value":[10.500,"1e-07"]}]}}"#
        );
        let floats = vec![(0, 1.0), (1000, f64::NAN)];
        let matrix = QueryResult::Matrix(vec![Series { labels, floats, histograms: Vec::new() }]);
        assert_eq!(
            text(&matrix),
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"a\"b"},"values":[[0,"1"],[1,"NaN"]]}]}}"#
        );
        assert_eq!(
            text(&QueryResult::Scalar(2.0, 4_000)),
            r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#
        );
        assert_eq!(
            text(&QueryResult::String("s\n".to_owned(), 0)),
            r#"{"status":"success","data":{"resultType":"string","result":[0,"s\n"]}}"#
        );
        assert_eq!(
            text(&QueryResult::Matrix(Vec::new())),
            r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
        );
    }
}
