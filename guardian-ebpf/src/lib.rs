//! The wire format between the BPF programs and the daemon.
#![no_std]
