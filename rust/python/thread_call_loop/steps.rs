//! `CallPlan`: how the steps of a plan are called, with no Python code of ours between the interpreter and the
//! function.
//!
//! The plan's data is read from its Python lists directly; data that is the same for step after step (the template, and
//! for a mapped step its items) is looked up once. Three ways to call are known: with the parameters as they were
//! given, with one item of a list, and with a row of parameters, constants and values of other steps. All other steps
//! are called through `general`, which takes an item and handles every case.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyIterator, PyList, PyRange, PySlice, PyTuple};

use super::super::daemon_call::{daemon_call, held_call_one};
use crate::scheduler::ItemRange;

/// Kinds of sources, as in `planning/call_template.py`.
const PARAM: u8 = 0;
const ASSET: u8 = 2;

/// The functions and arguments of a run, read from the tuple `Run.steps`.
pub(super) struct CallPlan<'py> {
    templates: Bound<'py, PyList>,
    rows: Bound<'py, PyList>,
    references: Bound<'py, PyDict>,
    tables: Bound<'py, PyDict>,
    general: Bound<'py, PyAny>,
    /// No step is called in another way.
    only_general: bool,
    values: Bound<'py, PyList>,
}

/// How the steps of one template are called.
enum CallKind<'py> {
    General,
    /// The row is the tuple of arguments,
    Row(Bound<'py, PyAny>),
    /// or the only argument itself.
    Lone(Bound<'py, PyAny>),
    /// The only argument is an item of the table.
    Item(Bound<'py, PyAny>),
    /// Arguments from several sources.
    Parts(Bound<'py, PyAny>, Vec<Source<'py>>),
}

enum Source<'py> {
    Param(usize),
    /// The row is the only parameter itself.
    Lone,
    Asset(usize),
    Value(Bound<'py, PyAny>),
}

/// The steps of one run of a batch, called one after the other.
pub(super) struct Calls<'a, 'py> {
    steps: &'a CallPlan<'py>,
    template: Option<Bound<'py, PyAny>>,
    way: CallKind<'py>,
    items: Items<'py>,
}

/// The items of a mapped step from the next one on.
enum Items<'py> {
    None,
    Iterator(Bound<'py, PyIterator>),
    /// Any other sequence, with `operator.getitem`: its own method may be written in Python.
    Table(Bound<'py, PyAny>, Bound<'py, PyAny>),
}

impl<'py> CallPlan<'py> {
    pub(super) fn new(steps: &Bound<'py, PyTuple>, values: &Bound<'py, PyList>) -> PyResult<Self> {
        Ok(Self {
            templates: steps.get_item(0)?.cast_into()?,
            rows: steps.get_item(1)?.cast_into()?,
            references: steps.get_item(2)?.cast_into()?,
            tables: steps.get_item(3)?.cast_into()?,
            general: steps.get_item(4)?,
            only_general: steps.get_item(5)?.is_truthy()?,
            values: values.clone(),
        })
    }

    pub(super) fn calls(&self) -> Calls<'_, 'py> {
        Calls {
            steps: self,
            template: None,
            way: CallKind::General,
            items: Items::None,
        }
    }

    fn way_of(template: &Bound<'py, PyAny>) -> PyResult<CallKind<'py>> {
        let direct = template.getattr("direct")?.is_truthy()?;
        if direct || template.getattr("single")?.is_truthy()? {
            let function = template.getattr("function")?;
            return Ok(if !direct {
                CallKind::Item(function)
            } else if template.getattr("has_single_param")?.is_truthy()? {
                CallKind::Lone(function)
            } else {
                CallKind::Row(function)
            });
        }
        let parts = template.getattr("parts")?;
        if parts.is_none() {
            return Ok(CallKind::General);
        }
        let lone = template.getattr("has_single_param")?.is_truthy()?;
        let parts = parts
            .try_iter()?
            .map(|part| Self::source(&part?, lone))
            .collect::<PyResult<_>>()?;
        Ok(CallKind::Parts(template.getattr("function")?, parts))
    }

    fn source(part: &Bound<'py, PyAny>, lone: bool) -> PyResult<Source<'py>> {
        let (kind, which): (u8, Bound<'py, PyAny>) = part.extract()?;
        Ok(match kind {
            PARAM if lone => Source::Lone,
            PARAM => Source::Param(which.extract()?),
            ASSET => Source::Asset(which.extract()?),
            _ => Source::Value(which),
        })
    }
}

impl<'py> Calls<'_, 'py> {
    /// Prepare for the steps of a run, of which `skip` have been called.
    pub(super) fn enter(&mut self, run: ItemRange, skip: u32) -> PyResult<()> {
        self.items = Items::None;
        let Some(index) = run.index else {
            return Ok(());
        };
        if self.steps.only_general {
            return Ok(());
        }
        self.look_at(run.node.0)?;
        if let CallKind::Item(_) = self.way {
            let Some(table) = self.steps.tables.get_item(run.node.0)? else {
                return Ok(());
            };
            let (first, last) = ((index + skip) as usize, (index + run.count) as usize);
            let plain =
                table.is_exact_instance_of::<PyList>() || table.is_exact_instance_of::<PyRange>();
            self.items = if plain {
                let part = table.get_item(PySlice::new(
                    table.py(),
                    first.cast_signed(),
                    last.cast_signed(),
                    1,
                ))?;
                Items::Iterator(part.try_iter()?)
            } else {
                let operator = table.py().import(intern!(table.py(), "operator"))?;
                Items::Table(table, operator.getattr(intern!(operator.py(), "getitem"))?)
            };
        }
        Ok(())
    }

    /// Call the step at offset `at` of a run.
    pub(super) fn call(&mut self, run: ItemRange, at: u32) -> PyResult<Bound<'py, PyAny>> {
        if !self.steps.only_general {
            if run.index.is_none() {
                self.look_at(run.node.0 + at)?;
            }
            if let Some(called) = self.call_here(run, at) {
                return called;
            }
        }
        let general = &self.steps.general;
        daemon_call(general, &(run.item.0 + at,).into_pyobject(general.py())?)
    }

    /// Call it if it is called in one of the ways known here.
    fn call_here(&mut self, run: ItemRange, at: u32) -> Option<PyResult<Bound<'py, PyAny>>> {
        let node = (run.node.0 + if run.index.is_none() { at } else { 0 }) as usize;
        match (&self.way, run.index) {
            (CallKind::Row(function), None) => {
                let row = self.steps.rows.get_item(node).ok()?.cast_into().ok()?;
                Some(daemon_call(function, &row))
            }
            (CallKind::Lone(function), None) => {
                let row = self.steps.rows.get_item(node).ok()?;
                Some(held_call_one(function, &row))
            }
            (CallKind::Parts(function, parts), None) => {
                let arguments = self.arguments(node, parts)?;
                Some(arguments.and_then(|arguments| daemon_call(function, &arguments)))
            }
            (CallKind::Item(function), Some(index)) => {
                let item = match &mut self.items {
                    Items::None => return None,
                    Items::Iterator(items) => items.next()?,
                    Items::Table(table, get_item) => {
                        let key = (table.clone(), index + at).into_pyobject(table.py());
                        key.and_then(|key| daemon_call(get_item, &key))
                    }
                };
                Some(item.and_then(|item| held_call_one(function, &item)))
            }
            _ => None,
        }
    }

    /// Build the row of arguments of a step; `None` if one of them is more than the value of another step.
    fn arguments(
        &self,
        node: usize,
        parts: &[Source<'py>],
    ) -> Option<PyResult<Bound<'py, PyTuple>>> {
        let row = self.steps.rows.get_item(node).ok()?;
        let mut references: Option<Bound<'py, PyTuple>> = None;
        let mut arguments = Vec::with_capacity(parts.len());
        for part in parts {
            arguments.push(match part {
                Source::Param(which) => row.cast::<PyTuple>().ok()?.get_item(*which).ok()?,
                Source::Lone => row.clone(),
                Source::Value(value) => value.clone(),
                Source::Asset(which) => {
                    if references.is_none() {
                        let found = self.steps.references.get_item(node).ok()??;
                        references = Some(found.cast_into().ok()?);
                    }
                    let reference = references.as_ref()?.get_item(*which).ok()?;
                    if !reference.is_exact_instance_of::<PyInt>() {
                        return None;
                    }
                    let item: usize = reference.extract().ok()?;
                    self.steps.values.get_item(item).ok()?
                }
            });
        }
        Some(PyTuple::new(row.py(), arguments))
    }

    /// Determine how the step of a node is called, if it is not called like the previous one.
    fn look_at(&mut self, node: u32) -> PyResult<()> {
        let template = self.steps.templates.get_item(node as usize)?;
        if self
            .template
            .as_ref()
            .is_none_or(|known| !known.is(&template))
        {
            self.way = CallPlan::way_of(&template)?;
            self.template = Some(template);
        }
        Ok(())
    }
}
