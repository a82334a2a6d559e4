//! The values of a chunk; see [`super`] for how and why.

use windrose_proto::metric::{STALE_MARKER_BITS, is_stale_marker};

use super::super::tokens::{self, Reader};
use super::{make_room, push_difference};

/// Largest exponent tried: nanoseconds in seconds.
pub(in super::super) const EXPONENT_MAX: u8 = 9;

pub(in super::super) const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Integers below this are exact as floats.
const INTEGER_MAX: f64 = (1_u64 << 53) as f64;

/// Raw exceptions a chunk may have before it is worth making it one of XORed floats.
const EXCEPTIONS_FREE: u16 = 4;

/// How the values of a chunk are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Mode {
    /// As differences of `value * 10^exponent`.
    Decimal(u8),
    /// As XOR with the value before: zeros are runs, else a byte with the number of leading zero
    /// bytes (high half) and of bytes that follow (low half), then those.
    Xor,
}

/// The values of an open chunk.
#[derive(Clone, Debug)]
pub(super) struct ValueStream {
    bytes: Vec<u8>,
    /// The last number: an integer, or the bits of a float.
    number: i64,
    last: f64,
    exceptions: u16,
    mode: Mode,
    run: u8,
}

impl ValueStream {
    pub(super) fn new(value: f64) -> Self {
        let mode = match smallest_exponent(value, 0) {
            Some(exponent) => Mode::Decimal(exponent),
            None if is_stale_marker(value) => Mode::Decimal(0),
            None => Mode::Xor,
        };
        let mut stream = Self { bytes: Vec::new(), number: 0, last: value, exceptions: 0, mode, run: 0 };
        stream.push_as_is(value);
        stream
    }

    pub(super) const fn last(&self) -> f64 {
        self.last
    }

    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends a value; the chunk has `count` with it.
    pub(super) fn push(&mut self, value: f64, count: u16) {
        self.last = value;
        if let Mode::Decimal(exponent) = self.mode
            && to_integer(value, exponent).is_none()
            && !is_stale_marker(value)
        {
            self.adapt(value, exponent, count);
        }
        self.push_as_is(value);
    }

    /// Changes the mode so that `value` fits, when that is worth it.
    fn adapt(&mut self, value: f64, exponent: u8, count: u16) {
        if let Some(wanted) = smallest_exponent(value, exponent + 1) {
            let (finer, exceptions) = self.rewritten(Mode::Decimal(wanted), count - 1);
            if exceptions <= self.exceptions {
                *self = finer;
                return;
            }
        }
        self.exceptions += 1;
        if self.exceptions > EXCEPTIONS_FREE.max(count / 8) {
            *self = self.rewritten(Mode::Xor, count - 1).0;
        }
    }

    /// The same values in another mode, and how many of them are exceptions there.
    fn rewritten(&self, mode: Mode, count: u16) -> (Self, u16) {
        let mut values = Vec::with_capacity(usize::from(count));
        decode(self.mode, &self.bytes, usize::from(count), &mut values);
        let mut other = Self { bytes: Vec::new(), number: 0, last: self.last, exceptions: 0, mode, run: 0 };
        for value in values {
            if let Mode::Decimal(exponent) = mode
                && to_integer(value, exponent).is_none()
                && !is_stale_marker(value)
            {
                other.exceptions += 1;
            }
            other.push_as_is(value);
        }
        let exceptions = other.exceptions;
        (other, exceptions)
    }

    fn push_as_is(&mut self, value: f64) {
        match self.mode {
            Mode::Decimal(exponent) => match to_integer(value, exponent) {
                Some(number) => {
                    push_difference(&mut self.bytes, &mut self.run, number - self.number);
                    self.number = number;
                }
                None => self.push_exception(value),
            },
            Mode::Xor => self.push_xor(value),
        }
    }

    fn push_exception(&mut self, value: f64) {
        make_room(&mut self.bytes);
        self.run = 0;
        if is_stale_marker(value) {
            self.bytes.push(tokens::STALE as u8);
        } else {
            self.bytes.push(tokens::RAW as u8);
            self.bytes.extend(value.to_bits().to_le_bytes());
        }
    }

    fn push_xor(&mut self, value: f64) {
        let bits = value.to_bits();
        let difference = bits ^ self.number as u64;
        self.number = bits as i64;
        if difference == 0 {
            push_difference(&mut self.bytes, &mut self.run, 0);
            return;
        }
        make_room(&mut self.bytes);
        self.run = 0;
        let leading = difference.leading_zeros() / 8;
        let len = 8 - leading - difference.trailing_zeros() / 8;
        self.bytes.push((leading << 4 | len) as u8);
        let from = leading as usize;
        self.bytes.extend_from_slice(&difference.to_be_bytes()[from..from + len as usize]);
    }

    /// Takes the other mode when it is smaller, at the end.
    pub(super) fn shrink(&mut self, count: u16) {
        let might_be_smaller = self.bytes.len() > 4 * usize::from(count);
        if might_be_smaller && self.mode != Mode::Xor {
            let (other, _) = self.rewritten(Mode::Xor, count);
            if other.bytes.len() < self.bytes.len() {
                *self = other;
            }
        }
    }
}

/// `value * 10^exponent` when that is an integer which gives `value` back, bit for bit.
#[inline]
pub(in super::super) fn to_integer(value: f64, exponent: u8) -> Option<i64> {
    let power = POWERS[usize::from(exponent)];
    let number = if exponent == 0 { value.trunc() } else { (value * power).round() };
    if number.abs() >= INTEGER_MAX || number.is_nan() {
        return None;
    }
    let integer = number as i64;
    // Back through the integer: it has no minus zero.
    ((integer as f64 / power).to_bits() == value.to_bits()).then_some(integer)
}

fn smallest_exponent(value: f64, from: u8) -> Option<u8> {
    if !value.is_finite() {
        return None;
    }
    (from..=EXPONENT_MAX).find(|exponent| to_integer(value, *exponent).is_some())
}

/// Appends `count` values.
pub(super) fn decode(mode: Mode, bytes: &[u8], count: usize, values: &mut Vec<f64>) {
    let end = values.len() + count;
    values.reserve(count);
    match mode {
        Mode::Decimal(0) => decode_decimal(bytes, end, values, |number| number as f64),
        Mode::Decimal(exponent) => {
            let power = POWERS[usize::from(exponent)];
            decode_decimal(bytes, end, values, |number| number as f64 / power);
        }
        Mode::Xor => decode_xor(bytes, end, values),
    }
    debug_assert_eq!(values.len(), end, "a chunk holds what was appended");
}

#[inline]
fn decode_decimal(bytes: &[u8], end: usize, values: &mut Vec<f64>, to_float: impl Fn(i64) -> f64) {
    let mut reader = Reader::new(bytes);
    let (mut number, mut value) = (0_i64, 0_f64);
    while values.len() < end {
        let Some(token) = reader.varint() else { break };
        match token {
            tokens::RUN => {
                let run = usize::from(reader.byte().unwrap_or(0));
                values.resize(end.min(values.len() + run), value);
                continue;
            }
            tokens::STALE => values.push(f64::from_bits(STALE_MARKER_BITS)),
            tokens::RAW => values.push(f64::from_bits(reader.raw().unwrap_or_default())),
            token => {
                number = number.wrapping_add(tokens::difference(token));
                value = to_float(number);
                values.push(value);
            }
        }
    }
}

fn decode_xor(bytes: &[u8], end: usize, values: &mut Vec<f64>) {
    let mut reader = Reader::new(bytes);
    let mut bits = 0_u64;
    while values.len() < end {
        let Some(head) = reader.byte() else { break };
        if u64::from(head) == tokens::RUN {
            let run = usize::from(reader.byte().unwrap_or(0));
            values.resize(end.min(values.len() + run), f64::from_bits(bits));
            continue;
        }
        let (from, len) = (usize::from(head >> 4), usize::from(head & 0xf));
        let mut difference = [0; 8];
        let Some(place) = difference.get_mut(from..from + len) else { break };
        let Some(taken) = reader.take(len) else { break };
        place.copy_from_slice(taken);
        bits ^= u64::from_be_bytes(difference);
        values.push(f64::from_bits(bits));
    }
}
