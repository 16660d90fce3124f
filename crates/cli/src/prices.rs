//! What the bytes of a peering cost (PEER-37), by a price list that the user can replace.

use serde::Deserialize;

/// The published prices, at the time of writing.
const PUBLISHED: &str = include_str!("../data/peering-prices.json");

/// Prices count in units of 10^9 bytes.
const GB: f64 = 1e9;

/// A price list of VNet peering.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PriceList {
    /// For people.
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    /// USD per GB and direction between VNets of one region.
    same_region: f64,
    zones: Vec<Zone>,
}

/// Regions that share a price.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Zone {
    #[serde(rename = "name")]
    _name: String,
    /// USD per GB that enters or leaves a VNet here over a global peering.
    #[serde(rename = "usdPerGB")]
    usd_per_gb: f64,
    locations: Vec<String>,
}

impl PriceList {
    /// The prices the program was built with.
    ///
    /// # Errors
    /// None: a test reads them.
    pub(crate) fn published() -> Result<Self, String> {
        Self::parse(PUBLISHED)
    }

    /// Reads a price list: JSON, in the shape of the published one.
    ///
    /// # Errors
    /// What is wrong with it and where, or a price that is not one.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let list: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let prices = list.zones.iter().map(|zone| zone.usd_per_gb);
        match prices
            .chain([list.same_region])
            .find(|price| !price.is_finite() || *price < 0.0)
        {
            Some(price) => Err(format!("{price} is no price: USD per GB, zero or more")),
            None => Ok(list),
        }
    }

    /// What the local VNet of a peering pays for the bytes it sent and received over it: in one region the price is
    /// the same everywhere, across regions it is that of the local VNet's zone. None: the list has no zone with
    /// `location`.
    #[must_use]
    pub(crate) fn usd(
        &self,
        location: &str,
        remote: &str,
        egress_bytes: u64,
        ingress_bytes: u64,
    ) -> Option<f64> {
        let price = if location == remote {
            self.same_region
        } else {
            let here = |zone: &&Zone| {
                zone.locations
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(location))
            };
            self.zones.iter().find(here)?.usd_per_gb
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 bytes cost the price of 9 PB to the cent"
        )]
        let bytes = egress_bytes as f64 + ingress_bytes as f64;
        Some(bytes / GB * price)
    }
}

#[cfg(test)]
mod tests {
    use super::PriceList;

    /// Shows: PEER-37.
    #[test]
    fn a_terabyte_costs_what_the_published_cases_say() {
        let list = PriceList::published().unwrap();
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/billing.json")).unwrap();
        let region = |case: &serde_json::Value, side: &str| {
            let zone = case[format!("{side}Zone")].as_str();
            match (case[format!("{side}Region")].as_str(), zone, side) {
                (Some(region), _, _) => region.to_owned(),
                (None, Some("Zone1"), "src") => "westus".to_owned(),
                (None, Some("Zone1"), _) => "westeurope".to_owned(),
                (None, Some("Zone2"), _) => "japaneast".to_owned(),
                other => panic!("{other:?}"),
            }
        };
        let mut tried = 0;
        for case in vector["cases"].as_array().unwrap() {
            // The others are about what is not counted: the lab test `meter` counts.
            if case.get("out").is_none() {
                continue;
            }
            let (from, to) = (region(case, "src"), region(case, "dst"));
            let bytes = case["gb"].as_u64().unwrap() * 1_000_000_000;
            let usd = |here: &str, there: &str, out, into| list.usd(here, there, out, into).unwrap();
            assert!(
                (usd(&from, &to, bytes, 0) - case["out"].as_f64().unwrap()).abs() < 1e-9,
                "{case}"
            );
            assert!(
                (usd(&to, &from, 0, bytes) - case["in"].as_f64().unwrap()).abs() < 1e-9,
                "{case}"
            );
            tried += 1;
        }
        assert_eq!(tried, 3);
    }

    #[test]
    fn a_region_that_is_not_listed_has_no_price() {
        let list = PriceList::published().unwrap();
        assert_eq!(list.usd("usgovvirginia", "westus", 1, 1), None);
        assert!(list.usd("usgovvirginia", "usgovvirginia", 1, 1).is_some());
    }

    #[test]
    fn a_list_with_a_price_that_is_none_is_refused() {
        for (text, error) in [
            (r#"{"sameRegion": -1, "zones": []}"#, "-1 is no price"),
            (r#"{"sameRegion": 0}"#, "missing field `zones`"),
            (
                r#"{"sameRegion": 0, "zones": [], "zone": 1}"#,
                "unknown field `zone`",
            ),
        ] {
            let message = PriceList::parse(text).unwrap_err();
            assert!(message.contains(error), "{message}");
        }
    }
}
