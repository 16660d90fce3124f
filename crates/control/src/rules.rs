//! Effective rules of an NSG at a place: default rules, tags and ASGs expanded.
