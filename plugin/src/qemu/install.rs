//! The entry that QEMU calls, and the cold callbacks, whose form depends on the version of the API.

use super::api::{Generation, api};
use super::cpu::{CurrentCpu, CurrentVcpu, learn_registers};
use super::entries;
use super::guard::{guard, guard_always};
use super::machine_events::{tell, told};
use super::process::{exit_now, say};
use super::translation::Translation;
use icsan_model::addr::Vcpu;
use libc::{c_char, c_int, c_uint, c_void};
use qemu_plugin_sys as sys;
use std::ffi::CStr;

/// What QEMU says of the machine at installation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// QEMU's name of the guest architecture.
    pub target: String,
    /// The oldest and the newest plugin API that this QEMU speaks.
    pub api: (i32, i32),
    /// The version that was chosen.
    pub generation: Generation,
    /// A whole machine, or a single user program?
    pub system: bool,
    /// How many vCPUs the machine starts with.
    pub vcpus: usize,
    /// How many it can have, with hot-plugged ones.
    pub max_vcpus: usize,
}

/// QEMU's entry. Returns 0 if the plugin was installed; otherwise one line on stderr says why not.
///
/// # Safety
/// Called by QEMU once, with valid pointers: `info` describes the machine, `argv` holds `argc` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const sys::qemu_info_t,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let mut result = -1;
    guard_always(|| {
        // SAFETY: the caller's promise.
        let (machine, arguments) = unsafe { (machine(info), arguments(argc, argv)) };
        match machine.and_then(|machine| start(id, machine, &arguments)) {
            Ok(()) => result = 0,
            Err(line) => say(&line),
        }
    });
    result
}

unsafe fn machine(info: *const sys::qemu_info_t) -> Result<Machine, String> {
    let generation = Generation::detect().ok_or("this QEMU is too old; use QEMU 10.0 or newer")?;
    // SAFETY: the caller's promise: `info` is valid, and its target name is a C string.
    unsafe {
        let info = &*info;
        let (vcpus, max_vcpus) = if info.system_emulation {
            let system = info.__bindgen_anon_1.system;
            (usize::try_from(system.smp_vcpus).unwrap_or(1), usize::try_from(system.max_vcpus).unwrap_or(1))
        } else {
            (1, 1)
        };
        Ok(Machine {
            target: CStr::from_ptr(info.target_name).to_string_lossy().into_owned(),
            api: (info.version.min, info.version.cur),
            generation,
            system: info.system_emulation,
            vcpus,
            max_vcpus,
        })
    }
}

unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<String> {
    (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: the caller's promise: `argc` valid C strings.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned())
        .collect()
}

fn start(id: u64, machine: Machine, arguments: &[String]) -> Result<(), String> {
    super::api::init().map_err(|missing| format!("{missing}; use QEMU 10.0 or newer"))?;
    let api = api().ok_or("no QEMU")?;
    let generation = machine.generation;
    let told = crate::install(machine, arguments)?;
    let wants_entries = told.wants_entries();
    if !tell(told) {
        return Err("loaded twice; give -plugin libicsan.so once".to_owned());
    }
    super::run_state::watch(stands_still);
    if wants_entries {
        entries::ask(id);
    }
    let none = std::ptr::null_mut();
    // SAFETY: each callback has the form that this version of the API calls (see the functions' types); an extra
    // argument that older versions do not know is passed in a register and not read. Up to API 6 the exit callback is
    // (id, userdata), since 7 (userdata).
    unsafe {
        if generation >= Generation::V7 {
            (api.qemu_plugin_register_vcpu_init_cb)(id, vcpu_init_v7 as *const c_void, none);
            (api.qemu_plugin_register_vcpu_idle_cb)(id, vcpu_runs_v7::<false> as *const c_void, none);
            (api.qemu_plugin_register_vcpu_resume_cb)(id, vcpu_runs_v7::<true> as *const c_void, none);
            (api.qemu_plugin_register_vcpu_tb_trans_cb)(id, translate_v7 as *const c_void, none);
            (api.qemu_plugin_register_flush_cb)(id, flushed_v7 as *const c_void, none);
            (api.qemu_plugin_register_atexit_cb)(id, exit_v7 as *const c_void, none);
        } else {
            (api.qemu_plugin_register_vcpu_init_cb)(id, vcpu_init_v4 as *const c_void, none);
            (api.qemu_plugin_register_vcpu_idle_cb)(id, vcpu_runs_v4::<false> as *const c_void, none);
            (api.qemu_plugin_register_vcpu_resume_cb)(id, vcpu_runs_v4::<true> as *const c_void, none);
            (api.qemu_plugin_register_vcpu_tb_trans_cb)(id, translate_v4 as *const c_void, none);
            (api.qemu_plugin_register_flush_cb)(id, flushed_v4 as *const c_void, none);
            (api.qemu_plugin_register_atexit_cb)(id, exit_v4 as *const c_void, none);
        }
    }
    Ok(())
}

unsafe extern "C" fn vcpu_init_v4(_id: u64, vcpu: c_uint) {
    vcpu_init(vcpu);
}

unsafe extern "C" fn vcpu_init_v7(vcpu: c_uint, _userdata: *mut c_void) {
    vcpu_init(vcpu);
}

unsafe extern "C" fn vcpu_runs_v4<const RUNS: bool>(_id: u64, vcpu: c_uint) {
    vcpu_runs(vcpu, RUNS);
}

unsafe extern "C" fn vcpu_runs_v7<const RUNS: bool>(vcpu: c_uint, _userdata: *mut c_void) {
    vcpu_runs(vcpu, RUNS);
}

unsafe extern "C" fn translate_v4(_id: u64, tb: *mut sys::qemu_plugin_tb) {
    translate(tb);
}

unsafe extern "C" fn translate_v7(tb: *mut sys::qemu_plugin_tb, _userdata: *mut c_void) {
    translate(tb);
}

unsafe extern "C" fn flushed_v4(_id: u64) {
    flushed();
}

unsafe extern "C" fn flushed_v7(_userdata: *mut c_void) {
    flushed();
}

unsafe extern "C" fn exit_v4(_id: u64, _userdata: *mut c_void) {
    exit();
}

unsafe extern "C" fn exit_v7(_userdata: *mut c_void) {
    exit();
}

fn vcpu_init(vcpu: c_uint) {
    guard(|| {
        super::current::set_vcpu(Vcpu(vcpu as u16));
        learn_registers();
        if let Some(told) = told() {
            // SAFETY: QEMU calls on the vCPU's thread, outside of generated code, and the tokens do not outlive the
            // callback.
            let (vcpu, cpu) = unsafe { (CurrentVcpu::new(vcpu), CurrentCpu::new(true)) };
            told.vcpu_start(&vcpu, &cpu);
        }
    });
}

fn vcpu_runs(vcpu: c_uint, runs: bool) {
    guard(|| {
        if let Some(told) = told() {
            // SAFETY: QEMU calls on the vCPU's thread, and the token does not outlive the callback.
            told.vcpu_runs(&unsafe { CurrentVcpu::new(vcpu) }, runs);
        }
    });
}

fn flushed() {
    guard(|| {
        if let Some(told) = told() {
            told.flushed();
        }
    });
}

/// The machine is stopped, or goes on.
fn stands_still(stopped: bool) {
    guard(|| {
        if let Some(told) = told() {
            told.stands_still(stopped);
        }
    });
}

fn translate(tb: *mut sys::qemu_plugin_tb) {
    guard(|| {
        if let Some(told) = told() {
            // SAFETY: the thread is the vCPU's since its init callback, it is in no other callback of it, and the token
            // does not outlive this one.
            let vcpu = super::current::vcpu().map(|vcpu| unsafe { CurrentVcpu::new(vcpu.0.into()) });
            // SAFETY: QEMU's handle, valid within the callback that is running.
            told.translate(&unsafe { Translation::new(tb) }, vcpu.as_ref());
        }
    });
}

fn exit() {
    let Some(told) = told() else { return };
    let mut code = None;
    guard_always(|| code = told.failed_exit());
    guard_always(|| code = told.exit());
    if let Some(code) = code {
        exit_now(code);
    }
}
