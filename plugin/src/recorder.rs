//! The event recording (`record=PATH`): what the store side is told, and what it answers, in a file that `icsan-replay`
//! feeds to the plain model.
//!
//! [`Past`] is the store side's history with a recorder beside it: whatever changes the one is written by the other,
//! under the lock that protects both, so the order in the file is the order in which it was judged. To that end every
//! callback takes that lock while a recording is made, even where the fast path decides that there is nothing to judge:
//! it is slower, and it changes no verdict.
//!
//! What is in the file, and what is not:
//! - A run is recorded the first time in an epoch of the vCPU, and again after something happened to its bytes, whether
//!   or not its flag has it called for ([`crate::skipped`]): so the model judges what flags and fast path say no to.
//!   What is executed again in between is not. For unbounded buffers that makes no difference (a chunk is held since
//!   its first execution); a replay with bounded ones sees less than happened.
//! - A translation is recorded when the vCPU first executes something in the page, or finds it elsewhere
//!   ([`Recorder::remap`]). The history with `speculation=on` takes a page to have been mapped since the epoch began;
//!   to the model it was unmapped before that record. So a replay may lack `speculative` hazards in pages that changed
//!   in an epoch before the vCPU first executed anything in them: recorded, and called `extra` by
//!   `icsan-replay --check`.
//! - Branches are recorded where one made an own store visible, and nowhere else.
//! - Events that the profile does not count are recorded where the plugin watches them anyway.
//! - Runs of which it is not known where they lie, or what memory holds there, are left out and counted
//!   ([`icsan_recording::Totals::dropped`]): the model would refuse them.

use crate::config::Config;
use crate::output_file::{OutputError, OutputFile};
use crate::qemu::process::say;
use crate::skipped::{Happened, Recorded};
use icsan_model::addr::{Epoch, Linear, Phys, Seq, Vcpu};
use icsan_model::arch::architecture::Architecture;
use icsan_model::arch::maintenance::{Accesses, Domain, Maintenance};
use icsan_model::arch::sync_event::SyncEventId;
use icsan_model::detector::changes;
use icsan_model::detector::history::{History, Holding, Judged, Place, Question};
use icsan_model::detector::light::CodeRun;
use icsan_model::event::{Event, Store};
use icsan_model::fetch::instruction_cache::Raised;
use icsan_model::memory::{Memory, PAGE};
use icsan_model::verdict::candidates::Candidates;
use icsan_model::verdict::hazard::Hazard;
use icsan_recording::{Header, Record, RecordingError, Writer};
use rustc_hash::FxHashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use thiserror::Error;

/// Pages that are remembered for each vCPU. If there are more, all are forgotten and recorded again, which the model
/// takes for no change.
const MAX_PAGES: usize = 1 << 20;

/// Stores whose places in the file are remembered before those are forgotten that the history has forgotten.
const FIRST_PRUNE: usize = 1 << 16;

/// The recording cannot be made.
#[derive(Debug, Error)]
#[error("record={path}: {source}", path = path.display())]
pub struct RecorderError {
    path: PathBuf,
    source: OutputError,
}

/// A recording that is being written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    /// `None` after it failed or was finished.
    writer: Option<Writer<OutputFile>>,
    failed: bool,
    /// The places in the file of the stores that the history remembers.
    stores: FxHashMap<Seq, Seq>,
    prune_at: usize,
    /// By vCPU: where its linear pages are, as far as the file says.
    pages: Vec<FxHashMap<Linear, Option<Phys>>>,
    dropped: u64,
    happened: Happened,
}

impl Recorder {
    /// Begins the recording that the user wants, if any.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn open(config: &Config, arch: &Architecture, vcpus: usize) -> Result<Option<Self>, RecorderError> {
        let Some(path) = config.record.as_deref() else { return Ok(None) };
        let failed = |source| RecorderError { path: path.to_owned(), source };
        let header = Header {
            profile: config.profile.name.to_owned(),
            with: config.with.clone(),
            without: config.without.clone(),
            buffers: config.profile.buffers.into(),
            caches: config.guest_caches,
            ..Header::new(arch, env!("CARGO_PKG_VERSION"), u16::try_from(vcpus).unwrap_or(u16::MAX))
        };
        let mut file = OutputFile::open(path).map_err(failed)?;
        file.begin().map_err(|error| failed(error.into()))?;
        let writer = Writer::new(file, &header).map_err(|error| {
            failed(match error {
                RecordingError::Io(error) => error.into(),
                other => std::io::Error::other(other).into(),
            })
        })?;
        Ok(Some(Self {
            path: path.to_owned(),
            writer: Some(writer),
            failed: false,
            stores: FxHashMap::default(),
            prune_at: FIRST_PRUNE,
            pages: vec![FxHashMap::default(); vcpus],
            dropped: 0,
            happened: Happened::default(),
        }))
    }

    /// How many changes it was told of, to be looked at without a lock.
    #[must_use]
    pub fn changes(&self) -> Arc<AtomicU64> {
        Arc::clone(self.happened.count())
    }

    /// What is known of this store changes.
    fn known_better(&mut self, store: Seq, memory: &Memory) {
        if let Some(record) = memory.record(store) {
            self.happened.known_better(record.store.phys, record.store.bytes.len() as u64);
        }
    }

    /// Writes a record and answers with its place in the file. `None`: it is not in the file.
    fn push(&mut self, record: Record) -> Option<Seq> {
        let error = match self.writer.as_mut()?.push(record) {
            Ok(seq) => return Some(seq),
            Err(error) => error,
        };
        if matches!(error, RecordingError::TooLarge { .. } | RecordingError::Encode(_)) {
            self.dropped += 1;
        } else {
            self.fail(&error);
        }
        None
    }

    fn fail(&mut self, error: &RecordingError) {
        if !self.failed {
            say(&format!("record={}: {error}; the recording ends here", self.path.display()));
        }
        self.failed = true;
        self.writer = None;
    }

    fn event(&mut self, event: Event) -> Option<Seq> {
        self.push(Record::Event(event))
    }

    fn store(&mut self, seq: Seq, store: &Store) {
        self.happened.stored();
        if let Some(place) = self.event(Event::Store(store.clone())) {
            self.stores.insert(seq, place);
        }
    }

    /// From now on the vCPU finds the page there.
    fn remap(&mut self, vcpu: Vcpu, linear: Linear, phys: Option<Phys>) {
        let Some(pages) = self.pages.get_mut(usize::from(vcpu.0)) else { return };
        let known = pages.get(&linear).copied();
        if known.flatten() == phys {
            return;
        }
        if pages.len() >= MAX_PAGES {
            pages.clear();
        }
        pages.insert(linear, phys);
        self.event(Event::Remap { vcpu, linear, phys });
    }

    /// The vCPU executes a run, as far as the model can know it.
    fn run(&mut self, vcpu: Vcpu, run: &CodeRun, place: Place, memory: &Memory) {
        let known = |at: Linear| place.phys(at).is_some_and(|phys| memory.now(phys).is_some());
        let whole = |(linear, bytes): &(Linear, &[u8])| (0..bytes.len() as u64).all(|i| known(linear.offset(i)));
        let lengths: Box<[u8]> = run.instructions().take_while(whole).map(|(_, bytes)| bytes.len() as u8).collect();
        if lengths.len() < run.instructions().count() {
            self.dropped += 1;
        }
        if lengths.is_empty() {
            return;
        }
        self.remap(vcpu, place.page, Some(place.first));
        let next = place.page.offset(PAGE);
        if place.second.is_some() {
            self.remap(vcpu, next, place.second);
        }
        self.push(Record::Run { vcpu, linear: run.linear(), lengths });
    }

    fn verdict(&mut self, hazard: &Hazard) {
        let Record::Verdict { vcpu, linear, kind, memory, candidates, .. } = Record::verdict(hazard) else { return };
        let mut writes: Vec<u64> =
            hazard.writes.iter().filter_map(|write| self.stores.get(&write.seq)).map(|seq| seq.0).collect();
        writes.sort_unstable();
        self.push(Record::Verdict { vcpu, linear, kind, memory, candidates, writes });
    }

    /// Forgets the places of stores that the history has forgotten: nothing refers to them any more.
    fn prune(&mut self, memory: &Memory) {
        if self.stores.len() >= self.prune_at {
            self.stores.retain(|seq, _| memory.record(*seq).is_some());
            self.prune_at = FIRST_PRUNE.max(2 * self.stores.len());
        }
    }

    /// Writes the end. Answers whether everything was written.
    fn finish(&mut self) -> bool {
        if let Some(mut writer) = self.writer.take() {
            writer.dropped(self.dropped);
            let totals = writer.totals();
            match writer.finish() {
                Ok(_) if self.dropped > 0 => say(&format!(
                    "record={}: {} records; {} more executions are not in it, since where they were in physical memory was not known",
                    self.path.display(),
                    totals.records,
                    self.dropped
                )),
                Ok(_) => {}
                Err(error) => self.fail(&error),
            }
        }
        !self.failed
    }
}

/// See the module.
#[derive(Debug)]
pub struct Past {
    history: History,
    recorder: Option<Recorder>,
}

impl changes::Past for Past {
    fn history(&self) -> &History {
        &self.history
    }

    fn maintain(&mut self, seq: Seq, vcpu: Vcpu, operation: Maintenance) -> Raised {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Maintain { vcpu, operation });
        }
        self.history.maintain(seq, vcpu, operation)
    }

    fn barrier(&mut self, seq: Seq, vcpu: Vcpu, domain: Domain, accesses: Accesses) -> Raised {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Barrier { vcpu, domain, accesses });
        }
        self.history.barrier(seq, vcpu, domain, accesses)
    }

    fn store(&mut self, seq: Seq, store: Store, epoch: Epoch) {
        if let Some(recorder) = &mut self.recorder {
            recorder.store(seq, &store);
        }
        self.history.store(seq, store, epoch);
    }

    fn attribute(&mut self, store: Seq, vcpu: Vcpu, pc: Option<Linear>, linear: Option<Linear>, epoch: Epoch) {
        let unknown = self.memory().record(store).is_some_and(|record| record.store.vcpu.is_none());
        if unknown
            && let Some(recorder) = &mut self.recorder
            && let Some(store) = recorder.stores.get(&store).copied()
        {
            recorder.event(Event::Attribute { store, vcpu, pc, linear });
        }
        self.history.attribute(store, vcpu, pc, linear, epoch);
        if let Some(recorder) = &mut self.recorder {
            recorder.known_better(store, self.history.memory());
        }
    }

    fn commit(&mut self, stores: &[Seq]) {
        stores.iter().for_each(|store| self.history.memory_mut().commit(*store));
        if let Some(recorder) = &mut self.recorder {
            stores.iter().for_each(|store| recorder.known_better(*store, self.history.memory()));
            let stores: Vec<Seq> = stores.iter().filter_map(|store| recorder.stores.get(store).copied()).collect();
            if !stores.is_empty() {
                recorder.event(Event::Commit { stores });
            }
        }
    }
}

impl Past {
    /// A past of which nothing is known.
    #[must_use]
    pub fn new(history: History, recorder: Option<Recorder>) -> Self {
        Self { history, recorder }
    }

    /// All that is kept of it.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Memory and its past.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        self.history.memory()
    }

    /// How many bytes from an instruction's first on matter to what it may be.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.history.window()
    }

    /// The contents of a page are seen for the first time.
    pub fn contents(&mut self, phys: Phys, bytes: &[u8]) {
        self.history.memory_mut().contents(phys, bytes);
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Contents { phys, bytes: bytes.to_vec() });
        }
    }

    /// See [`History::awaits_branch`].
    pub fn awaits_branch(&mut self, vcpu: Vcpu, epoch: Epoch) -> bool {
        self.history.awaits_branch(vcpu, epoch)
    }

    /// See [`History::branch`].
    pub fn branch(&mut self, vcpu: Vcpu, epoch: Epoch) {
        self.history.branch(vcpu, epoch);
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Branch { vcpu });
        }
    }

    /// The vCPU completes an event of the table.
    pub fn sync(&mut self, vcpu: Vcpu, event: SyncEventId, pc: Linear) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Sync { vcpu, event, pc });
        }
    }

    /// The vCPU was reset, or its state restored: its buffers are empty, whatever the profile counts.
    pub fn reset(&mut self, vcpu: Vcpu) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Reset { vcpu });
        }
    }

    /// The vCPU executes a run that lies there; `None`: where is not known.
    pub fn run(&mut self, vcpu: Vcpu, run: &CodeRun, place: Option<Place>) {
        let Some(recorder) = &mut self.recorder else { return };
        match place {
            Some(place) => recorder.run(vcpu, run, place, self.history.memory()),
            None => recorder.dropped += 1,
        }
    }

    /// From now on the vCPU stores through its caches, or past them.
    pub fn caches(&mut self, vcpu: Vcpu, on: bool) {
        self.history.caches(vcpu, on);
        if let Some(recorder) = &mut self.recorder {
            recorder.event(Event::Caches { vcpu, on });
        }
    }

    /// Does an execution of this run, which the vCPU is not asked about, matter to the reader of the recording? `last`:
    /// its last one that was recorded, in this epoch.
    #[must_use]
    pub fn may_matter(&self, run: &CodeRun, place: Place, last: Option<&Recorded>) -> bool {
        let (Some(recorder), Some(last)) = (&self.recorder, last) else { return true };
        recorder.happened.since(last, run, place, self.window(), self.history.memory())
    }

    /// Where the vCPU's page is, as far as the recording says.
    #[must_use]
    pub fn recorded_page(&self, vcpu: Vcpu, linear: Linear) -> Option<Phys> {
        self.recorder.as_ref()?.pages.get(usize::from(vcpu.0))?.get(&linear).copied().flatten()
    }

    /// See [`History::judge`]. What is a hazard is recorded behind the run, which must have been the last thing that
    /// was.
    pub fn judge(&mut self, question: &Question<'_>) -> Vec<Judged> {
        let judged = self.history.judge(question);
        if let Some(recorder) = &mut self.recorder {
            judged
                .iter()
                .filter_map(|judged| judged.verdict.hazard.as_deref())
                .for_each(|hazard| recorder.verdict(hazard));
        }
        judged
    }

    /// What a vCPU may execute as a run's first instruction.
    pub fn candidates(&mut self, question: &Question<'_>) -> Option<Candidates> {
        self.history.candidates(question)
    }

    /// Forgets what was before `horizon`, and who made what is not remembered any more.
    pub fn forget_before(&mut self, horizon: Seq) {
        self.history.forget_before(horizon);
        self.history.memory_mut().forget_unneeded();
        if let Some(recorder) = &mut self.recorder {
            recorder.prune(self.history.memory());
        }
    }

    /// See [`History::forget_unheld`].
    pub fn forget_unheld(&mut self, phys: Phys, horizon: Seq, latest: usize, held: impl FnOnce(Phys, u64) -> Holding) {
        self.history.forget_unheld(phys, horizon, latest, held);
    }

    /// See [`Memory::forget_page`]. Not while a recording is made: it would go on with contents that the reader does
    /// not know of.
    pub fn forget_page(&mut self, phys: Phys) {
        debug_assert!(self.recorder.is_none());
        self.history.memory_mut().forget_page(phys);
    }

    /// The end of the recording. `false`: not all of it was written, which has been said.
    pub fn finish(&mut self) -> bool {
        self.recorder.as_mut().is_none_or(Recorder::finish)
    }
}
