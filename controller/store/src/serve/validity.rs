//! Until when a certificate holds: the one thing that is read of it that rustls does not tell.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZone;

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity (RFC 5280, 4.1); `None` where it is built otherwise. Who asks has had it checked.
pub(super) fn until(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut signed, _) = element(certificate)?;
    if *signed.first()? == VERSION {
        signed = element(signed)?.2;
    }
    // Its serial number, the algorithm, and who has signed it.
    for _ in 0..3 {
        signed = element(signed)?.2;
    }
    let (tag, validity, _) = element(signed)?;
    if tag != SEQUENCE {
        return None;
    }
    let (_, _, end) = element(validity)?;
    let (tag, end, _) = element(end)?;
    let text = std::str::from_utf8(end).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        // Two digits are of 1950 to 2049.
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i16 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let [month, day, hour, minute, second] = [part(0)?, part(2)?, part(4)?, part(6)?, part(8)?];
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day);
    let clock = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    if !fits || !clock || rest.len() != 10 {
        return None;
    }
    let day = jiff::civil::Date::new(year, month, day).ok()?;
    let zoned = day.at(hour, minute, second, 0).to_zoned(TimeZone::UTC).ok()?;
    (day >= date(1950, 1, 1)).then(|| zoned.timestamp())
}

/// The first element: its tag, what is in it, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // No certificate of 16 MB is shown: rustls takes no such message.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let key = KeyPair::generate().expect("a key");
        for (year, month, day) in [(2026, 12, 1), (2049, 12, 31), (2050, 1, 1), (2999, 2, 28)] {
            let mut params = CertificateParams::new(["store.example.org".to_owned()]).expect("a name");
            params.not_after = date_time_ymd(year, month, day);
            let made = params.self_signed(&key).expect("a certificate");
            let expected =
                date(year as i16, month as i8, day as i8).to_zoned(TimeZone::UTC).expect("a day").timestamp();
            assert_eq!(until(made.der()), Some(expected));
            // Cut anywhere, and with any byte changed, it is read or not, and nothing panics.
            for at in 0..made.der().len() {
                assert_eq!(until(&made.der()[..at]), None, "{at}");
                let mut other = made.der().to_vec();
                other[at] ^= 0xff;
                until(&other);
            }
        }
    }
}
