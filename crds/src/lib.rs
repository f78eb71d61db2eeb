//! Declarations, identifiers, records and their validation: data that every crate of Windlass speaks.
