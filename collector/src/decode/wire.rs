//! A walk over the fields of a protobuf message that borrows everything and allocates nothing.
//!
//! A message is a sequence of (key varint, payload); key = field number << 3 | wire type. Accepts
//! exactly what `prost` accepts at this level, so that the two can be compared byte for byte.
//! Deprecated groups (wire types 3 and 4) are skipped as a whole, with bounded nesting.

/// Deepest nesting of groups skipped; prost's recursion limit.
const GROUP_DEPTH_MAX: usize = 100;

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("truncated: a field runs past the end of its message")]
    Truncated,
    #[error("a number is longer than 64 bits")]
    VarintTooLong,
    #[error("field key out of range")]
    BadKey,
    #[error("unknown wire type {0}")]
    BadWireType(u8),
    #[error("unbalanced or too deep group")]
    BadGroup,
    #[error("field {0} has the wrong wire type")]
    WrongType(u32),
}

/// The payload of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) payload: Payload<'a>,
}

impl<'a> Field<'a> {
    /// A length-delimited payload: string, bytes or message.
    pub(crate) fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.payload {
            Payload::Bytes(bytes) => Ok(bytes),
            Payload::Varint(_) | Payload::Fixed64(_) | Payload::Fixed32(_) => Err(WireError::WrongType(self.number)),
        }
    }

    /// A varint payload: integers, enums, booleans.
    pub(crate) fn varint(&self) -> Result<u64, WireError> {
        match self.payload {
            Payload::Varint(number) => Ok(number),
            Payload::Bytes(_) | Payload::Fixed64(_) | Payload::Fixed32(_) => Err(WireError::WrongType(self.number)),
        }
    }

    /// A `uint32`: protobuf keeps the low half of a longer number.
    pub(crate) fn uint32(&self) -> Result<u32, WireError> {
        self.varint().map(|number| number as u32)
    }

    /// An `int32` or an enum.
    pub(crate) fn int32(&self) -> Result<i32, WireError> {
        self.varint().map(|number| number as i32)
    }

    /// A `fixed64` payload; doubles are its bits.
    pub(crate) fn fixed64(&self) -> Result<u64, WireError> {
        match self.payload {
            Payload::Fixed64(number) => Ok(number),
            Payload::Bytes(_) | Payload::Varint(_) | Payload::Fixed32(_) => Err(WireError::WrongType(self.number)),
        }
    }

    /// A `fixed32` payload.
    pub(crate) fn fixed32(&self) -> Result<u32, WireError> {
        match self.payload {
            Payload::Fixed32(number) => Ok(number),
            Payload::Bytes(_) | Payload::Varint(_) | Payload::Fixed64(_) => Err(WireError::WrongType(self.number)),
        }
    }
}

/// Reads the fields of one message in wire order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next message of a list in which each stands behind its length; `None` at the end of the list.
    pub(crate) fn next_delimited(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        if self.rest.is_empty() { Ok(None) } else { self.length_delimited().map(Some) }
    }

    /// The next field; `None` at the end of the message.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (number, wire_type) = self.key()?;
            let payload = match wire_type {
                0 => Payload::Varint(self.varint()?),
                1 => Payload::Fixed64(u64::from_le_bytes(*self.take_array()?)),
                2 => Payload::Bytes(self.length_delimited()?),
                3 => {
                    self.skip_group(number)?;
                    continue;
                }
                5 => Payload::Fixed32(u32::from_le_bytes(*self.take_array()?)),
                4 => return Err(WireError::BadGroup),
                other => return Err(WireError::BadWireType(other)),
            };
            return Ok(Some(Field { number, payload }));
        }
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), WireError> {
        let key = u32::try_from(self.varint()?).map_err(|_| WireError::BadKey)?;
        let number = key >> 3;
        if number == 0 {
            return Err(WireError::BadKey);
        }
        Ok((number, (key & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        // Field keys, short lengths and enums: nearly every varint of a span is one byte.
        if let Some((first, rest)) = self.rest.split_first()
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0u64;
        for (place, byte) in self.rest.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                // The tenth byte holds bit 63 only.
                if place == 9 && *byte > 1 {
                    return Err(WireError::VarintTooLong);
                }
                self.rest = &self.rest[place + 1..];
                return Ok(number);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Truncated } else { WireError::VarintTooLong })
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn length_delimited(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Skips to the end of the group that `number` has just opened. A counter would not do: the
    /// end must carry the number of the start.
    fn skip_group(&mut self, number: u32) -> Result<(), WireError> {
        let mut open = vec![number];
        while let Some(innermost) = open.last().copied() {
            let (number, wire_type) = self.key()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.take_array::<8>()?),
                2 => drop(self.length_delimited()?),
                3 if open.len() < GROUP_DEPTH_MAX => open.push(number),
                4 if number == innermost => drop(open.pop()),
                3 | 4 => return Err(WireError::BadGroup),
                5 => drop(self.take_array::<4>()?),
                other => return Err(WireError::BadWireType(other)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, Fields, Payload, WireError};

    #[track_caller]
    fn check(message: &[u8], expect: &Result<Vec<(u32, Payload<'_>)>, WireError>) {
        let mut fields = Fields::of(message);
        let mut seen = Vec::new();
        let result = loop {
            match fields.next() {
                Ok(Some(Field { number, payload })) => seen.push((number, payload)),
                Ok(None) => break Ok(seen),
                Err(error) => break Err(error),
            }
        };
        assert_eq!(result, *expect);
    }

    #[test]
    fn each_wire_type() {
        check(&[], &Ok(vec![]));
        check(&[0x08, 0x96, 0x01], &Ok(vec![(1, Payload::Varint(150))]));
        check(&[0x12, 0x02, b'h', b'i'], &Ok(vec![(2, Payload::Bytes(b"hi"))]));
        check(&[0x39, 1, 0, 0, 0, 0, 0, 0, 0], &Ok(vec![(7, Payload::Fixed64(1))]));
        check(&[0x85, 0x01, 1, 3, 0, 0], &Ok(vec![(16, Payload::Fixed32(0x301))]));
        let max = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        check(&max, &Ok(vec![(1, Payload::Varint(u64::MAX))]));
    }

    #[test]
    fn groups_are_skipped_with_what_they_hold() {
        check(&[0x0b, 0x10, 0x01, 0x1b, 0x1c, 0x0c, 0x10, 0x07], &Ok(vec![(2, Payload::Varint(7))]));
        check(&[0x0b, 0x14], &Err(WireError::BadGroup));
        check(&[0x0c], &Err(WireError::BadGroup));
        check(&[0x0b], &Err(WireError::Truncated));
        check(&[0x0b; 10_000], &Err(WireError::BadGroup));
    }

    #[test]
    fn malformed() {
        check(&[0x12, 0x05, b'h'], &Err(WireError::Truncated));
        check(&[0x08], &Err(WireError::Truncated));
        check(&[0x08, 0x80], &Err(WireError::Truncated));
        check(&[0x09, 1, 2, 3], &Err(WireError::Truncated));
        check(&[0x0d, 1], &Err(WireError::Truncated));
        check(&[0x00], &Err(WireError::BadKey));
        check(&[0xff, 0xff, 0xff, 0xff, 0x7f], &Err(WireError::BadKey));
        check(&[0x0e], &Err(WireError::BadWireType(6)));
        check(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &Err(WireError::VarintTooLong));
        check(&[0x08; 1], &Err(WireError::Truncated));
        // A length that would overflow when added to a position.
        check(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &Err(WireError::Truncated));
    }
}
