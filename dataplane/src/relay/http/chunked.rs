//! Bodies in chunks (RFC 9112 section 7.1), strictly. Pure.
//!
//! Extensions and trailers are bounded, looked at, and dropped. A line ends with CR LF and nothing else.

use bytes::{Bytes, BytesMut};

use super::head::is_token_byte;

/// One line of a size and its extensions, or of a trailer.
const LINE_BYTES_MAX: usize = 4 * 1024;
/// Extensions and trailers of one body: they cost work and carry nothing.
const OVERHEAD_BYTES_MAX: usize = 16 * 1024;
/// Digits of a 64-bit size.
const SIZE_DIGITS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    End,
}

#[derive(Debug)]
pub struct Decoder {
    state: State,
    overhead_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Data(Bytes),
    /// Nothing more can be said without more bytes.
    NeedsMore,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Size,
            overhead_bytes: 0,
        }
    }
}

impl Decoder {
    /// Takes what it can from the front of the buffer. After [`Step::End`] the buffer begins with what follows the body.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = take_line(buffer)? else {
                        return Ok(Step::NeedsMore);
                    };
                    self.state = match self.size(&line)? {
                        0 => State::Trailer,
                        size => State::Data(size),
                    };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::NeedsMore);
                    }
                    let taken = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let left = left - taken as u64;
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    return Ok(Step::Data(buffer.split_to(taken).freeze()));
                }
                State::DataEnd => {
                    let end = &buffer[..buffer.len().min(2)];
                    if !b"\r\n".starts_with(end) {
                        return Err(Malformed);
                    }
                    if end.len() < 2 {
                        return Ok(Step::NeedsMore);
                    }
                    let _ = buffer.split_to(2);
                    self.state = State::Size;
                }
                State::Trailer => {
                    let Some(line) = take_line(buffer)? else {
                        return Ok(Step::NeedsMore);
                    };
                    if line.is_empty() {
                        self.state = State::End;
                    } else {
                        self.add_overhead(line.len())?;
                        check_trailer(&line)?;
                    }
                }
                State::End => return Ok(Step::End),
            }
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<u64, Malformed> {
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let (size, extensions) = line.split_at(digits);
        if digits == 0 || digits > SIZE_DIGITS_MAX {
            return Err(Malformed);
        }
        let is_extension = extensions.trim_ascii_start().starts_with(b";")
            && extensions
                .iter()
                .all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte));
        if !extensions.is_empty() && !is_extension {
            return Err(Malformed);
        }
        self.add_overhead(extensions.len())?;
        std::str::from_utf8(size)
            .ok()
            .and_then(|size| u64::from_str_radix(size, 16).ok())
            .ok_or(Malformed)
    }

    fn add_overhead(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.overhead_bytes += bytes;
        if self.overhead_bytes > OVERHEAD_BYTES_MAX {
            return Err(Malformed);
        }
        Ok(())
    }
}

/// A line without its end. `None`: it has not come yet.
fn take_line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    match memchr::memchr(b'\n', &buffer[..buffer.len().min(LINE_BYTES_MAX)]) {
        Some(end) => {
            let mut line = buffer.split_to(end + 1);
            line.truncate(end);
            if line.last() != Some(&b'\r') {
                return Err(Malformed);
            }
            line.truncate(end - 1);
            if line.contains(&b'\r') {
                return Err(Malformed);
            }
            Ok(Some(line))
        }
        None if buffer.len() >= LINE_BYTES_MAX => Err(Malformed),
        None => Ok(None),
    }
}

fn check_trailer(line: &[u8]) -> Result<(), Malformed> {
    let colon = memchr::memchr(b':', line).ok_or(Malformed)?;
    let (name, value) = line.split_at(colon);
    let is_right = !name.is_empty()
        && name.iter().all(|byte| is_token_byte(*byte))
        && value
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control());
    if is_right { Ok(()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The body, and what is left behind it.
    type Decoded = (Vec<u8>, Vec<u8>);

    /// Decodes bytes that arrive in pieces. `None`: the body did not end.
    fn decode(pieces: &[&[u8]]) -> Result<Option<Decoded>, Malformed> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut buffer)? {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::NeedsMore => break,
                    Step::End => break,
                }
            }
        }
        Ok((decoder.state == State::End).then(|| (body, buffer.to_vec())))
    }

    #[test]
    fn well_formed() {
        for (text, body, rest) in [
            ("0\r\n\r\n", "", ""),
            ("3\r\nabc\r\n0\r\n\r\nGET", "abc", "GET"),
            ("A;x=\"y\"\r\n0123456789\r\n00\r\n\r\n", "0123456789", ""),
            ("1 ; a\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", "x", ""),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", ""),
        ] {
            let expected = Ok(Some((body.as_bytes().to_vec(), rest.as_bytes().to_vec())));
            assert_eq!(decode(&[text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn malformed() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r\n",
            "1;a\rb\r\n",
            "1;a\0\r\n",
            "1 a\r\n",
            "1_0\r\n",
            "10000000000000000\r\n",
            "00000000000000001\r\n",
            "1\r\nxy",
            "1\r\nx\n",
            "1\r\nx\rz",
            "0\r\nno colon\r\n",
            "0\r\n: x\r\n",
            "0\r\na b: x\r\n",
            "0\r\n a: x\r\n",
            "0\r\na: \0\r\n",
            "0\r\na: b\n",
            &long,
            &format!("1;{}\r\n", &long[2..]),
            &format!("0\r\n{}", format!("a: {}\r\n", &long[1_000..]).repeat(6)),
        ] {
            assert_eq!(decode(&[text.as_bytes()]), Err(Malformed), "{text:?}");
        }
    }

    #[test]
    fn extensions_of_many_chunks_add_up() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(100));
        assert!(decode(&[chunk.repeat(100).as_bytes()]).is_ok());
        assert_eq!(decode(&[chunk.repeat(200).as_bytes()]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn the_body_comes_back_however_it_arrives(chunks in vec(vec(any::<u8>(), 1..40), 0..6), cut in 1_usize..9) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend(format!("{:x}\r\n", chunk.len()).bytes());
                text.extend(chunk);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            prop_assert_eq!(decode(&pieces), Ok(Some((chunks.concat(), Vec::new()))));
        }

        #[test]
        fn no_bytes_panic(text in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'), Just(b';'), any::<u8>()], 0..60)) {
            let _ = decode(&[&text]);
        }
    }
}
