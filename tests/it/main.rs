//! Integration tests of the libraries, without privileges.

mod drop_reasons;
