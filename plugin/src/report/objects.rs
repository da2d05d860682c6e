//! Parts that several objects of the JSON report have in common.

use super::hex::hex;
use crate::patching::Context;
use crate::x86::stack::Caller;
use serde::Serialize;

/// Where a vCPU was.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct ContextObject {
    pub cr3: Option<String>,
    pub cpl: Option<u8>,
    pub pid: Option<u32>,
    pub comm: Option<String>,
}

/// The vCPU's last serializing event.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct LastSyncObject {
    pub event: &'static str,
    pub pc: Option<String>,
    pub symbol: Option<String>,
    /// What it belonged to, where that is known: [`super::origin_name`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

pub(super) fn chain(callers: &[Caller], symbol: &impl Fn(u64) -> Option<String>) -> Vec<String> {
    let name = |caller: &Caller| symbol(caller.address).unwrap_or_else(|| hex(caller.address));
    callers.iter().map(|caller| format!("{}{}", if caller.sure { "" } else { "? " }, name(caller))).collect()
}

pub(super) fn context(context: &Context) -> Option<ContextObject> {
    let Context { space, cpl, task } = context;
    (*context != Context::default()).then(|| ContextObject {
        cr3: space.map(hex),
        cpl: *cpl,
        pid: task.as_ref().map(|task| task.pid),
        comm: task.as_ref().map(|task| task.comm.to_string()),
    })
}
