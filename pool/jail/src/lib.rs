//! The kernel jail around a worker.
