//! Sessions as rows.
