//! TUN, plain, memory and null ports; GSO and coalescing.
