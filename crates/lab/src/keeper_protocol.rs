//! Messages between the keeper and its clients.
