//! The one place where the gateway reads the time of day, and makes identifiers from it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ulid::Ulid;

/// Microseconds since the Unix epoch, UTC.
pub fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// Time since the machine was started, its sleep included; no setting of the clock changes it.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A new identifier that sorts by the given time, in microseconds since the Unix epoch.
pub fn ulid(time: i64) -> Ulid {
    Ulid::from_datetime(UNIX_EPOCH + Duration::from_micros(u64::try_from(time).unwrap_or(0)))
}

/// The smallest identifier that one made at or after `time` can have.
pub(crate) fn first_ulid(time: i64) -> Ulid {
    Ulid::from_parts(u64::try_from(time).unwrap_or(0) / 1000, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_sort_by_time_and_do_not_repeat() {
        let time = now();
        assert!(ulid(time) < ulid(time + 1000));
        assert_ne!(ulid(time), ulid(time));
        assert!(first_ulid(time) <= ulid(time));
        assert!(first_ulid(time) > ulid(time - 1000));
        assert_eq!(ulid(time).timestamp_ms(), u64::try_from(time / 1000).unwrap());
    }
}
