//! Which npm and jsr packages code may import, and the read-only layers they are imported from.
