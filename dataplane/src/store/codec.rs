//! Numbers and byte strings as files and Redis have them: little-endian, variable-length where most are small.
//!
//! Reading never panics: what is too short or too large is `None`.

use std::sync::Arc;

use bytes::Bytes;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Length, then bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes from the front of a buffer whose slices it shares.
pub(super) struct Reader {
    data: Bytes,
    at: usize,
}

impl Reader {
    pub(super) fn new(data: Bytes) -> Self {
        Self { data, at: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.data.len() - self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub(super) fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length)?;
        if end > self.data.len() {
            return None;
        }
        let taken = self.data.slice(self.at..end);
        self.at = end;
        Some(taken)
    }

    /// Of a number whose order of bytes is another.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let array = self.data.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(array)
    }

    /// All that was not taken.
    pub(super) fn rest(self) -> Bytes {
        self.data.slice(self.at..)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn varint32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let length = self.varint()?.try_into().ok()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Option<Arc<str>> {
        Some(std::str::from_utf8(&self.bytes()?).ok()?.into())
    }
}

/// Whether so few packed bytes are worth the unpacking.
pub(super) fn compression_pays(raw_bytes: usize, packed_bytes: usize) -> bool {
    packed_bytes < raw_bytes - raw_bytes / 16
}

/// Appends the checksum of what is there.
pub(super) fn put_crc(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What stands before a checksum at the end, if it is right.
pub(super) fn checked(data: &Bytes) -> Option<Bytes> {
    let end = data.len().checked_sub(4)?;
    let crc = u32::from_le_bytes(data[end..].try_into().ok()?);
    (crc32c::crc32c(&data[..end]) == crc).then(|| data.slice(..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let numbers = [0, 127, 128, 300, 1 << 35, u64::MAX];
        let mut out = Vec::new();
        for number in numbers {
            put_varint(&mut out, number);
        }
        put_bytes(&mut out, "\u{e4}".as_bytes());
        put_bytes(&mut out, b"\xff");
        out.extend_from_slice(b"rest");
        let mut reader = Reader::new(out.into());
        for number in numbers {
            assert_eq!(reader.varint(), Some(number));
        }
        assert_eq!(reader.text().as_deref(), Some("\u{e4}"));
        assert_eq!(reader.text(), None, "no UTF-8");
        assert_eq!(&reader.rest()[..], b"rest");
    }

    #[test]
    fn what_is_short_or_endless_is_none() {
        let reader = |bytes: &'static [u8]| Reader::new(Bytes::from_static(bytes));
        assert_eq!(reader(b"").varint(), None);
        assert_eq!(reader(b"\x80").varint(), None);
        assert_eq!(reader(&[0x80; 11]).varint(), None);
        assert_eq!(reader(b"\x80\x80\x80\x80\x10").varint32(), None);
        assert_eq!(reader(b"\x03ab").bytes(), None);
        assert_eq!(reader(b"ab").array::<3>(), None);
    }
}
