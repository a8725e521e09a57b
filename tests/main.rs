//! The one integration binary: one link step, one module a surface.

mod api;
mod architecture;
mod disk;
mod support;
