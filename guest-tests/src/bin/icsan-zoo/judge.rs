//! Compares what ICSAN said about one boot with the zoo's table.

use crate::evidence::{Evidence, Write};
use crate::explained::explain;
use icsan_guest_tests::glob::matches_any;
use icsan_guest_tests::marker::Marker;
use icsan_guest_tests::table::WRITER;
use icsan_guest_tests::verdict::{Kind, Mode, Profile, Verdict};
use icsan_guest_tests::zoo::{NO_SYMBOL, Row, Zoo};

/// What came of one row in one boot, or of what lies outside of all rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// The workload.
    pub workload: String,
    /// What was demanded, in words.
    pub demanded: String,
    /// What is wrong, if anything.
    pub fault: Option<String>,
}

/// The name of what is reported outside of all workloads.
pub const OUTSIDE: &str = "boot";

/// How a boot went, besides what was reported of code.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Course {
    /// How often a CPU was left out and serialized in time, as it was meant to.
    pub deferred: u64,
    /// Did the kernel die, and when?
    pub death: Option<Death>,
}

/// When a kernel died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// At boot: it patches itself there, too, with the same bug.
    AtBoot,
    /// After its workload began.
    AtWork,
}

/// Judges one workload.
#[must_use]
pub fn row(zoo: &Zoo, row: &Row, evidence: &[Evidence], course: Course, mode: Mode, profile: Profile) -> Judged {
    let Course { deferred, death } = course;
    let marker = u64::from(zoo.workload_id(row.workload));
    let mine = |found: &&Evidence| {
        let at_boot = death == Some(Death::AtBoot) && found.hazard.marker == Marker::OUTSIDE;
        (at_boot || u64::from(found.hazard.marker.scenario) == marker) && found.hazard.kind != Kind::Emulator
    };
    let found: Vec<&Evidence> = evidence.iter().filter(mine).collect();
    let verdict = row.verdict(mode, profile);
    let (demanded, fault) = match verdict {
        Verdict::Silent if row.deferred && found.is_empty() && mode == Mode::Full => {
            ("deferred".into(), (deferred == 0).then(|| "should be deferred, but no CPU was left out".to_owned()))
        }
        Verdict::Silent => {
            ("silent".into(), (!found.is_empty()).then(|| format!("should be silent, but: {}", list(&found))))
        }
        Verdict::Reported(Kind::Unsynced) => {
            // Its own code killed the kernel in its first patch, before that was committed: what it executed was seen,
            // or, if it met a half of what was stored and nothing outdated, what its protocol left out at boot.
            let executed = || found.iter().any(|found| found.hazard.kind != Kind::Unsynced);
            let at_boot = || {
                evidence.iter().any(|found| {
                    found.hazard.marker == Marker::OUTSIDE
                        && found.hazard.kind == Kind::Unsynced
                        && is_of_protocol(found, row.site)
                })
            };
            let committed = found.iter().any(|found| found.hazard.kind == Kind::Unsynced);
            let was_seen = || death.is_some() && !committed && (executed() || at_boot());
            let fault = fault_of_protocol(row, row.site, &found).filter(|_| !was_seen());
            (Kind::Unsynced.to_string(), fault)
        }
        Verdict::Reported(kind) => {
            // A broken protocol is unsynced whatever is executed.
            let (unsynced, executed): (Vec<&Evidence>, Vec<&Evidence>) =
                found.into_iter().partition(|found| found.hazard.kind == Kind::Unsynced);
            let fault = fault_of(row, kind, &executed, mode);
            match row.unsynced.filter(|_| mode == Mode::Full) {
                None => (kind.to_string(), fault),
                Some(functions) => {
                    (format!("{kind}, unsynced"), fault.or_else(|| fault_of_protocol(row, functions, &unsynced)))
                }
            }
        }
        Verdict::Unchecked(_) => ("any".into(), None),
    };
    Judged { workload: row.label(), demanded, fault }
}

/// Was one of these functions asked?
fn is_of_protocol(found: &Evidence, functions: &str) -> bool {
    found.hazard.protocol.as_ref().is_some_and(|function| matches_any(functions, function))
}

/// Unsynced at least once, of one of these functions, on the vCPU that does not patch; of no other function, and never
/// on the one that does. What CPUs then execute is chance.
fn fault_of_protocol(row: &Row, functions: &str, found: &[&Evidence]) -> Option<String> {
    let unsynced = found.iter().copied().filter(|found| found.hazard.kind == Kind::Unsynced);
    let right = |found: &&Evidence| is_of_protocol(found, functions) && found.hazard.vcpu == row.executor as u64;
    let (right, wrong): (Vec<&Evidence>, Vec<&Evidence>) = unsynced.partition(right);
    if !wrong.is_empty() {
        return Some(format!("should be unsynced in {functions} on vCPU {} only, but: {}", row.executor, list(&wrong)));
    }
    right.is_empty().then(|| format!("should be unsynced in {functions}, but is not"))
}

/// The right kind at least once, by the right executor at the right place, and nothing anywhere else, unless the bug is
/// everywhere; all that is reported there is put down to the right stores. A lesser kind there is no fault: the window
/// that the bug opens can be met in more than one way.
fn fault_of(row: &Row, kind: Kind, found: &[&Evidence], mode: Mode) -> Option<String> {
    let there =
        |found: &Evidence| found.hazard.vcpu == row.executor as u64 && at(row.site, found.hazard.symbol.as_deref());
    let by = |found: &Evidence| {
        mode == Mode::Light || !found.writes.is_empty() && found.writes.iter().all(|write| is_by(row, write))
    };
    let (there, elsewhere): (Vec<&Evidence>, Vec<&Evidence>) = found.iter().copied().partition(|found| there(found));
    let strange: Vec<&Evidence> = there.iter().copied().filter(|found| !by(found)).collect();
    if found.is_empty() {
        Some(format!("should be {kind}, but is silent"))
    } else if there.is_empty() || !(elsewhere.is_empty() || row.everywhere) {
        Some(format!("should be on vCPU {} at {}, but: {}", row.executor, shown(row.site), list(&elsewhere)))
    } else if !there.iter().any(|found| found.hazard.kind == kind) {
        Some(format!("should be {kind}, but: {}", list(&there)))
    } else if !strange.is_empty() {
        let function = row.function.map(|function| format!(" in {function}")).unwrap_or_default();
        Some(format!("should be put down to vCPU {WRITER}, {}{function}, but: {}", row.writer, list(&strange)))
    } else {
        None
    }
}

/// Is a store the writer's: its vCPU, the storing instruction, and the patching function in whose name it was made?
fn is_by(row: &Row, write: &Write) -> bool {
    let symbol = write.symbol.as_ref().is_some_and(|symbol| matches_any(row.writer, symbol));
    let function = match (row.function, &write.function) {
        (None, None) => true,
        (Some(globs), Some(function)) => matches_any(globs, function),
        _ => false,
    };
    write.vcpu == Some(WRITER as u64) && symbol && function
}

fn at(site: &str, symbol: Option<&str>) -> bool {
    match symbol {
        None => site == NO_SYMBOL,
        Some(symbol) => site != NO_SYMBOL && matches_any(site, symbol),
    }
}

fn shown(site: &str) -> &str {
    if site == NO_SYMBOL { "a place without symbol" } else { site }
}

/// Judges what was reported outside of all workloads: nothing, but for what is explained, unless the bug is everywhere.
#[must_use]
pub fn outside(rows: &[Row], evidence: &[Evidence], mode: Mode, profile: Profile) -> Judged {
    if rows.iter().any(|row| row.everywhere) {
        return Judged { workload: OUTSIDE.into(), demanded: "any".into(), fault: None };
    }
    let unexplained = |found: &&Evidence| {
        found.hazard.marker == Marker::OUTSIDE
            && found.hazard.kind != Kind::Emulator
            && explain(&found.hazard, mode, profile).is_none()
    };
    let found: Vec<&Evidence> = evidence.iter().filter(unexplained).collect();
    let fault = (!found.is_empty()).then(|| format!("unexplained: {}", list(&found)));
    Judged { workload: OUTSIDE.into(), demanded: "silent".into(), fault }
}

fn list(found: &[&Evidence]) -> String {
    let mut text: Vec<String> = found.iter().take(3).map(|found| describe(found)).collect();
    if found.len() > 3 {
        text.push(format!("{} more", found.len() - 3));
    }
    text.join("; ")
}

fn describe(found: &Evidence) -> String {
    let hazard = &found.hazard;
    let symbol = hazard.symbol.as_deref().map(|symbol| format!(" {symbol}")).unwrap_or_default();
    let writes: Vec<String> = found.writes.iter().map(describe_write).collect();
    let writes = if writes.is_empty() { String::new() } else { format!(", written by {}", writes.join(" and ")) };
    format!("{} on vCPU {} at {:#x}{symbol}{writes}", hazard.kind, hazard.vcpu, hazard.pc)
}

fn describe_write(write: &Write) -> String {
    let vcpu = write.vcpu.map_or_else(|| "no vCPU".into(), |vcpu| format!("vCPU {vcpu}"));
    let symbol = write.symbol.as_deref().unwrap_or("code without symbol");
    let function = write.function.as_ref().map(|function| format!(" in {function}")).unwrap_or_default();
    format!("{vcpu}, {symbol}{function}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence;
    use icsan_guest_tests::verdict::x86::LINUX_X86;
    use icsan_guest_tests::zoo::x86::ZOO;

    /// As a report would have it.
    fn evidence(kind: Kind, vcpu: u64, symbol: &str, writer: &str, workload: &str) -> Evidence {
        let marker = Marker { scenario: ZOO.workload_id(workload), round: 1, attempt: 1 };
        let writes = match writer.split_once('/') {
            None => String::new(),
            Some((symbol, function)) => {
                format!(
                    r#"{{"seq":1,"vcpu":0,"pc":"0x1","symbol":"{symbol}+0x3/0x9","function":"{function}+0x0/0x9"}}"#
                )
            }
        };
        let hazard = format!(
            r#"{{"type":"hazard","kind":"{kind}","vcpu":{vcpu},"pc":"0xffffffff81000000","symbol":"{symbol}","marker":"{marker}","writes":[{writes}],"count":1}}"#
        );
        let whole = format!(
            "{}\n{hazard}\n{}\n",
            r#"{"type":"start","profile":"linux-x86","arch":"x86_64","qemu":"10.0.2","api":4,"vcpus":2,"schema":1}"#,
            r#"{"type":"summary","hazards":{},"blocks":1,"complete":true}"#
        );
        evidence::read(&whole).unwrap().1.remove(0)
    }

    fn key(found: &[Evidence], mode: Mode) -> Option<String> {
        let bug = ZOO.bugs.iter().find(|row| row.workload == "key").unwrap();
        row(&ZOO, bug, found, Course::default(), mode, LINUX_X86).fault
    }

    const SITE: &str = "zoo_keyed+0x4/0x20";
    /// The storing function, and in whose name it stores.
    const COPY: &str = "memcpy/arch_jump_label_transform_queue";

    #[test]
    fn kind_executor_site_and_writer_count() {
        let right = evidence(Kind::Stale, 1, SITE, COPY, "key");
        assert_eq!(key(std::slice::from_ref(&right), Mode::Full), None);
        assert!(key(&[], Mode::Full).unwrap().contains("silent"));
        assert!(
            key(&[evidence(Kind::Unserialized, 1, SITE, COPY, "key")], Mode::Full).unwrap().contains("should be stale")
        );
        assert!(key(&[evidence(Kind::Stale, 0, SITE, COPY, "key")], Mode::Full).unwrap().contains("on vCPU 1"));
        assert!(
            key(&[evidence(Kind::Stale, 1, SITE, "strcpy/arch_jump_label_transform_queue", "key")], Mode::Full)
                .unwrap()
                .contains("put down to")
        );
        assert!(
            key(&[evidence(Kind::Stale, 1, SITE, "memcpy/text_poke_finish", "key")], Mode::Full)
                .unwrap()
                .contains("in text_poke_finish")
        );
        let mut by_executor = right.clone();
        by_executor.writes[0].vcpu = Some(1);
        assert!(key(&[right.clone(), by_executor], Mode::Full).unwrap().contains("put down to vCPU 0"));
        let elsewhere = evidence(Kind::Torn, 1, "schedule+0x1/0x2", COPY, "key");
        assert_eq!(key(&[right.clone(), elsewhere.clone()], Mode::Full), None, "this bug is everywhere");
        assert!(key(&[elsewhere], Mode::Full).is_some());
        // Not this workload's, and the emulator's own.
        assert!(key(&[evidence(Kind::Stale, 1, SITE, COPY, "batch")], Mode::Full).unwrap().contains("silent"));
        assert!(key(&[evidence(Kind::Emulator, 1, SITE, COPY, "key")], Mode::Full).unwrap().contains("silent"));
    }

    /// Of the design that leaves out CPUs in user mode, in full mode.
    fn deferral(workload: &str, isolated: bool, found: &[Evidence], deferred: u64) -> Option<String> {
        let bug = ZOO
            .bugs
            .iter()
            .find(|row| row.variant == "defer-user" && row.workload == workload && row.isolated == isolated)
            .unwrap();
        row(&ZOO, bug, found, Course { deferred, death: None }, Mode::Full, LINUX_X86).fault
    }

    #[test]
    fn a_cpu_that_is_deferred_must_have_been_left_out() {
        assert_eq!(deferral("defer-plain", true, &[], 24), None);
        assert!(deferral("defer-plain", true, &[], 0).unwrap().contains("no CPU was left out"));
        let unsynced = unsynced(1, "defer-plain");
        assert!(deferral("defer-plain", true, &[unsynced], 24).unwrap().contains("should be silent"));
    }

    fn unsynced(vcpu: u64, workload: &str) -> Evidence {
        let mut found = evidence(Kind::Unsynced, vcpu, SITE, COPY, workload);
        found.hazard.protocol = Some("text_poke_bp_batch".into());
        found
    }

    #[test]
    fn what_is_executed_and_what_is_unsynced_are_demanded_both() {
        let stale = evidence(Kind::Stale, 1, SITE, "memcpy/arch_jump_label_transform_apply", "defer-plain");
        let unsynced = |vcpu| unsynced(vcpu, "defer-plain");
        assert_eq!(deferral("defer-plain", false, &[stale.clone(), unsynced(1)], 0), None);
        assert!(deferral("defer-plain", false, &[unsynced(1)], 0).unwrap().contains("should be stale"));
        assert!(deferral("defer-plain", false, std::slice::from_ref(&stale), 0).unwrap().contains("but is not"));
        assert!(
            deferral("defer-plain", false, &[stale, unsynced(1), unsynced(0)], 0).unwrap().contains("on vCPU 1 only")
        );
    }

    #[test]
    fn a_kernel_that_dies_before_its_first_commit_is_found_by_what_it_executed() {
        let everyday = |variant: &str, found: &[Evidence], death| {
            let bug = ZOO.bugs.iter().find(|row| row.variant == variant && row.workload == "everyday").unwrap();
            row(&ZOO, bug, found, Course { deferred: 0, death }, Mode::Full, LINUX_X86).fault
        };
        let stale = evidence(Kind::Stale, 1, SITE, COPY, "everyday");
        let variant = "static-key-memcpy";
        let at_work = Some(Death::AtWork);
        assert_eq!(everyday(variant, std::slice::from_ref(&stale), at_work), None);
        assert!(
            everyday(variant, std::slice::from_ref(&stale), None).unwrap().contains("but is not"),
            "it lived, and committed"
        );
        assert!(everyday(variant, &[], at_work).unwrap().contains("but is not"), "nothing was seen");
        let by_itself = unsynced(0, "everyday");
        assert!(everyday(variant, &[stale, by_itself], at_work).unwrap().contains("on vCPU 1 only"));
        let mut at_boot = unsynced(1, "everyday");
        at_boot.hazard.protocol = Some("text_poke_finish".into());
        at_boot.hazard.marker = Marker::OUTSIDE;
        assert_eq!(everyday(variant, std::slice::from_ref(&at_boot), Some(Death::AtBoot)), None);
        assert_eq!(everyday(variant, std::slice::from_ref(&at_boot), at_work), None, "it died of half a store");
        assert!(everyday(variant, std::slice::from_ref(&at_boot), None).unwrap().contains("but is not"), "it lived");
        at_boot.hazard.protocol = Some("text_poke_early".into());
        assert!(everyday(variant, &[at_boot], at_work).unwrap().contains("but is not"), "another function");
    }

    #[test]
    fn the_light_mode_knows_no_writer() {
        let found = evidence(Kind::Unserialized, 1, SITE, "", "key");
        assert_eq!(key(std::slice::from_ref(&found), Mode::Light), None);
        assert!(key(&[found], Mode::Full).is_some());
    }

    #[test]
    fn outside_of_workloads_only_what_is_explained() {
        let mut found = evidence(Kind::Unserialized, 0, "memcpy_orig+0xf3/0x130", "", "key");
        found.hazard.marker = Marker::OUTSIDE;
        found.hazard.known = Some("docs/findings.md#memcpy_orig".into());
        assert_eq!(outside(&[], std::slice::from_ref(&found), Mode::Light, LINUX_X86).fault, None);
        found.hazard.known = None;
        assert!(outside(&[], &[found], Mode::Light, LINUX_X86).fault.is_some());
    }
}
