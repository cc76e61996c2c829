//! How a scheduler is created and grows: conversion of Python arguments to the types of the core.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::InvalidCall;
use crate::graph::{Edges, Graph, NewNodes};
use crate::python::graph::same;
use crate::python::ids;
use crate::scheduler::{Limits, Order, Scheduler};

/// Read which of several ready nodes is to run first.
pub(super) fn order(name: &str) -> PyResult<Order> {
    match name {
        "critical_path" => Ok(Order::CriticalPath),
        "add" => Ok(Order::Add),
        _ => Err(PyValueError::new_err(format!(
            "order is {name:?}: expected 'critical_path' or 'add'"
        ))),
    }
}

/// Begin a run.
pub(super) fn scheduler(
    graph: Arc<Graph>,
    order: Order,
    keep: Option<&[u8]>,
    limits: &Limits,
) -> Result<Scheduler, InvalidCall> {
    let core = Scheduler::new(graph, order, keep)?;
    if limits.is_empty() {
        Ok(core)
    } else {
        core.with_limits(limits)
    }
}

/// Read nodes that are added during a run.
pub(super) fn addition(
    counts: &Bound<'_, PyAny>,
    edges: Edges,
    joins: Option<&[u8]>,
    awaited: Option<&Bound<'_, PyAny>>,
) -> PyResult<NewNodes> {
    let counts = ids(counts)?;
    same("joins", joins.map(<[u8]>::len), "counts", counts.len())?;
    Ok(NewNodes {
        counts,
        edges,
        joins: joins.unwrap_or_default().to_vec(),
        awaited: awaited.map_or_else(|| Ok(Vec::new()), ids)?,
    })
}
