//! Where Linux on an architecture has what the plugin reads, as data: arguments, return addresses, the running task,
//! system calls. What needs more than data is the [`Platform`](super::platform::Platform)'s.

use crate::qemu::cpu::{CurrentCpu, NamedRegister};
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::sync_event::SyncEventSet;
use icsan_symbols::Symbolizer;
use icsan_symbols::linux::kernel::{LinuxKernel, ONLINE_MASK};

/// The function that makes a vCPU run another task.
#[derive(Debug)]
pub struct SwitchFunction {
    /// Its symbol.
    pub symbol: &'static str,
    /// Which argument is the task that runs so far, from 0: a pointer to its `task_struct`.
    pub previous: usize,
    /// Which one is the next.
    pub next: usize,
}

/// How programs call the kernel.
#[derive(Debug)]
pub struct SystemCalls {
    /// The instruction. The call returns to the one behind it.
    pub instruction: &'static [u8],
    /// The register of the call's number.
    pub number: &'static NamedRegister,
    /// The register of its first argument.
    pub argument: &'static NamedRegister,
    /// The register of its result.
    pub result: &'static NamedRegister,
    /// The number of membarrier(2).
    pub membarrier: u64,
}

/// See the module.
#[derive(Debug)]
pub struct LinuxAbi {
    /// What is known of the kernel by its symbols.
    pub kernel: &'static LinuxKernel,
    /// Addresses from this one on are the kernel's.
    pub kernel_from: Linear,
    /// The registers of a C function's first arguments.
    pub arguments: &'static [&'static NamedRegister],
    /// The register that a call leaves the return address in. `None`: it pushes it on the stack.
    pub link: Option<&'static NamedRegister>,
    /// The stack pointer.
    pub stack: &'static NamedRegister,
    /// How tasks are switched.
    pub switch: SwitchFunction,
    /// In the kernel: the base of the vCPU's own variables, of which one points to the running `task_struct`
    /// ([`LinuxKernel::current_task`]); or, where none does, that pointer itself.
    pub current_task: &'static NamedRegister,
    /// How programs call the kernel.
    pub system_calls: SystemCalls,
    /// What a patching protocol stores to keep executors out.
    pub breakpoint: &'static [u8],
    /// Of a process's two page tables: see [`Isolation::new`](super::isolation::Isolation::new).
    pub user_half: u64,
    /// The events by which a patching function leaves the mapping that it stored through.
    pub switches_mapping: SyncEventSet,
    /// The instructions that do nothing but serialize.
    pub explicit_syncs: SyncEventSet,
}

/// Where a function that is just entered returns to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Return {
    /// The address.
    pub to: Linear,
    /// The stack pointer after it.
    pub stack: u64,
}

impl LinuxAbi {
    /// Is it an address of the kernel's? (Firmware and boot loaders run below, and make no system calls.)
    #[inline]
    #[must_use]
    pub fn is_kernel(&self, at: Linear) -> bool {
        at >= self.kernel_from
    }

    /// An argument of the function at whose first instruction the vCPU is, from 0.
    #[must_use]
    pub fn argument(&self, cpu: &CurrentCpu, number: usize) -> Option<u64> {
        self.arguments.get(number)?.read(cpu)
    }

    /// Where the function returns to at whose first instruction the vCPU is.
    #[must_use]
    pub fn returns(&self, cpu: &CurrentCpu) -> Option<Return> {
        let stack = self.stack.read(cpu)?;
        match self.link {
            Some(link) => Some(Return { to: Linear(link.read(cpu)?), stack }),
            None => {
                let to = cpu.bytes(stack).map(u64::from_le_bytes)?;
                Some(Return { to: Linear(to), stack: stack.wrapping_add(size_of::<u64>() as u64) })
            }
        }
    }

    /// The `task_struct` that a vCPU in the kernel runs. `offset`: what [`LinuxKernel::current_task`] says.
    #[must_use]
    pub fn current_task(&self, cpu: &CurrentCpu, offset: Option<u64>) -> Option<u64> {
        if self.kernel.current_task.is_none() {
            return self.current_task.read(cpu);
        }
        let offset = offset?;
        cpu.bytes(self.current_task.read(cpu)?.wrapping_add(offset)).map(u64::from_le_bytes)
    }
}

/// The vCPUs whose CPUs are online, as the running kernel's mask says; the kernel numbers its CPUs as QEMU does.
/// `None`: the symbols do not tell where it is.
#[must_use]
pub fn online_vcpus(cpu: &CurrentCpu, symbols: &Symbolizer, vcpus: usize) -> Option<Vec<Vcpu>> {
    let mask = cpu.memory(symbols.runtime_address_of(ONLINE_MASK)?, vcpus.div_ceil(8))?;
    let is_online = |vcpu: &usize| mask[vcpu / 8] >> (vcpu % 8) & 1 != 0;
    Some((0..vcpus).filter(is_online).map(|vcpu| Vcpu(vcpu as u16)).collect())
}
