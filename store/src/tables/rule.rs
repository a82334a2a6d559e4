//! Rule ids read back from files.
//!
//! In memory a rule id is a static string of the rule's code. Files of older versions may name
//! rules that no longer exist, so words are kept here for the life of the process.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use windrose_proto::model::Rule;

/// Distinct rule ids kept. There are about two hundred rules; a damaged file must not fill memory.
const RULES_MAX: usize = 4096;

/// What stands for a rule id beyond [`RULES_MAX`].
const OVERFLOW: Rule = Rule("?");

static RULES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// The rule with this id.
pub(super) fn rule(id: &str) -> Rule {
    let mut known = RULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(id) {
        return Rule(found);
    }
    if known.len() >= RULES_MAX {
        return OVERFLOW;
    }
    let kept: &'static str = Box::leak(id.to_owned().into_boxed_str());
    known.insert(kept);
    Rule(kept)
}
