//! The clock, and formats of times.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch.
pub fn now() -> f64 {
    // A clock before 1970 counts as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Microseconds since the epoch.
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// `YYYY-MM-DD HH:MM:SS` in the server's local time.
pub fn local_time(seconds: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| String::new(), |t| t.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `YYYY-MM-DD HH:MM:SS.ffffff` in the server's local time, of microseconds since the epoch.
pub fn local_micros(micros: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| String::new(), |t| t.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S.%6f").to_string())
}

/// A time in RFC 3339 format in UTC, as in OCI configurations.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |t| t.to_string())
}
