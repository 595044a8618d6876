//! Graphs made by capture.

use std::ffi::c_void;

use super::super::capture::GraphExec;
use super::super::device::{Done, Driver, HandleKind, Refusal};
use super::super::order::Clock;
use super::{in_context, put};

const AUTO_FREE_ON_LAUNCH: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const USE_NODE_PRIORITY: u64 = 8;

fn instantiate(d: &mut Driver, exec: *mut u64, graph: u64, flags: u64) -> Done {
    if flags & !(AUTO_FREE_ON_LAUNCH | UPLOAD | DEVICE_LAUNCH | USE_NODE_PRIORITY) != 0 {
        return Err(Refusal::argument(format!("{flags:#x} are no flags of instantiation")));
    }
    if flags & DEVICE_LAUNCH != 0 {
        if flags & AUTO_FREE_ON_LAUNCH != 0 {
            return Err(Refusal::argument("device launch and automatic free exclude each other"));
        }
        return Err(Refusal::unsupported("graphs launched by the device"));
    }
    let g = d.graphs.get(&graph).ok_or_else(|| Refusal::handle("graph", graph))?;
    let ready =
        GraphExec { context: g.context, nodes: g.nodes.clone(), last: Vec::new(), clock: Clock::default() };
    let id = d.handle(HandleKind::GraphExec);
    put(exec, id)?;
    d.execs.insert(id, ready);
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(exec: *mut u64, graph: u64, flags: u64) -> u32 {
    in_context("cuGraphInstantiateWithFlags", |d, _| instantiate(d, exec, graph, flags))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiate_v2(
    exec: *mut u64,
    graph: u64,
    _error_node: *mut u64,
    _log: *mut c_void,
    _log_bytes: usize,
) -> u32 {
    in_context("cuGraphInstantiate_v2", |d, _| instantiate(d, exec, graph, 0))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphGetNodes(graph: u64, nodes: *mut u64, count: *mut usize) -> u32 {
    in_context("cuGraphGetNodes", |d, _| {
        let g = d.graphs.get(&graph).ok_or_else(|| Refusal::handle("graph", graph))?;
        if !nodes.is_null() {
            return Err(Refusal::unsupported("handles of the nodes of a graph (their number is)"));
        }
        put(count, g.nodes.len())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: u64) -> u32 {
    in_context("cuGraphDestroy", |d, _| match d.graphs.remove(&graph) {
        Some(_) => Ok(()),
        None => Err(Refusal::handle("graph", graph)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(exec: u64) -> u32 {
    in_context("cuGraphExecDestroy", |d, _| match d.execs.remove(&exec) {
        Some(_) => Ok(()),
        None => Err(Refusal::handle("executable graph", exec)),
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(exec: u64, stream: u64) -> u32 {
    in_context("cuGraphLaunch", |d, c| {
        let id = d.stream(c, stream)?;
        if !d.execs.contains_key(&exec) {
            return Err(Refusal::handle("executable graph", exec));
        }
        d.launch_graph(exec, id)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(exec: u64, stream: u64) -> u32 {
    in_context("cuGraphUpload", |d, c| {
        d.stream(c, stream)?;
        // Nothing to prepare: the launch itself is all there is.
        if d.execs.contains_key(&exec) { Ok(()) } else { Err(Refusal::handle("executable graph", exec)) }
    })
}
