//! `Graph`: built from flat arrays or names; answers queries about nodes.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::import_exception;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMapping, PyString};

use crate::error::GraphProblem;
use crate::graph::{self as core, Edges, NodeId};

use super::arguments::times;
use super::{ids, no_such};

import_exception!(flowyml.errors, GraphError);

/// A validated, immutable graph.
#[pyclass(frozen, module = "flowyml._core")]
pub(crate) struct Graph(pub(super) Arc<core::Graph>);

#[pymethods]
impl Graph {
    #[new]
    #[pyo3(signature = (names, counts, dependents, dependencies, elementwise=None, joins=None))]
    fn new(
        py: Python<'_>,
        names: &Bound<'_, PyAny>,
        counts: Option<&Bound<'_, PyAny>>,
        dependents: &Bound<'_, PyAny>,
        dependencies: &Bound<'_, PyAny>,
        elementwise: Option<&[u8]>,
        joins: Option<&[u8]>,
    ) -> PyResult<Self> {
        let nodes = names.len()?;
        let counts = counts.map(ids).transpose()?;
        same("counts", counts.as_ref().map(Vec::len), "names", nodes)?;
        let edges = edges(dependents, dependencies, elementwise)?;
        same("joins", joins.map(<[u8]>::len), "names", nodes)?;
        let built = py.detach(|| core::Graph::build(nodes, counts.as_deref(), edges));
        wrap(
            py,
            match joins {
                Some(joins) => built.map(|graph| graph.with_joins(joins.to_vec())),
                None => built,
            },
        )
    }

    #[staticmethod]
    fn from_names(py: Python<'_>, dependencies: &Bound<'_, PyAny>) -> PyResult<Self> {
        let nodes = named(dependencies)?;
        wrap(py, py.detach(|| core::Graph::by_name(&nodes)))
    }

    #[getter]
    fn node_count(&self) -> u32 {
        self.0.node_count()
    }

    #[getter]
    fn item_count(&self) -> u32 {
        self.0.item_count()
    }

    #[getter]
    fn edge_count(&self) -> u32 {
        self.0.edge_count()
    }

    fn dependencies(&self, node: u32) -> PyResult<Vec<u32>> {
        let node = self.node(node)?;
        Ok(self
            .0
            .dependencies(node)
            .map(|(other, _)| other.0)
            .collect())
    }

    fn dependents(&self, node: u32) -> PyResult<Vec<u32>> {
        let node = self.node(node)?;
        Ok(self.0.dependents(node).map(|(other, _)| other.0).collect())
    }

    fn first_item(&self, node: u32) -> PyResult<u32> {
        Ok(self.0.first_item(self.node(node)?).0)
    }

    fn count(&self, node: u32) -> PyResult<u32> {
        Ok(self.0.count(self.node(node)?))
    }

    fn group(&self, node: u32) -> PyResult<Vec<u32>> {
        Ok(self.0.group(self.node(node)?))
    }

    fn weight(&self, node: u32) -> PyResult<u32> {
        Ok(self.0.weight(self.node(node)?))
    }

    fn weighted(&self, py: Python<'_>, durations: &Bound<'_, PyAny>) -> PyResult<Self> {
        let durations = times(durations)?;
        let nodes = self.0.node_count() as usize;
        same("durations", Some(durations.len()), "the graph", nodes)?;
        let weighted = py.detach(|| self.0.weighted(&durations));
        Ok(Self(Arc::new(weighted)))
    }

    fn order<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let order = self.0.in_order();
        let bytes = PyBytes::new_with(py, order.len() * size_of::<u32>(), |out| {
            for (to, node) in out.chunks_exact_mut(size_of::<u32>()).zip(order) {
                to.copy_from_slice(&node.0.to_ne_bytes());
            }
            Ok(())
        })?;
        py.import("array")?.getattr("array")?.call1(("I", bytes))
    }
}

impl Graph {
    fn node(&self, node: u32) -> PyResult<NodeId> {
        let count = self.0.node_count();
        if node < count {
            Ok(NodeId(node))
        } else {
            Err(no_such("node", node, count))
        }
    }
}

/// Read edges from parallel arrays.
pub(super) fn edges(
    dependents: &Bound<'_, PyAny>,
    dependencies: &Bound<'_, PyAny>,
    elementwise: Option<&[u8]>,
) -> PyResult<Edges> {
    let (dependents, dependencies) = (ids(dependents)?, ids(dependencies)?);
    let count = dependents.len();
    let others = Some(dependencies.len());
    same("dependencies", others, "dependents", count)?;
    let kinds = elementwise.map(<[u8]>::len);
    same("elementwise", kinds, "dependents", count)?;
    Ok(Edges {
        dependents,
        dependencies,
        elementwise: elementwise.unwrap_or_default().to_vec(),
    })
}

pub(super) fn same(
    what: &str,
    length: Option<usize>,
    other: &str,
    expected: usize,
) -> PyResult<()> {
    match length.filter(|length| *length != expected) {
        None => Ok(()),
        Some(length) => Err(PyValueError::new_err(format!(
            "{what} has {length} entries, {other} has {expected}: expected as many"
        ))),
    }
}

/// Read names and their dependencies from a mapping or from pairs.
fn named(dependencies: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Vec<String>)>> {
    let pairs = match dependencies.cast::<PyMapping>() {
        Ok(mapping) => mapping.items()?.into_any(),
        Err(_) => dependencies.clone(),
    };
    pairs
        .try_iter()?
        .map(|pair| {
            pair?
                .extract()
                .and_then(|(name, names)| Ok((name, strings(&names)?)))
        })
        .collect()
}

fn strings(names: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if names.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "expected an iterable of names, got the one string {}",
            names.repr()?
        )));
    }
    names.try_iter()?.map(|name| name?.extract()).collect()
}

fn wrap(py: Python<'_>, built: Result<core::Graph, Vec<GraphProblem>>) -> PyResult<Graph> {
    match built {
        Ok(graph) => Ok(Graph(Arc::new(graph))),
        Err(problems) => Err(graph_error(py, problems)?),
    }
}

/// Build the exception that lists problems.
pub(super) fn graph_error(py: Python<'_>, problems: Vec<GraphProblem>) -> PyResult<PyErr> {
    let problems = problems
        .into_iter()
        .map(|problem| as_tuple(py, problem))
        .collect::<PyResult<Vec<_>>>()?;
    Ok(GraphError::new_err((PyList::new(py, problems)?.unbind(),)))
}

fn as_tuple(py: Python<'_>, problem: GraphProblem) -> PyResult<Bound<'_, PyAny>> {
    match problem {
        GraphProblem::DuplicateName {
            name,
            first,
            second,
        } => ("duplicate", name, first.0, second.0)
            .into_pyobject(py)
            .map(Bound::into_any),
        GraphProblem::UnknownDependency { node, name } => ("unknown", node.0, name)
            .into_pyobject(py)
            .map(Bound::into_any),
        GraphProblem::OutOfRange { node } => {
            ("range", node.0).into_pyobject(py).map(Bound::into_any)
        }
        GraphProblem::SelfDependency { node } => {
            ("self", node.0).into_pyobject(py).map(Bound::into_any)
        }
        GraphProblem::Cycle { path } => {
            let path: Vec<u32> = path.into_iter().map(|node| node.0).collect();
            ("cycle", path).into_pyobject(py).map(Bound::into_any)
        }
        GraphProblem::LengthMismatch { node, dependency } => ("length", node.0, dependency.0)
            .into_pyobject(py)
            .map(Bound::into_any),
        GraphProblem::TooLarge => ("size",).into_pyobject(py).map(Bound::into_any),
    }
}
