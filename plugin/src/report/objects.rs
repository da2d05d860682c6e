//! Parts that several objects of the JSON report have in common.

use super::hex::hex;
use crate::arch::caller::Caller;
use crate::patching::Context;
use serde::Serialize;

/// Where a vCPU was.
#[derive(Serialize, Debug)]
#[allow(missing_docs)]
pub struct ContextObject {
    #[serde(rename = "cr3")]
    pub space: Option<String>,
    #[serde(rename = "cpl")]
    pub privilege: Option<u8>,
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
    let Context { space, privilege, task } = context;
    (*context != Context::default()).then(|| ContextObject {
        space: space.map(hex),
        privilege: *privilege,
        pid: task.as_ref().map(|task| task.pid),
        comm: task.as_ref().map(|task| task.comm.to_string()),
    })
}
