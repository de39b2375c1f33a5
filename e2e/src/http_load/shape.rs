//! What a request looks like: bytes with places for device and number.

/// Digits of a device's number and of a request's.
const DIGITS: usize = 9;
const DEVICE: &str = "DDDDDDDDD";
const NUMBER: &str = "SSSSSSSSS";

/// The bytes of all requests of a load, but for device and number.
#[derive(Clone, Debug)]
pub struct Shape {
    bytes: Vec<u8>,
    devices: Vec<usize>,
    numbers: Vec<usize>,
}

impl Shape {
    /// A Countly event in a query.
    #[must_use]
    pub fn get(app: &str) -> Self {
        Self::of(&format!(
            "GET /i?{}&events=%5B%7B%22key%22%3A%22load%22%2C%22count%22%3A1%7D%5D HTTP/1.1\r\n\
             Host: load.test\r\nUser-Agent: load\r\n\r\n",
            parameters(app)
        ))
    }

    /// A Countly event in a form of some `bytes`.
    #[must_use]
    pub fn post(app: &str, bytes: usize) -> Self {
        let form = parameters(app);
        let rest = bytes.saturating_sub(form.len() + "&user_details=".len());
        // Neither all alike nor noise: about as compressible as JSON in a form.
        let filler: String = (0..rest)
            .map(|n| char::from(b"abcdefgh%22%3A01234567"[(n * n / 3 + n) % 22]))
            .collect();
        let form = format!("{form}&user_details={filler}");
        Self::of(&format!(
            "POST /i HTTP/1.1\r\nHost: load.test\r\nUser-Agent: load\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ))
    }

    /// A request of these bytes; `DDDDDDDDD` becomes the device, `SSSSSSSSS` the number, nine digits each.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let places = |what: &str| text.match_indices(what).map(|(at, _)| at).collect();
        Self {
            bytes: text.as_bytes().to_vec(),
            devices: places(DEVICE),
            numbers: places(NUMBER),
        }
    }

    /// The request with device and number put in.
    pub fn fill(&mut self, device: u64, number: u64) -> &[u8] {
        for at in self.devices.clone() {
            write(&mut self.bytes[at..at + DIGITS], device);
        }
        for at in self.numbers.clone() {
            write(&mut self.bytes[at..at + DIGITS], number);
        }
        &self.bytes
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// How a device of this number is called.
#[must_use]
pub fn device_name(device: usize) -> String {
    format!("d{device:09}")
}

fn parameters(app: &str) -> String {
    format!("app_key={app}&device_id=d{DEVICE}&timestamp=1790000000000&hour=12&dow=1&seq={NUMBER}")
}

fn write(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_and_number_are_put_in() {
        let mut shape = Shape::post("k", 300);
        let text = String::from_utf8(shape.fill(42, 7).to_vec()).unwrap();
        assert!(text.contains(&format!("device_id={}&", device_name(42))));
        assert!(text.contains("&seq=000000007&"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 300);
        assert!(head.contains("Content-Length: 300"));
        let text = String::from_utf8(shape.fill(1, 123_456_789).to_vec()).unwrap();
        assert!(text.contains("d000000001") && text.contains("seq=123456789"));
    }
}
