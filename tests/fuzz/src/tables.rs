//! Table logs and trace indexes.

use windrose_proto::id::TraceId;

use crate::store::segment::encode_index;
use crate::store::segment::trace_index::TraceIndexHead;
use crate::store::table_log::action::Action;
use crate::store::table_log::{decode, encode};

/// What is read of a commit is written so that it reads the same.
pub fn check_commit(commit: &[u8]) {
    let Some(mut actions) = decode(commit) else { return };
    let written = encode(&actions);
    let mut read = decode(&written).expect("our own writing");
    for actions in [&mut actions, &mut read] {
        for action in actions {
            if let Action::CommitInfo(info) = action {
                forget_fractions(info);
            }
        }
    }
    assert_eq!(read, actions);
}

/// Whatever others write about a commit may hold fractions, which are read to within rounding; nothing is made of them.
fn forget_fractions(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Number(number) if number.is_f64() => *value = serde_json::Value::Null,
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget_fractions),
        serde_json::Value::Object(members) => members.values_mut().for_each(forget_fractions),
        _ => {}
    }
}

/// The first byte chooses: an index of any bytes, or a good one with a flipped bit. An index that
/// passes its checksums answers for every trace within its bytes.
pub fn check_trace_index(input: &[u8]) {
    match input.split_first() {
        Some((0, index)) => drop(look_up(index, 0..64)),
        Some((_, plan)) => check_damaged_index(plan),
        None => {}
    }
}

/// Three bytes say which bit to flip, the others are the traces of the rows.
fn check_damaged_index(plan: &[u8]) {
    let Some((flip, rows)) = plan.split_first_chunk::<3>() else { return };
    let index = encode_index(rows.iter().map(|row| trace(u64::from(*row))));
    let expect: Vec<Vec<usize>> =
        (0..256).map(|id| (0..rows.len()).filter(|row| u64::from(rows[*row]) == id).collect()).collect();
    assert_eq!(look_up(&index, 0..256).expect("our own writing"), expect);

    let mut damaged = index;
    let place = usize::from(u16::from_le_bytes([flip[0], flip[1]])) % damaged.len();
    damaged[place] ^= 1 << (flip[2] % 8);
    assert!(look_up(&damaged, 0..256).is_none(), "bit {} of byte {place} is not noticed", flip[2] % 8);
}

/// The rows of each trace; `None` when damage is noticed.
fn look_up(index: &[u8], traces: std::ops::Range<u64>) -> Option<Vec<Vec<usize>>> {
    let head = TraceIndexHead::decode(index).ok()?;
    let mut found = Vec::new();
    for id in traces.map(trace) {
        let range = head.bucket_bytes(id);
        let bucket = index.get(range.start as usize..range.end as usize)?;
        let rows = head.rows_in_bucket(id, bucket).ok()?;
        assert!(rows.is_empty() || head.may_contain(id), "the filter denies a trace that has rows");
        found.push(rows.into_iter().flatten().collect());
    }
    Some(found)
}

fn trace(number: u64) -> TraceId {
    TraceId::new((u128::from(number) + 1).to_be_bytes()).expect("not zero")
}
