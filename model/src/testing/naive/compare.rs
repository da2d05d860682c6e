//! The model and the oracle, side by side.

use super::Answer;
use crate::event::Event;
use crate::machine::model::Model;
use std::collections::BTreeSet;

/// Has the model follow an event that is possible, and compares what it says with the oracle's answer to the same one.
///
/// # Panics
/// They differ, in the candidates, the kind or the stores that are blamed; or the model refuses the event.
pub fn compare(model: &mut Model, event: &Event, answer: Option<&Answer>) {
    let asked = match event {
        Event::Fetch { vcpu, linear, len } => Some(model.candidates(*vcpu, *linear, *len).expect("possible")),
        _ => None,
    };
    let verdict = model.apply(event).expect("possible");
    let (Some(candidates), Some(answer)) = (asked, answer) else {
        assert_eq!(verdict.hazard, None);
        return;
    };
    assert_eq!(verdict.complete, candidates.complete);
    if !verdict.complete {
        return;
    }
    let mut found: Vec<_> = candidates.others().to_vec();
    found.sort_by(|a, b| a.bytes.cmp(&b.bytes));
    assert_eq!(found, answer.others.values().cloned().collect::<Vec<_>>());
    assert_eq!(verdict.hazard.as_ref().map(|hazard| hazard.kind), answer.kind);
    assert_eq!(verdict.exempt, answer.others.values().filter(|candidate| candidate.exempt).count());
    if let Some(hazard) = &verdict.hazard {
        let blamed: BTreeSet<_> = answer
            .others
            .values()
            .filter(|candidate| !candidate.exempt)
            .flat_map(|candidate| candidate.separated_by.clone())
            .collect();
        assert_eq!(
            hazard.writes.iter().map(|write| write.seq).collect::<Vec<_>>(),
            blamed.into_iter().collect::<Vec<_>>()
        );
        assert!(!hazard.writes.is_empty() || hazard.remapped.is_some(), "something explains every hazard");
    }
}
