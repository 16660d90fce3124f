//! Published measurements of Azure: round trips between regions (NET-11) and what VM sizes may send (NET-12).

use std::collections::HashMap;
use std::sync::LazyLock;

/// `source_region,destination_region,rtt_ms_p50,…`: medians of 30 days, with the document they are from.
const LATENCIES: &str = include_str!("../data/region-latency.csv");
/// `size,vcpu,memory_gib,max_nics,egress_mbps,…`, with the documents they are from.
const SIZES: &str = include_str!("../data/vm-bandwidth.csv");

/// The median round trip between two regions, in milliseconds, measured in this direction or else in the other.
/// None: there is no measurement.
pub(crate) fn round_trip_ms(from: &str, to: &str) -> Option<u64> {
    static TABLE: LazyLock<HashMap<(&str, &str), u64>> = LazyLock::new(|| {
        let row = |[from, to, ms]: [&'static str; 3]| Some(((from, to), ms.parse().ok()?));
        rows(LATENCIES, [0, 1, 2]).filter_map(row).collect()
    });
    TABLE.get(&(from, to)).or_else(|| TABLE.get(&(to, from))).copied()
}

/// The egress of a VM size over all its NICs, in Mbit/s; sizes are matched without regard to case. None: not listed.
pub(crate) fn egress_mbps(size: &str) -> Option<u64> {
    static TABLE: LazyLock<HashMap<String, u64>> = LazyLock::new(|| {
        let row = |[size, mbps]: [&'static str; 2]| Some((size.to_lowercase(), mbps.parse().ok()?));
        rows(SIZES, [0, 4]).filter_map(row).collect()
    });
    TABLE.get(&size.to_lowercase()).copied()
}

/// Where regions are said to be, with who says so: Azure's own list of locations, or the city they are named after.
const COORDINATES: &str = include_str!("../data/region-coordinates.csv");
const EARTH_RADIUS_KM: f64 = 6371.0;
/// Light in fibre: its speed in vacuum by the index of refraction of the glass, 1.468.
const FIBRE_KM_PER_US: f64 = 0.299_792_458 / 1.468;
/// How much longer than the great circle the way of a packet is: the median of all published pairs is 1.73.
const DETOUR: f64 = 1.7;

/// The latency of one way between two regions by their distance, in microseconds. None: a region is not known.
pub(crate) fn estimate_us(from: &str, to: &str) -> Option<u64> {
    static TABLE: LazyLock<HashMap<&str, [f64; 2]>> = LazyLock::new(|| {
        let row = |[region, latitude, longitude]: [&'static str; 3]| {
            Some((region, [latitude.parse().ok()?, longitude.parse().ok()?]))
        };
        rows(COORDINATES, [0, 1, 2]).filter_map(row).collect()
    });
    let km = great_circle_km(*TABLE.get(from)?, *TABLE.get(to)?);
    // Half the globe takes a sixth of a second.
    Some((km * DETOUR / FIBRE_KM_PER_US).round() as u64)
}

/// By the haversine formula; latitude and longitude are in degrees.
fn great_circle_km(from: [f64; 2], to: [f64; 2]) -> f64 {
    let [from_latitude, from_longitude] = from.map(f64::to_radians);
    let [to_latitude, to_longitude] = to.map(f64::to_radians);
    let half = |difference: f64| (difference / 2.0).sin().powi(2);
    let haversine = half(to_latitude - from_latitude)
        + from_latitude.cos() * to_latitude.cos() * half(to_longitude - from_longitude);
    2.0 * EARTH_RADIUS_KM * haversine.sqrt().min(1.0).asin()
}

/// Azure's regions as the measurements name them, sorted.
#[must_use]
pub fn regions() -> &'static [&'static str] {
    static REGIONS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let mut regions: Vec<&str> = rows(LATENCIES, [0, 1]).flatten().collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    });
    &REGIONS
}

/// Some columns of every row below the header.
fn rows<const N: usize>(csv: &'static str, columns: [usize; N]) -> impl Iterator<Item = [&'static str; N]> {
    csv.lines().skip(1).map(move |line| {
        let fields: Vec<&str> = line.split(',').collect();
        columns.map(|column| fields.get(column).copied().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::{egress_mbps, estimate_us, round_trip_ms, rows};

    #[test]
    fn every_row_of_the_tables_is_read() {
        let pairs = rows(super::LATENCIES, [0, 1, 2]);
        assert_eq!(
            pairs
                .filter(|[from, to, ms]| round_trip_ms(from, to) == ms.parse().ok())
                .count(),
            772
        );
        let sizes = rows(super::SIZES, [0, 4]);
        assert_eq!(
            sizes
                .filter(|[size, mbps]| egress_mbps(size) == mbps.parse().ok())
                .count(),
            77
        );
    }

    #[test]
    fn estimates_are_about_what_is_measured() {
        let pairs = rows(super::LATENCIES, [0, 1, 2]);
        let mut errors: Vec<f64> = pairs
            .map(|[from, to, ms]| {
                let measured = ms.parse::<f64>().unwrap() * 1000.0 / 2.0;
                // Every region of the table has coordinates.
                let estimate = estimate_us(from, to).unwrap() as f64;
                (estimate - measured).abs() / measured
            })
            .collect();
        errors.sort_by(f64::total_cmp);
        let part = |part: f64| errors[(errors.len() as f64 * part) as usize];
        assert!(
            part(0.5) < 0.18 && part(0.9) < 0.45,
            "{} {}",
            part(0.5),
            part(0.9)
        );
        // London to Sydney: 17,000 km.
        let km = super::great_circle_km([51.51, -0.13], [-33.86, 151.21]);
        assert!((16_950.0..17_050.0).contains(&km), "{km}");
        assert_eq!(estimate_us("eastus", "eastus"), Some(0));
        assert_eq!(estimate_us("eastus", "atlantis"), None);
    }

    #[test]
    fn a_pair_is_found_from_both_ends_and_a_size_in_any_case() {
        assert_eq!(round_trip_ms("australiacentral", "eastus"), Some(202));
        assert_eq!(round_trip_ms("eastus", "australiacentral"), Some(202));
        assert_eq!(round_trip_ms("eastus", "atlantis"), None);
        assert_eq!(egress_mbps("standard_d2_V5"), Some(12_500));
        assert_eq!(egress_mbps("Standard_Z1"), None);
    }
}
