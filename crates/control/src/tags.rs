//! Service tags as prefixes.
