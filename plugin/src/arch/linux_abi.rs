//! Where Linux on an architecture has what the plugin reads, as data: arguments, return addresses, the running task,
//! system calls. What needs more than data is the [`Platform`](super::platform::Platform)'s.

use crate::qemu::cpu::{CurrentCpu, NamedRegister};
use icsan_model::addr::{Linear, Vcpu};
use icsan_model::arch::sync_event::SyncEventSet;
use icsan_symbols::Symbolizer;
use icsan_symbols::linux::kernel::{LinuxKernel, ONLINE_MASK};

/// The function that makes a vCPU run another task.
#[derive(Clone, Copy, Debug)]
pub struct SwitchFunction {
    /// Its symbol.
    pub symbol: &'static str,
    /// Which argument is the task that runs so far, from 0: a pointer to its `task_struct`.
    pub previous: usize,
    /// Which one is the next.
    pub next: usize,
}

/// How programs call the kernel.
#[derive(Clone, Copy, Debug)]
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
    /// How calls come that are made in other ways ([`LinuxKernel::other_calls`]). `None`: there are none.
    pub other: Option<OtherCalls>,
}

/// The command of membarrier(2) PRIVATE_EXPEDITED_SYNC_CORE (include/uapi/linux/membarrier.h).
const SYNC_CORE: u64 = 1 << 5;

impl SystemCalls {
    /// A call is made by the instruction for it: is it `membarrier(SYNC_CORE)`?
    #[must_use]
    pub fn asks_sync_core(&self, cpu: &CurrentCpu) -> bool {
        self.number.read(cpu) == Some(self.membarrier) && self.argument.read(cpu) == Some(SYNC_CORE)
    }

    /// A call is made in another way: is it `membarrier(SYNC_CORE)`?
    #[must_use]
    pub fn asks_sync_core_otherwise(&self, cpu: &CurrentCpu) -> bool {
        self.other.is_some_and(|other| {
            other.number.read(cpu) == Some(other.membarrier) && other.argument.read(cpu) == Some(SYNC_CORE)
        })
    }
}

/// See [`SystemCalls::other`].
#[derive(Clone, Copy, Debug)]
pub struct OtherCalls {
    /// The register of the call's number.
    pub number: &'static NamedRegister,
    /// The register of the first argument.
    pub argument: &'static NamedRegister,
    /// The number of membarrier(2).
    pub membarrier: u64,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
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
    /// The returns to user mode that serialize, on an architecture where every one does: membarrier(2) relies on them.
    pub returns_sync: SyncEventSet,
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
        self.returns_by(|register| register.read(cpu), word_of(cpu))
    }

    fn returns_by(
        &self,
        read: impl Fn(&'static NamedRegister) -> Option<u64>,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<Return> {
        let stack = read(self.stack)?;
        Some(match self.link {
            Some(link) => Return { to: Linear(read(link)?), stack },
            None => Return { to: Linear(word(stack)?), stack: stack.wrapping_add(WORD) },
        })
    }

    /// The `task_struct` that a vCPU in the kernel runs. `offset`: what [`LinuxKernel::current_task`] says.
    #[must_use]
    pub fn current_task(&self, cpu: &CurrentCpu, offset: Option<u64>) -> Option<u64> {
        self.current_task_by(self.current_task.read(cpu), offset, word_of(cpu))
    }

    fn current_task_by(
        &self,
        register: Option<u64>,
        offset: Option<u64>,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        if self.kernel.current_task.is_none() { register } else { word(register?.wrapping_add(offset?)) }
    }
}

/// Bytes of a word, as 64-bit kernels have it.
const WORD: u64 = 8;

/// Reads the word at a linear address.
fn word_of(cpu: &CurrentCpu) -> impl Fn(u64) -> Option<u64> {
    |at| cpu.bytes(at).map(u64::from_le_bytes)
}

/// The vCPUs whose CPUs are online, as the running kernel's mask says; the kernel numbers its CPUs as QEMU does.
/// `None`: the symbols do not tell where it is.
#[must_use]
pub fn online_vcpus(cpu: &CurrentCpu, symbols: &Symbolizer, vcpus: usize) -> Option<Vec<Vcpu>> {
    let mask = cpu.memory(symbols.runtime_address_of(ONLINE_MASK)?, vcpus.div_ceil(8))?;
    let is_online = |vcpu: &usize| mask[vcpu / 8] >> (vcpu % 8) & 1 != 0;
    Some((0..vcpus).filter(is_online).map(|vcpu| Vcpu(vcpu as u16)).collect())
}

#[cfg(test)]
mod tests {
    use super::{LinuxAbi, Return};
    use crate::arch::x86;
    use crate::qemu::cpu::NamedRegister;
    use icsan_model::addr::Linear;
    use icsan_symbols::linux::kernel::LinuxKernel;

    const STACK: u64 = 0xffff_c900_0000_1000;
    const WORD_THERE: u64 = 0xffff_ffff_8100_0010;
    const LINK: u64 = 0xffff_8000_1000_0020;
    const TASK: u64 = 0xffff_0000_0012_3480;

    static X30: NamedRegister = NamedRegister::new("x30");

    /// As where calls leave the return address in a register, and a register names the running task.
    fn by_registers() -> LinuxAbi {
        static KERNEL: LinuxKernel = LinuxKernel { current_task: None, ..icsan_symbols::linux::x86::LINUX };
        LinuxAbi { kernel: &KERNEL, link: Some(&X30), ..x86::LINUX }
    }

    #[test]
    fn a_return_address_is_on_the_stack_or_in_a_register() {
        let read = |register: &NamedRegister| Some(if register.name() == "x30" { LINK } else { STACK });
        let word = |at: u64| (at == STACK).then_some(WORD_THERE);
        let pushed = x86::LINUX.returns_by(read, word);
        assert_eq!(pushed, Some(Return { to: Linear(WORD_THERE), stack: STACK + 8 }));
        assert_eq!(by_registers().returns_by(read, word), Some(Return { to: Linear(LINK), stack: STACK }));
        assert_eq!(x86::LINUX.returns_by(read, |_| None), None, "the stack cannot be read");
    }

    #[test]
    fn a_task_is_named_by_a_variable_of_its_cpu_or_by_a_register() {
        let word = |at: u64| (at == STACK + 0x40).then_some(TASK);
        assert_eq!(x86::LINUX.current_task_by(Some(STACK), Some(0x40), word), Some(TASK));
        assert_eq!(x86::LINUX.current_task_by(Some(STACK), None, word), None, "the symbols do not tell");
        assert_eq!(by_registers().current_task_by(Some(TASK), None, |_| None), Some(TASK));
    }
}
