//! Who runs: which task is on which vCPU, and when two sightings are of the same one.
//!
//! Three things are known of a task, not all of them always: its `task_struct` (from `__switch_to`, and from the
//! per-CPU pointer at entries of the kernel), the page table that its
//! vCPU uses, and the vCPU. After `fork()` two processes have the same code at the same addresses on the same stack
//! addresses: only these tell them apart.

use super::context::{Context, TaskName};
use crate::arch::isolation::Isolation;
use icsan_model::addr::Vcpu;

/// What the registers of a vCPU say of who runs there, where they were read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// The address of the `task_struct`.
    pub task: Option<u64>,
    /// The physical address of the page table.
    pub space: Option<u64>,
}

/// The task that runs on a vCPU, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Who {
    /// Where.
    pub vcpu: Vcpu,
    /// Which task, and in which address space.
    pub identity: Identity,
}

/// The best name for a task: `task_struct`, page table, or vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Task {
    /// The kernel's word.
    Struct(u64),
    /// The physical address of the page table.
    Space(u64),
    /// Nothing is known.
    Vcpu(Vcpu),
}

impl Who {
    /// The best name.
    #[must_use]
    pub fn best(self) -> Task {
        self.identity.task.map_or(self.process(), Task::Struct)
    }

    /// The best name if the task is not known.
    #[must_use]
    pub fn process(self) -> Task {
        self.identity.space.map_or(Task::Vcpu(self.vcpu), Task::Space)
    }

    /// Are both surely the same task of the kernel's, in the kernel? Without a `task_struct` it is the one that its
    /// vCPU runs from the start: what it is called is learned no later
    /// than when it makes place for another.
    #[must_use]
    pub fn is_kernel_task(self, other: Self) -> bool {
        match (self.identity.task, other.identity.task) {
            (None, None) => self.vcpu == other.vcpu,
            (task, other) => task == other,
        }
    }

    /// May both be the same task of the kernel's? Not if two different ones are known.
    #[must_use]
    pub fn may_be_kernel_task(self, other: Self) -> bool {
        self.identity.task.is_none() || other.identity.task.is_none() || self.identity.task == other.identity.task
    }

    /// Are both surely the same thread of a program?
    #[must_use]
    pub fn is_thread(self, other: Self) -> bool {
        self.identity.task.is_some() && self.identity.task == other.identity.task
    }

    /// Are both, in user mode, the same task, or of the same process where their tasks are not known?
    #[must_use]
    pub fn is_process(self, other: Self) -> bool {
        if self.identity.task.is_some() && other.identity.task.is_some() {
            self.is_thread(other)
        } else {
            self.process() == other.process()
        }
    }

    /// The same, while the other one is in the kernel.
    #[must_use]
    pub fn is_process_in_kernel(self, kernel: Self, isolation: Isolation) -> bool {
        match (self.identity, kernel.identity) {
            (Identity { task: Some(user), .. }, Identity { task: Some(kernel), .. }) => user == kernel,
            (Identity { space: Some(user), .. }, Identity { space: Some(kernel), .. }) => {
                isolation.is_one_process(user, kernel)
            }
            _ => self.is_process(kernel),
        }
    }
}

/// What a vCPU runs.
#[derive(Clone, Default, Debug)]
struct Running {
    identity: Identity,
    /// Its name, looked up at most once after each switch.
    name: Option<Option<TaskName>>,
}

/// What all vCPUs run.
#[derive(Debug)]
pub struct Tasks(Vec<Running>);

impl Tasks {
    /// Nothing is known.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self(vec![Running::default(); vcpus])
    }

    /// Nothing is known any more.
    pub fn forget(&mut self) {
        self.0.fill(Running::default());
    }

    /// Who runs on a vCPU.
    #[must_use]
    pub fn who(&self, vcpu: Vcpu) -> Who {
        let identity = self.0.get(usize::from(vcpu.0)).map(|running| running.identity).unwrap_or_default();
        Who { vcpu, identity }
    }

    /// The vCPU's registers were read. What they do not say stays as it was.
    pub fn set(&mut self, vcpu: Vcpu, seen: Identity) {
        let Some(running) = self.0.get_mut(usize::from(vcpu.0)) else { return };
        let Identity { task, space } = running.identity;
        let now = Identity { task: seen.task.or(task), space: seen.space.or(space) };
        if now.task != task {
            running.name = None;
        }
        running.identity = now;
    }

    /// Who runs on a vCPU, as far as it was looked up.
    #[must_use]
    pub fn context(&self, vcpu: Vcpu) -> Context {
        let task = self.0.get(usize::from(vcpu.0)).and_then(|running| running.name.clone().flatten());
        Context { space: self.who(vcpu).identity.space, privilege: None, task }
    }

    /// The name of the task on a vCPU. `look_up` finds it by the address of the `task_struct`.
    pub fn name(&mut self, vcpu: Vcpu, look_up: impl FnOnce(u64) -> Option<TaskName>) -> Option<TaskName> {
        let running = self.0.get_mut(usize::from(vcpu.0))?;
        let task = running.identity.task;
        running.name.get_or_insert_with(|| task.and_then(look_up)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(vcpu: u16, task: Option<u64>, space: Option<u64>) -> Who {
        Who { vcpu: Vcpu(vcpu), identity: Identity { task, space } }
    }

    #[test]
    fn two_sightings_are_of_one_task_or_not() {
        let (a, b) = (Some(0xa000), Some(0xb000));
        // Both tasks are known: nothing else counts.
        assert!(
            who(0, a, Some(0x1000)).is_process(who(1, a, Some(0x2000)))
                && !who(0, a, Some(0x1000)).is_process(who(0, b, Some(0x1000)))
        );
        // One is: the address space decides.
        assert!(who(0, None, Some(0x1000)).is_process(who(1, a, Some(0x1000))));
        assert!(!who(0, None, Some(0x1000)).is_process(who(0, a, Some(0x2000))));
        assert!(
            !who(0, None, None).is_process(who(0, a, Some(0x2000))),
            "what was not known then is not taken for anything"
        );
        assert!(
            who(0, None, None).is_process(who(0, None, None)) && !who(0, None, None).is_process(who(1, None, None))
        );
        // In the kernel the vCPU decides, and no address space: the kernel changes it while it patches.
        assert!(who(0, None, Some(0x1000)).is_kernel_task(who(0, None, Some(0x2000))));
        assert!(
            !who(0, None, Some(0x1000)).is_kernel_task(who(1, None, Some(0x1000)))
                && !who(0, None, None).is_kernel_task(who(0, a, None))
        );
        assert!(
            who(0, None, None).may_be_kernel_task(who(1, a, None))
                && !who(0, b, None).may_be_kernel_task(who(0, a, None))
        );
        // A thread is one of several in its address space.
        assert!(
            !who(0, None, Some(0x1000)).is_thread(who(0, None, Some(0x1000)))
                && who(0, a, None).is_thread(who(1, a, None))
        );
    }

    #[test]
    fn what_registers_do_not_say_stays_as_it_was() {
        let mut tasks = Tasks::new(1);
        let name = |comm: &str| Some(TaskName { pid: 1, comm: comm.into() });
        tasks.set(Vcpu(0), Identity { task: Some(1), space: None });
        tasks.set(Vcpu(0), Identity { task: None, space: Some(2) });
        assert_eq!(tasks.who(Vcpu(0)).identity, Identity { task: Some(1), space: Some(2) });
        assert_eq!(tasks.name(Vcpu(0), |_| name("a")), name("a"));
        assert_eq!(tasks.name(Vcpu(0), |_| name("b")), name("a"), "it is looked up once");
        tasks.set(Vcpu(0), Identity { task: Some(3), space: None });
        assert_eq!(tasks.name(Vcpu(0), |_| name("b")), name("b"));
        tasks.set(Vcpu(7), Identity { task: Some(3), space: None });
        assert_eq!(
            (tasks.who(Vcpu(7)).best(), tasks.name(Vcpu(7), |_| name("b"))),
            (Task::Vcpu(Vcpu(7)), None),
            "no such vCPU"
        );
    }
}
