//! The shape of a trace: parents form a forest once cycles are cut.

use super::rows::{Row, RowId};

/// Cuts every cycle at its first row and returns the rows with parents before children.
pub(super) fn cut_cycles_and_order(rows: &mut [Row<'_>]) -> Vec<RowId> {
    cut_cycles(rows);
    let children = Children::of(rows);
    let mut order: Vec<RowId> = Vec::with_capacity(rows.len());
    order.extend((0..rows.len() as RowId).filter(|id| rows[*id as usize].parent.is_none()));
    let mut next = 0;
    while let Some(id) = order.get(next).copied() {
        order.extend_from_slice(children.of_row(id));
        next += 1;
    }
    debug_assert_eq!(order.len(), rows.len(), "without cycles every row hangs on a root");
    order
}

fn cut_cycles(rows: &mut [Row<'_>]) {
    /// Not seen yet.
    const NEW: u32 = 0;
    let mut seen_in = vec![NEW; rows.len()];
    for start in 0..rows.len() {
        let walk = start as u32 + 1;
        let mut at = start;
        while seen_in[at] == NEW {
            seen_in[at] = walk;
            match rows[at].parent {
                Some(parent) => at = parent as usize,
                None => break,
            }
        }
        // The walk ended at a root, at a row of an earlier walk, or where it met itself.
        let met_itself = seen_in[at] == walk && rows[at].parent.is_some();
        if met_itself {
            let first = first_of_cycle(rows, at);
            rows[first].parent = None;
            rows[first].shared = false;
        }
    }
}

fn first_of_cycle(rows: &[Row<'_>], at: usize) -> usize {
    let mut first = at;
    let mut place = rows[at].parent;
    while let Some(id) = place.map(|id| id as usize).filter(|id| *id != at) {
        first = first.min(id);
        place = rows[id].parent;
    }
    first
}

/// Children of every row, in the order of the rows.
#[derive(Debug)]
pub(super) struct Children {
    /// Where the children of a row begin; one more than there are rows.
    starts: Vec<u32>,
    ids: Vec<RowId>,
}

impl Children {
    pub(super) fn of(rows: &[Row<'_>]) -> Self {
        let mut starts = vec![0_u32; rows.len() + 1];
        for parent in rows.iter().filter_map(|row| row.parent) {
            starts[parent as usize + 1] += 1;
        }
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut ids = vec![0; starts[rows.len()] as usize];
        let mut places = starts.clone();
        for (id, row) in rows.iter().enumerate() {
            if let Some(parent) = row.parent {
                ids[places[parent as usize] as usize] = id as RowId;
                places[parent as usize] += 1;
            }
        }
        Self { starts, ids }
    }

    pub(super) fn of_row(&self, id: RowId) -> &[RowId] {
        &self.ids[self.starts[id as usize] as usize..self.starts[id as usize + 1] as usize]
    }
}

/// Intervals of subtrees: `b` is at or below `a` exactly when `enter[a] <= enter[b] < leave[a]`.
#[derive(Debug)]
pub(super) struct Intervals {
    pub(super) enter: Vec<u32>,
    pub(super) leave: Vec<u32>,
}

impl Intervals {
    pub(super) fn of(rows: &[Row<'_>]) -> Self {
        let children = Children::of(rows);
        let (mut enter, mut leave) = (vec![0; rows.len()], vec![0; rows.len()]);
        let mut clock = 0;
        // A stack of our own: a chain of 50 000 spans must not use the thread's.
        let mut stack: Vec<(RowId, usize)> = Vec::new();
        for root in (0..rows.len() as RowId).filter(|id| rows[*id as usize].parent.is_none()) {
            enter[root as usize] = clock;
            clock += 1;
            stack.push((root, 0));
            while let Some((id, next)) = stack.last_mut() {
                match children.of_row(*id).get(*next) {
                    Some(child) => {
                        *next += 1;
                        enter[*child as usize] = clock;
                        clock += 1;
                        stack.push((*child, 0));
                    }
                    None => {
                        leave[*id as usize] = clock;
                        stack.pop();
                    }
                }
            }
        }
        Self { enter, leave }
    }

    /// Whether `below` is `above` or a descendant of it.
    pub(super) fn contains(&self, above: RowId, below: RowId) -> bool {
        let (above, below) = (above as usize, below as usize);
        self.enter[above] <= self.enter[below] && self.enter[below] < self.leave[above]
    }
}
