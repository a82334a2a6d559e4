//! The product's tests as a black box, in one binary: one link, one place to look.

mod captures;
