//! Numbers and byte strings as the queue's files have them: little-endian, variable-length where most are small.
//!
//! Reading never panics: what is too short or too large is `None`.

use bytes::Bytes;

pub(in crate::store) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Length, then bytes.
pub(in crate::store) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes from the front of a buffer whose slices it shares.
pub(in crate::store) struct Reader {
    data: Bytes,
    at: usize,
}

impl Reader {
    pub(in crate::store) fn new(data: Bytes) -> Self {
        Self { data, at: 0 }
    }

    pub(in crate::store) fn left(&self) -> usize {
        self.data.len() - self.at
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub(in crate::store) fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length)?;
        if end > self.data.len() {
            return None;
        }
        let taken = self.data.slice(self.at..end);
        self.at = end;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let array = self.data.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(array)
    }

    pub(in crate::store) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(in crate::store) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(in crate::store) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(in crate::store) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(in crate::store) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(in crate::store) fn varint(&mut self) -> Option<u64> {
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

    pub(in crate::store) fn varint32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    pub(in crate::store) fn bytes(&mut self) -> Option<Bytes> {
        let length = self.varint()?.try_into().ok()?;
        self.take(length)
    }
}

/// Appends the checksum of what is there.
pub(in crate::store) fn put_crc(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// What stands before a checksum at the end, if it is right.
pub(in crate::store) fn checked(data: &Bytes) -> Option<Bytes> {
    let end = data.len().checked_sub(4)?;
    let crc = u32::from_le_bytes(data[end..].try_into().ok()?);
    (crc32c::crc32c(&data[..end]) == crc).then(|| data.slice(..end))
}
