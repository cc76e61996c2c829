//! The scheduling core of flowyml.
pub mod claims;
#[cfg(feature = "python")]
mod python;
