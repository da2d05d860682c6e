//! The detector's parts by example: who is fenced, who is let go, what waits for its store and for how long.

mod board;

use board::{Code, Fences, Own, Shared};
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::arch::decode::Decode;
use icsan_model::arch::x86::X86_64;
use icsan_model::detector::changes::{Changes, Settling, Told, ToldOf};
use icsan_model::detector::flags::{Flag, Flags, OwnBoard, Rules, Segment};
use icsan_model::detector::history::{Footprint, History, Place, Question};
use icsan_model::detector::light::CodeRun;
use icsan_model::event::Store;
use icsan_model::memory::PAGE;
use icsan_model::testing::strategies::Toy;
use icsan_model::verdict::kind::Kind;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Counts the heavy ones.
#[derive(Debug, Default)]
struct Counted(Cell<u32>);

impl Fences for Counted {
    fn heavy(&self) {
        self.0.set(self.0.get() + 1);
    }
}

type Plain = Code<AtomicU64>;
type Board = Shared<AtomicU64, Counted>;

const RULES: Rules = Rules { writers: true, snoop: false, maintained: false };

/// Two vCPUs that run.
fn guest(rules: Rules) -> (Flags<Board>, [Own<AtomicU64, Counted>; 2]) {
    let board = Board::new(2, 4, Counted::default());
    let own = [board.own(Vcpu(0)), board.own(Vcpu(1))];
    (board::flags(board, 2, rules), own)
}

fn fences(flags: &Flags<Board>) -> u32 {
    flags.board().0.fences.0.get()
}

#[test]
fn the_others_are_fenced_if_they_run_and_may_hold_what_changed() {
    let (flags, [zero, one]) = guest(RULES);
    let code = Code::numbered(0);
    let changes = |flags: &Flags<Board>| flags.invalidate(&[&code], Some(flags.next()));
    changes(&flags);
    assert_eq!(fences(&flags), 1, "nothing is known of who executed it before its first change");
    changes(&flags);
    assert_eq!(fences(&flags), 1, "nobody executed it since");
    let slow = |own: &Own<AtomicU64, Counted>| own.set(&own.slot(code.slot()).unwrap(), Flag::Executed, flags.now());
    assert!(!flags.fast_path(&one, &code, || true) && slow(&one));
    assert_eq!((one.flag(code.slot()), one.first_fetch(code.slot())), (Flag::Executed, Seq(2)));
    changes(&flags);
    assert_eq!((fences(&flags), one.flag(code.slot()), zero.flag(code.slot())), (2, Flag::Recheck, Flag::Clear));
    changes(&flags);
    assert_eq!(fences(&flags), 2, "it is looked at again as it is");
    // Its first fetch is older than the last change, but it executed the segment after it.
    assert!(!flags.fast_path(&one, &code, || true) && slow(&one));
    changes(&flags);
    assert_eq!((fences(&flags), one.flag(code.slot()), one.first_fetch(code.slot())), (3, Flag::Recheck, Seq(2)));
    slow(&one);
    flags.runs(Vcpu(1), false);
    changes(&flags);
    assert_eq!((fences(&flags), one.flag(code.slot())), (3, Flag::Recheck), "nobody else runs");
}

#[test]
fn the_fast_path_says_no_and_does_nothing_where_there_is_something_to_judge() {
    let (flags, [own, _]) = guest(RULES);
    let code = Code::numbered(0);
    let unknown = Code::numbered(99);
    assert!(!flags.fast_path(&own, &unknown, || panic!("not before the slot is known")));
    assert!(!flags.fast_path(&own, &code, || false) && own.flag(code.slot()) == Flag::Clear);
    assert!(flags.fast_path(&own, &code, || true) && own.flag(code.slot()) == Flag::Executed);
    let change = flags.next();
    flags.invalidate(&[&code], Some(change));
    flags.begin_epoch(&own);
    assert!(!flags.fast_path(&own, &code, || true) && own.flag(code.slot()) == Flag::Clear);
    // Memory is looked at after the moment is taken: a change in between is later.
    let (flags, [own, _]) = guest(RULES);
    let code = Code::numbered(0);
    assert!(flags.fast_path(&own, &code, || flags.next() == Seq(1)) && own.first_fetch(code.slot()) == Seq(0));

    let (snoops, [own, _]) = guest(Rules { snoop: true, ..RULES });
    let changed = Code::numbered(1);
    changed.last_change.note(Seq(5));
    assert!(snoops.fast_path(&own, &changed, || true), "there never is");
    let (light, [own, _]) = guest(Rules { writers: false, ..RULES });
    assert!(light.fast_path(&own, &changed, || true), "no store is watched");
}

#[test]
fn the_list_of_what_is_set_grows_and_is_cleared_whole() {
    let board: Shared<AtomicU64, Counted> = Shared::new(1, 1000, Counted::default());
    let own = board.own(Vcpu(0));
    let flags = board::flags(board, 1, RULES);
    let code: Vec<Plain> = (0..1000).map(Code::numbered).collect();
    for round in 0..2 {
        let mut refused = 0;
        for code in &code {
            if !flags.fast_path(&own, code, || true) {
                refused += 1;
                own.reserve();
                assert!(flags.fast_path(&own, code, || true));
            }
        }
        assert_eq!(refused > 0, round == 0, "room that was made stays");
        assert!(code.iter().all(|code| own.flag(code.slot()) == Flag::Executed));
        let seq = flags.begin_epoch(&own);
        assert!(code.iter().all(|code| own.flag(code.slot()) == Flag::Clear));
        assert_eq!(flags.horizon(), seq);
    }
}

#[test]
fn what_is_let_go_is_held_by_nobody_and_judged_from_then_on() {
    let (flags, [own, _]) = guest(RULES);
    let code = Code::numbered(0);
    assert!(flags.fast_path(&own, &code, || true));
    assert_eq!((flags.lets_go(&[&code]), fences(&flags)), (false, 1), "it is held");
    flags.begin_epoch(&own);
    assert_eq!((flags.lets_go(&[&code]), fences(&flags)), (true, 2));
    assert!(!flags.fast_path(&own, &code, || true), "it finds that it changed");
}

#[test]
fn epochs_that_have_not_begun_hold_nothing_back() {
    let flags = Flags::new(Board::new(2, 1, Counted::default()), 2, RULES);
    assert_eq!((flags.horizon(), flags.started().count()), (Seq(u64::MAX), 0));
    flags.start(Vcpu(1));
    flags.next();
    assert_eq!(flags.begin_epoch(&flags.board().own(Vcpu(1))), Seq(2));
    flags.start(Vcpu(1));
    assert_eq!((flags.horizon(), flags.started().collect::<Vec<_>>()), (Seq(2), vec![Vcpu(1)]));
}

/// Where a page's last bytes, and what follows them in linear memory, are.
const PLACE: Place = Place { page: Linear(0x7000), first: Phys(0x2000), second: Some(Phys(0x5000)) };

/// A history with known memory, and changes of two segments: three bytes at the end of a page, and one that begins 8
/// bytes before it.
fn past() -> (History, Changes<Rc<Plain>>, [Rc<Plain>; 2]) {
    let mut history = History::new(*X86_64.default_profile(), Toy, 2);
    for page in [PLACE.first, PLACE.second.unwrap()] {
        history.memory_mut().contents(page, &[0; PAGE as usize]);
    }
    let mut changes = Changes::new(history.window());
    let code = |slot, at, len: u8| Rc::new(Code::new(slot, CodeRun::new(Linear(at), &[0; 8], &[1, len]), Some(PLACE)));
    let code = [code(0, 0x7ffd, 2), code(1, 0x7ff8, 1)];
    code.iter().for_each(|code| changes.add(code, &history));
    (history, changes, code)
}

#[test]
fn a_change_reaches_what_an_older_instruction_may_have_reached() {
    let (_, changes, [end, before]) = past();
    assert_eq!(Toy.max_len(), 6);
    let reached = |phys, len| changes.reached(Phys(phys), len).iter().map(|code| code.slot().0).collect::<Vec<_>>();
    // The last instruction of slot 1 begins at 0x2ff9, that of slot 0 at 0x2ffe: up to 6 bytes from there on matter.
    assert_eq!(reached(0x2ff7, 1), [0; 0]);
    assert_eq!((reached(0x2ff7, 2), reached(0x2ff8, 1), reached(0x2ffc, 1)), (vec![1], vec![1], vec![1]));
    assert_eq!((reached(0x2ffd, 1), reached(0x2ffe, 1), reached(0x2fff, 1)), (vec![0, 1], vec![0, 1], vec![0]));
    assert_eq!((reached(0x5000, 1), reached(0x5003, 9), reached(0x5004, 1)), (vec![0], vec![0], vec![]));
    assert_eq!((end.last_change.get(), before.last_change.get()), (Seq(0), Seq(0)));
}

#[test]
fn a_new_segment_knows_of_the_last_change_before_it() {
    let (mut history, mut changes, _) = past();
    let store = |phys| Store { vcpu: Some(Vcpu(0)), pc: None, linear: None, phys: Phys(phys), bytes: vec![1] };
    history.store(Seq(3), store(0x2ffc), Epoch(1));
    history.store(Seq(4), store(0x5003), Epoch(1));
    history.store(Seq(5), store(0x5004), Epoch(1));
    for (at, len, change) in [(0x7ffb, 1, 3), (0x7ffe, 1, 4), (0x7ff0, 1, 0), (0x7ff6, 1, 0), (0x7ff7, 1, 3)] {
        let code = Rc::new(Code::new(2, CodeRun::new(Linear(at), &[0], &[len]), Some(PLACE)));
        changes.add(&code, &history);
        assert_eq!(code.last_change.get(), Seq(change), "{at:#x}");
    }
}

fn change() -> Told {
    Told { changes: true, ..Told::default() }
}

fn late(seq: u64) -> Told {
    Told { late: vec![Seq(seq)], ..Told::default() }
}

#[test]
fn a_store_that_is_told_of_late_explains_what_was_noticed() {
    let (mut history, mut changes, [end, before]) = past();
    let at = Duration::from_millis;
    let told = Store {
        vcpu: Some(Vcpu(1)),
        pc: Some(Linear(9)),
        linear: Some(Linear(0x7ffa)),
        phys: Phys(0x2ffa),
        bytes: vec![0, 0, 7, 7],
    };
    assert_eq!(changes.tell(history.memory(), told.phys, &told.bytes, at(0)), change());
    let touched = changes.notice(&mut history, Phys(0x2ffc), &[7, 7], Seq(1), at(100));
    assert_eq!((touched.segments.len(), touched.seq), (2, Some(Seq(1))));
    assert!(
        changes.awaits_store(&end, at(119))
            && changes.awaits_store(&before, at(119))
            && !changes.awaits_store(&end, at(120))
    );
    assert_eq!(
        changes.tell(history.memory(), Phys(0x2ffc), &[7], at(101)),
        Told::default(),
        "it covers a part of it only"
    );
    assert_eq!(changes.tell(history.memory(), told.phys, &told.bytes, at(101)), late(1));
    assert_eq!(changes.tell(history.memory(), told.phys, &told.bytes, at(101)), Told::default(), "once");
    let touched = changes.attribute(&mut history, Seq(1), &told, Epoch(1));
    assert_eq!((touched.segments.len(), touched.seq), (2, None));
    let known = &history.memory().record(Seq(1)).unwrap().store;
    assert_eq!(
        (known.vcpu, known.pc, known.linear, known.phys),
        (Some(Vcpu(1)), Some(Linear(9)), Some(Linear(0x7ffc)), Phys(0x2ffc))
    );
    assert!(!changes.awaits_store(&end, at(102)));
    assert_eq!(changes.commit(&mut history, &[Seq(1), Seq(1)]).segments.len(), 2);
    assert!(history.memory().record(Seq(1)).unwrap().committed);
}

#[test]
fn a_store_is_waited_for_a_second_and_the_latest_64_are() {
    let (mut history, mut changes, _) = past();
    changes.notice(&mut history, Phys(0x2000), &[7], Seq(1), Duration::ZERO);
    let tell = |changes: &mut Changes<_>, history: &History, at| {
        changes.tell(history.memory(), Phys(0x2000), &[7], Duration::from_millis(at))
    };
    assert_eq!(tell(&mut changes.clone(), &history, 999), late(1));
    assert_eq!(tell(&mut changes.clone(), &history, 1000), Told::default());
    for more in 1..64 {
        changes.notice(&mut history, Phys(0x2000 + more), &[7], Seq(1 + more), Duration::ZERO);
    }
    assert_eq!(tell(&mut changes.clone(), &history, 1), late(1));
    changes.notice(&mut history, Phys(0x2100), &[7], Seq(99), Duration::ZERO);
    assert_eq!(tell(&mut changes, &history, 1), Told::default());
}

#[test]
fn a_store_explains_all_that_it_stored_and_nothing_else() {
    let (mut history, mut changes, _) = past();
    for (seq, phys, byte) in [(1, 0x2000, 7), (2, 0x2002, 8), (3, 0x2003, 9)] {
        changes.notice(&mut history, Phys(phys), &[byte], Seq(seq), Duration::ZERO);
    }
    // The middle one is another vCPU's, which overwrote it.
    let told = changes.tell(history.memory(), Phys(0x2000), &[7, 0, 1, 9], Duration::ZERO);
    assert_eq!(told, Told { late: vec![Seq(1), Seq(3)], changes: true });
}

/// vCPU 1 stores 7 (told of as `told`), and memory holds `now` when that is told.
fn settled(earlier: Option<(u16, u8)>, told: u8, now: u8) -> (History, Changes<Rc<Code<AtomicU64>>>, usize) {
    let (mut history, mut changes, _) = past();
    let phys = Phys(0x2000);
    let store = |vcpu, byte| Store {
        vcpu: Some(Vcpu(vcpu)),
        pc: Some(Linear(9)),
        linear: Some(Linear(0x7000)),
        phys,
        bytes: vec![byte],
    };
    if let Some((vcpu, byte)) = earlier {
        changes.store(&mut history, Seq(1), store(vcpu, byte), Epoch::default());
    }
    let before = [history.memory().now(phys).unwrap()];
    changes.store(&mut history, Seq(2), store(1, told), Epoch::default());
    let told = ToldOf { vcpu: Vcpu(1), pc: Linear(9), linear: Linear(0x7000) };
    let settling = Settling { told, phys, before: &before, now: &[now] };
    let settled = changes.settle(&mut history, settling, Duration::ZERO, || Seq(3));
    assert_eq!(history.memory().now(phys), Some(now), "what is known is what memory holds");
    assert_eq!(settled.touched.len(), usize::from(now != history.memory().byte(phys, Seq(2)).unwrap()));
    (history, changes, settled.explained)
}

#[test]
fn what_memory_holds_is_what_is_known_whatever_was_told() {
    let second = Duration::from_secs(1);
    let writer = |history: &History| history.memory().record(Seq(3)).map(|record| record.store.vcpu);
    // As told.
    let (history, changes, _) = settled(None, 7, 7);
    assert_eq!((writer(&history), changes.unsettled()), (None, 0));
    // Another vCPU's store, which was told of before, came after it.
    let (history, changes, explained) = settled(Some((0, 5)), 7, 5);
    assert_eq!((writer(&history), changes.unsettled(), explained), (Some(Some(Vcpu(0))), 0, 1));
    // Its own does not explain that.
    let (history, mut changes, explained) = settled(Some((1, 5)), 7, 5);
    assert_eq!((writer(&history), changes.unsettled(), explained), (Some(None), 1, 0));
    assert!(changes.untrue(second, Duration::from_millis(999)).is_empty());
    assert_eq!(changes.untrue(second, second).len(), 1, "nobody stored what memory holds");
    assert!(changes.untrue(second, second).is_empty(), "once");
    // Another vCPU's, which is told of later, does.
    let (history, mut changes, _) = settled(None, 7, 6);
    assert_eq!((writer(&history), changes.unsettled()), (Some(None), 1));
    assert_eq!(changes.tell(history.memory(), Phys(0x2000), &[6], Duration::ZERO), late(3));
    assert!(changes.unsettled() == 0 && changes.untrue(second, second).is_empty());
}

/// vCPU 0 ran an instruction and stored to it by the address that it runs from. Is it a hazard to run it again after
/// `then`?
fn own_store_is_hazard(then: impl FnOnce(&mut History)) -> bool {
    let (mut history, ..) = past();
    let (at, phys) = (Linear(0x7100), Phys(0x2100));
    let store =
        |byte| Store { vcpu: Some(Vcpu(0)), pc: Some(Linear(0x7200)), linear: Some(at), phys, bytes: vec![byte] };
    history.store(Seq(2), store(6), Epoch(1));
    then(&mut history);
    let place = Place { second: None, ..PLACE };
    let (before, now) = (CodeRun::new(at, &[0], &[1]), CodeRun::new(at, &[6], &[1]));
    let footprints = [Footprint { run: &before, place, since: Seq(1) }];
    let question = Question {
        vcpu: Vcpu(0),
        run: &now,
        place,
        footprints: &footprints,
        last_sync: None,
        epoch: Epoch(1),
        now: Seq(9),
    };
    let judged = history.judge(&question);
    let kinds: Vec<_> =
        judged.iter().filter_map(|judged| judged.verdict.hazard.as_ref()).map(|hazard| hazard.kind).collect();
    assert!(kinds.iter().all(|kind| *kind == Kind::Smc), "{kinds:?}");
    !kinds.is_empty()
}

#[test]
fn a_branch_makes_visible_what_its_own_vcpu_stored_before_it() {
    assert!(own_store_is_hazard(|history| assert!(history.awaits_branch(Vcpu(0), Epoch(1)))));
    assert!(!own_store_is_hazard(|history| {
        history.branch(Vcpu(0), Epoch(1));
        assert!(!history.awaits_branch(Vcpu(0), Epoch(1)));
    }));
    assert!(own_store_is_hazard(|history| {
        assert!(!history.awaits_branch(Vcpu(1), Epoch(1)));
        history.branch(Vcpu(1), Epoch(1));
    }));
    // The one before the branch is visible, the one after it awaits the next.
    assert!(own_store_is_hazard(|history| {
        history.branch(Vcpu(0), Epoch(1));
        for (seq, byte) in [(3, 12), (4, 6)] {
            let again = Store {
                vcpu: Some(Vcpu(0)),
                pc: None,
                linear: Some(Linear(0x7100)),
                phys: Phys(0x2100),
                bytes: vec![byte],
            };
            history.store(Seq(seq), again, Epoch(1));
        }
    }));
}
