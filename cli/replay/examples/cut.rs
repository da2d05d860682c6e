//! `cut IN OUT PAGES PERMILLE`: a small recording out of a large one, for `tests/golden/`.
//!
//! Keeps what concerns the physical pages of code that changed last: those that a store changed in the last PERMILLE
//! thousandths of the file's events, at most PAGES of them, the latest first. What ran elsewhere, or before that part,
//! is left out; so is each serializing event of a vCPU that executed nothing kept since its last one. Places in the
//! order are counted anew. The verdicts are those of the plain model, under the recording's own profile.

use icsan_model::addr::{Linear, Phys, Seq, Vcpu};
use icsan_model::event::{Event, Store};
use icsan_model::memory::PAGE;
use icsan_recording::{Reader, Record, Writer};
use icsan_replay::replay::Replay;
use icsan_replay::settings::Settings;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::BufReader;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, pages, permille] = &arguments[..] else { return Err("usage: cut IN OUT PAGES PERMILLE".into()) };
    let open = || -> Result<_> { Ok(Reader::new(BufReader::new(File::open(from)?))?) };
    let (begin, pages) = changed_last(open()?, pages.parse()?, permille.parse()?)?;

    let reader = open()?;
    let header = reader.header().clone();
    let mut cut = Cut { begin, pages, ..Cut::default() };
    let (arch, model) = Settings::default().model(&header)?;
    let mut replay = Replay::new(model, arch, &header);
    let mut writer = Writer::new(File::create(to)?, &header)?;
    let mut kept = 0_u64;
    for record in reader {
        for record in cut.record(record?) {
            let (mut verdicts, mut refused) = (Vec::new(), Vec::new());
            replay.feed(
                &record,
                |executed| verdicts.extend(executed.verdict.hazard.as_deref().map(Record::verdict)),
                |event| refused.push(event),
            );
            if !refused.is_empty() {
                return Err(format!("{record:?}: {refused:?}").into());
            }
            kept += 1;
            for record in [record].into_iter().chain(verdicts) {
                writer.push(record)?;
            }
        }
    }
    writer.finish()?;
    eprintln!("{kept} records of {} pages", cut.pages.len());
    Ok(())
}

/// Where the last part of the file begins, and the pages that stores changed in it.
fn changed_last(reader: Reader<BufReader<File>>, pages: usize, permille: u64) -> Result<(u64, BTreeSet<Phys>)> {
    let (mut at, mut last) = (0, BTreeMap::new());
    for record in reader {
        let record = record?;
        at += record.places();
        if let Record::Event(Event::Store(store)) = record {
            last.insert(store.phys.align_down(PAGE), at);
        }
    }
    let begin = at - at / 1000 * permille;
    let mut latest: Vec<_> = last.into_iter().filter(|(_, seq)| *seq >= begin).collect();
    latest.sort_by_key(|(page, seq)| (Reverse(*seq), *page));
    Ok((begin, latest.into_iter().take(pages).map(|(page, _)| page).collect()))
}

#[derive(Default)]
struct Cut {
    /// Where executions begin to be kept.
    begin: u64,
    pages: BTreeSet<Phys>,
    /// The linear pages that are mapped to one of them.
    mapped: BTreeSet<(Vcpu, Linear)>,
    /// The vCPUs that executed something that is kept since their last serializing event that is.
    ran: BTreeSet<Vcpu>,
    /// The new places of the stores that are kept.
    places: BTreeMap<Seq, Seq>,
    read: u64,
    written: u64,
}

impl Cut {
    /// What is kept of a record.
    fn record(&mut self, record: Record) -> Vec<Record> {
        let seq = Seq(self.read + 1);
        self.read += record.places();
        let kept = match record {
            Record::Event(event) => self.event(event, seq).map(Record::Event).into_iter().collect(),
            Record::Run { vcpu, linear, lengths } => self.run(vcpu, linear, &lengths),
            Record::Verdict { .. } => Vec::new(),
        };
        self.written += kept.iter().map(Record::places).sum::<u64>();
        kept
    }

    fn event(&mut self, event: Event, seq: Seq) -> Option<Event> {
        let in_kept = |phys: Phys| self.pages.contains(&phys.align_down(PAGE));
        match event {
            Event::Remap { vcpu, linear, phys } if phys.is_some_and(in_kept) => {
                self.mapped.insert((vcpu, linear));
                Some(event)
            }
            Event::Remap { vcpu, linear, .. } => self.mapped.remove(&(vcpu, linear)).then_some(event),
            Event::Contents { phys, .. } => in_kept(phys).then_some(event),
            Event::Store(Store { phys, .. }) => in_kept(phys).then(|| {
                self.places.insert(seq, Seq(self.written + 1));
                event
            }),
            Event::Attribute { store, vcpu, pc, linear } => {
                Some(Event::Attribute { store: *self.places.get(&store)?, vcpu, pc, linear })
            }
            Event::Commit { stores } => {
                let stores: Vec<Seq> = stores.iter().filter_map(|store| self.places.get(store)).copied().collect();
                (!stores.is_empty()).then_some(Event::Commit { stores })
            }
            Event::Fetch { vcpu, linear, .. } => self.keeps(vcpu, linear).then(|| {
                self.ran.insert(vcpu);
                event
            }),
            Event::Branch { vcpu } => self.ran.contains(&vcpu).then_some(event),
            Event::Sync { vcpu, .. } | Event::Reset { vcpu } => self.ran.remove(&vcpu).then_some(event),
            // Of lines elsewhere, too: they are few beside executions.
            Event::Maintain { .. } | Event::Barrier { .. } | Event::Caches { .. } => Some(event),
        }
    }

    /// Instructions that lie in pages that are kept, as runs of their own.
    fn run(&mut self, vcpu: Vcpu, linear: Linear, lengths: &[u8]) -> Vec<Record> {
        let mut runs: Vec<(Linear, Vec<u8>)> = Vec::new();
        let (mut at, mut joined) = (linear, false);
        for len in lengths {
            let last = at.offset(u64::from(*len) - 1);
            let keep = self.keeps(vcpu, at) && self.keeps(vcpu, last);
            if keep {
                match runs.last_mut().filter(|_| joined) {
                    Some((_, lengths)) => lengths.push(*len),
                    None => runs.push((at, vec![*len])),
                }
            }
            joined = keep;
            at = at.offset(u64::from(*len));
        }
        if !runs.is_empty() {
            self.ran.insert(vcpu);
        }
        runs.into_iter().map(|(linear, lengths)| Record::Run { vcpu, linear, lengths: lengths.into() }).collect()
    }

    /// Is what the vCPU executes there kept?
    fn keeps(&self, vcpu: Vcpu, linear: Linear) -> bool {
        self.read >= self.begin && self.mapped.contains(&(vcpu, linear.align_down(PAGE)))
    }
}
