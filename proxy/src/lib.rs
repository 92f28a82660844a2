//! Outgate's IO: the gateway that serves, and the commands people use it with.

pub mod running;
