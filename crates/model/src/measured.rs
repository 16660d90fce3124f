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

/// Some columns of every row below the header.
fn rows<const N: usize>(csv: &'static str, columns: [usize; N]) -> impl Iterator<Item = [&'static str; N]> {
    csv.lines().skip(1).map(move |line| {
        let fields: Vec<&str> = line.split(',').collect();
        columns.map(|column| fields.get(column).copied().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::{egress_mbps, round_trip_ms, rows};

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
    fn a_pair_is_found_from_both_ends_and_a_size_in_any_case() {
        assert_eq!(round_trip_ms("australiacentral", "eastus"), Some(202));
        assert_eq!(round_trip_ms("eastus", "australiacentral"), Some(202));
        assert_eq!(round_trip_ms("eastus", "atlantis"), None);
        assert_eq!(egress_mbps("standard_d2_V5"), Some(12_500));
        assert_eq!(egress_mbps("Standard_Z1"), None);
    }
}
