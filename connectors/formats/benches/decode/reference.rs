//! What the decoder is compared with beside the seed: what finds one field, and what no decoder of numbers can do without.

/// One field of many, as `sonic_rs::get` finds it: it checks all that it passes.
pub fn field(payload: &[u8], name: &str) -> f64 {
    let found = sonic_rs::get(payload, [name]).expect("the field is there");
    found.as_raw_str().parse().expect("a number")
}

/// Walks over the text, tells strings, numbers and the rest apart, and parses the numbers: what no decoder of numbers can
/// do without. Returns their sum, so that it cannot be left out.
pub fn scan(payload: &[u8]) -> f64 {
    let (mut at, mut sum) = (0, 0.0);
    while at < payload.len() {
        match payload[at] {
            b'"' => {
                let inside = &payload[at + 1..];
                at += 2 + memchr::memchr(b'"', inside).expect("a quote ends the string");
            }
            b'-' | b'0'..=b'9' => {
                let (number, length) = fast_float2::parse_partial::<f64, _>(&payload[at..]).expect("a number");
                sum += number;
                at += length;
            }
            _ => at += 1,
        }
    }
    sum
}
