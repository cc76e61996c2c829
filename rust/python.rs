//! binding
use pyo3::prelude::*;

mod claims;

#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::claims::ClaimWords;
}
