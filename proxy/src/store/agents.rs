//! Agents as rows.
