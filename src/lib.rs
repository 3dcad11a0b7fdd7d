//! assent
