//! Integration tests of the libraries, without privileges.
