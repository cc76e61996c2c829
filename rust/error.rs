//! The errors of the core: problems of a graph ([`GraphProblem`]) and illegal calls of the scheduler ([`InvalidCall`]).
//!
//! Both are data. Messages for the user are made where names are known: in `planning/plan.py` for problems, in
//! `Display` here for illegal calls, which only a defect in an executor can cause.

use std::fmt;

use crate::graph::NodeId;

/// One problem of a graph; [`crate::graph::Graph::build`] finds all of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphProblem {
    /// Two nodes have the same name.
    DuplicateName {
        /// The name.
        name: String,
        /// The node that had it first.
        first: NodeId,
        /// The node that has it again.
        second: NodeId,
    },
    /// A node depends on a name that no node has.
    UnknownDependency {
        /// The dependent.
        node: NodeId,
        /// The missing name.
        name: String,
    },
    /// An edge names an id that no node has.
    OutOfRange {
        /// The id.
        node: NodeId,
    },
    /// A node depends on itself.
    SelfDependency {
        /// The node.
        node: NodeId,
    },
    /// Nodes depend on each other; one cycle is reported for each strongly connected component.
    Cycle {
        /// Each node depends on the one before it; the path starts at the lowest id and repeats it last.
        path: Vec<NodeId>,
    },
    /// The two ends of an elementwise edge have different lengths.
    LengthMismatch {
        /// The dependent.
        node: NodeId,
        /// The elementwise dependency.
        dependency: NodeId,
    },
    /// There are more nodes, edges or items than fit in 32 bits.
    TooLarge,
}

/// Why the scheduler rejected a call; the scheduler is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCall {
    /// The batch was claimed from another scheduler.
    ForeignBatch,
    /// The positions reach beyond the end of the batch.
    OutOfBatch {
        /// First position of the report.
        position: u32,
        /// How many positions it covers.
        count: u32,
        /// How many items the batch has.
        length: u32,
    },
    /// The item at this position was already reported or given back.
    NotOut {
        /// The position in the batch.
        position: u32,
    },
    /// The item at this position needs the value of the item before it, which ended without one: it must be given back.
    Chained {
        /// The position in the batch.
        position: u32,
    },
    /// The number of outcomes differs from the number of end times.
    Lengths {
        /// How many end times were given.
        ends: usize,
        /// How many outcomes were given.
        outcomes: usize,
    },
    /// This is not a state in which a run of an item can end.
    Outcome {
        /// The value.
        value: u8,
    },
    /// This is not a state in which a node can end without items and without a value.
    End {
        /// The value.
        value: u8,
    },
    /// The node has already failed, so its failures can no longer be tolerated.
    TooLate {
        /// The node.
        node: NodeId,
    },
    /// Some item of the node is not ready.
    NotReady {
        /// The node.
        node: NodeId,
    },
    /// A time is not a finite number.
    Time,
    /// The node's length is already known, or has not been requested yet.
    NotExpandable {
        /// The node.
        node: NodeId,
    },
    /// There are more items than fit in 32 bits.
    TooLarge,
    /// The number of classes differs from the number of nodes.
    Demands {
        /// Classes given.
        length: usize,
        /// Nodes of the graph.
        nodes: u32,
    },
    /// A node has a class that does not exist.
    Class {
        /// The node.
        node: NodeId,
        /// The class.
        class: u32,
    },
    /// A class needs a limit that does not exist, or it is class 0, which needs nothing.
    Limit {
        /// The class.
        class: u32,
        /// The limit.
        limit: u32,
    },
    /// The limit to divide is not one of the new limits, its devices would have no tokens, or another limit is divided
    /// already.
    Divided {
        /// The limit.
        limit: u32,
        /// Tokens of a device.
        unit: u32,
    },
    /// A chosen device does not exist, or is chosen twice.
    Device {
        /// The device.
        device: u32,
        /// The number of devices.
        count: u32,
    },
    /// A node needs more tokens than the limit has.
    Demand {
        /// The node.
        node: NodeId,
        /// The limit.
        limit: u32,
        /// The number of tokens that it needs.
        amount: u32,
        /// The number of tokens of the limit.
        total: u32,
    },
    /// The batch no longer holds tokens, or its tokens were not to be kept.
    NoTokens,
    /// The node does not have exactly one item, so nothing can be grafted onto it.
    NotSingle {
        /// The node.
        node: NodeId,
    },
    /// A value of the node has been released, so no new node can depend on it.
    Released {
        /// The node.
        node: NodeId,
    },
    /// The keep mask does not have one byte for each node.
    Mask {
        /// Bytes given.
        length: usize,
        /// Nodes of the graph.
        nodes: usize,
    },
}

impl fmt::Display for InvalidCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignBatch => write!(out, "the batch was claimed from another scheduler"),
            Self::OutOfBatch {
                position,
                count,
                length,
            } => {
                write!(
                    out,
                    "{count} items from position {position} reach past the end of a batch of {length}"
                )
            }
            Self::NotOut { position } => write!(
                out,
                "the item at position {position} of the batch is not running: it was reported before"
            ),
            Self::Chained { position } => write!(
                out,
                "the item at position {position} is chained to the one before it: first that must end with a value, or both come back"
            ),
            Self::Lengths { ends, outcomes } => write!(
                out,
                "expected one outcome for each of {ends} end times, got {outcomes}"
            ),
            Self::Outcome { value } => {
                write!(
                    out,
                    "{value} is no outcome of a run: expected success (3), cached (4), failed (5), timed_out (6), skipped (7) or cancelled (9)"
                )
            }
            Self::End { value } => write!(
                out,
                "{value} is no end without a value: expected failed (5), timed_out (6), skipped (7) or cancelled (9)"
            ),
            Self::TooLate { node } => write!(
                out,
                "node {} has failed already: say what it tolerates before its items end",
                node.0
            ),
            Self::NotReady { node } => {
                write!(out, "node {} is not ready: it waits or has begun", node.0)
            }
            Self::Time => write!(out, "expected a finite time in seconds"),
            Self::NotExpandable { node } => {
                write!(out, "node {} is not waiting for its length", node.0)
            }
            Self::TooLarge => write!(out, "more than {} items", u32::MAX - 1),
            Self::Demands { length, nodes } => {
                write!(
                    out,
                    "expected one class for each of {nodes} nodes, got {length}"
                )
            }
            Self::Class { node, class } => {
                let node = node.0;
                write!(out, "node {node} is of class {class}, which is not there")
            }
            Self::Limit { class: 0, .. } => {
                write!(out, "class 0 is that of nodes that need nothing")
            }
            Self::Limit { class, limit } => {
                write!(out, "class {class} needs limit {limit}, which is not there")
            }
            Self::Divided { limit, unit } => write!(
                out,
                "limit {limit} cannot be divided into devices of {unit} tokens: it is no new one, or there is another"
            ),
            Self::Device { device, count } => write!(
                out,
                "device {device} was chosen twice, or is none of the {count} that there are"
            ),
            Self::Demand {
                node,
                limit,
                amount,
                total,
            } => write!(
                out,
                "node {} needs {amount} of limit {limit}, which has {total} in all: it could never run",
                node.0
            ),
            Self::NoTokens => write!(out, "the batch holds no tokens, or none that are kept"),
            Self::NotSingle { node } => write!(
                out,
                "node {} has not exactly one item: nothing can be grafted upon it",
                node.0
            ),
            Self::Released { node } => write!(
                out,
                "a value of node {} was released: nothing new can depend on it",
                node.0
            ),
            Self::Mask { length, nodes } => write!(
                out,
                "expected one byte for each of {nodes} nodes, got {length}"
            ),
        }
    }
}

impl std::error::Error for InvalidCall {}

/// Why a graft was rejected; the scheduler is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidGraft {
    /// The new nodes and edges do not form a valid graph.
    Graph(Vec<GraphProblem>),
    /// Any other illegal call.
    Call(InvalidCall),
}

impl From<InvalidCall> for InvalidGraft {
    fn from(refusal: InvalidCall) -> Self {
        Self::Call(refusal)
    }
}

impl From<Vec<GraphProblem>> for InvalidGraft {
    fn from(problems: Vec<GraphProblem>) -> Self {
        Self::Graph(problems)
    }
}
