//! Where a vCPU was: what evidence tells of a hazard and of a store.

use crate::qemu::cpu::CurrentCpu;
use icsan_symbols::KernelLayout;
use std::sync::Arc;

/// A task's name, as its `task_struct` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskName {
    /// Thread id.
    pub pid: u32,
    /// Command name.
    pub comm: Arc<str>,
}

impl TaskName {
    /// The name of the task whose `task_struct` is at that address, in a kernel of that layout.
    #[must_use]
    pub fn read(cpu: &CurrentCpu, layout: &KernelLayout, task: u64) -> Option<Self> {
        let comm = cpu.memory(task.wrapping_add(layout.task_comm.into()), layout.task_comm_len as usize)?;
        let pid = cpu.memory(task.wrapping_add(layout.task_pid.into()), 4)?;
        let comm = String::from_utf8_lossy(comm.split(|byte| *byte == 0).next()?).into();
        Some(Self { pid: u32::from_le_bytes(pid.try_into().ok()?), comm })
    }
}

/// Where a vCPU was when it did something.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Context {
    /// Physical address of the page table.
    pub space: Option<u64>,
    /// Privilege level, where it could be read.
    pub privilege: Option<u8>,
    /// The running task.
    pub task: Option<TaskName>,
}
