//! The scheduling core of flowyml.
#[cfg(feature = "python")]
mod python;
