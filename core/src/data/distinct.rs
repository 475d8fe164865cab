//! Batches without false negatives: no content stands twice in a batch, and no known positive of an anchor stands beside it.
//!
//! A shuffled order is changed as little as possible. As in the `NoDuplicatesBatchSampler` of sentence-transformers, a sample that conflicts
//! with its batch waits for a later one. Samples that still wait at the end of the epoch change places with samples of other batches. What
//! cannot be placed stands in the last batches all the same, so batches keep their sizes and an epoch keeps its samples.

use std::collections::{BTreeMap, VecDeque};

/// What [`Source::arrange`](crate::data::source::Source::arrange) changed in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arranged {
    /// Samples that were put into another batch, because they conflicted with the one that the shuffle had put them into, and samples that
    /// changed places with these.
    pub moved: usize,
    /// Samples that conflict with another one of their batch, because no batch was found for them.
    pub unplaced: usize,
}

/// Comparisons of two samples while places are exchanged, for each sample of the epoch; a bound for data in which most samples conflict.
const COMPARISONS: usize = 64;

/// Comparisons that are always allowed.
const COMPARISONS_AT_LEAST: usize = 1 << 20;

/// Samples with numbered contents: the first column is the anchor, the second its positive, further ones are negatives.
///
/// Two samples conflict if they have a content in common, in any column, or if one of them has a content that is the positive of the other
/// one's anchor in any sample.
pub struct Distinct {
    columns: usize,
    /// Number of different contents.
    contents: usize,
    /// Which contents are positives of which anchors, if the anchor has several: each pair is listed at the one that has fewer partners. So
    /// no list is longer than the square root of the number of pairs.
    positives: Lists,
    anchors: Lists,
}

/// A list of numbers for each content.
#[derive(Default)]
struct Lists {
    /// The numbers, sorted by content.
    numbers: Vec<u32>,
    /// The end of each content's list; empty if all lists are.
    ends: Vec<u32>,
}

impl Lists {
    /// Lists from sorted pairs (content, number).
    fn new(pairs: &[(u32, u32)], contents: usize) -> Lists {
        if pairs.is_empty() {
            return Lists::default();
        }
        let mut ends = vec![0; contents];
        pairs.iter().for_each(|(content, _)| ends[*content as usize] += 1);
        let mut end = 0;
        for count in &mut ends {
            end += *count;
            *count = end;
        }
        Lists { numbers: pairs.iter().map(|(_, number)| *number).collect(), ends }
    }

    fn of(&self, content: u32) -> &[u32] {
        let at = content as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.numbers[start as usize..end as usize]
    }
}

/// What the batch that is being filled holds. A mark is the number of the batch, so that nothing has to be cleared.
struct Marks {
    now: u32,
    /// Contents of its samples.
    held: Vec<u32>,
    /// Its anchors.
    anchors: Vec<u32>,
    /// Positives of its anchors, as far as they are listed at the anchor.
    positives: Vec<u32>,
    /// Contents whose positives it holds, as far as they are listed at the positive.
    asking: Vec<u32>,
}

impl Distinct {
    /// The samples whose contents are `cells`, `columns` of them each; contents are numbered below `contents`.
    pub fn new(cells: &[u32], columns: usize, contents: usize) -> Distinct {
        let columns = columns.max(1);
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        if columns > 1 {
            pairs.extend(cells.chunks_exact(columns).map(|row| (row[0], row[1])));
        }
        pairs.sort_unstable();
        pairs.dedup();
        // The only positive of an anchor stands in every sample of the anchor: these have both in common.
        let pairs: Vec<(u32, u32)> =
            pairs.chunk_by(|a, b| a.0 == b.0).filter(|of_anchor| of_anchor.len() > 1).flatten().copied().collect();
        let (mut of_anchor, mut of_positive) = (vec![0u32; contents], vec![0u32; contents]);
        for (anchor, positive) in &pairs {
            of_anchor[*anchor as usize] += 1;
            of_positive[*positive as usize] += 1;
        }
        let fewer = |pair: &&(u32, u32)| of_anchor[pair.0 as usize] <= of_positive[pair.1 as usize];
        let at_anchor: Vec<(u32, u32)> = pairs.iter().filter(fewer).copied().collect();
        let mut at_positive: Vec<(u32, u32)> =
            pairs.iter().filter(|pair| !fewer(pair)).map(|(anchor, positive)| (*positive, *anchor)).collect();
        at_positive.sort_unstable();
        let (positives, anchors) = (Lists::new(&at_anchor, contents), Lists::new(&at_positive, contents));
        Distinct { columns, contents, positives, anchors }
    }

    /// Arranges `order` in batches of `batch`, the last of which may be shorter. `cells` are those that the value was made from, and
    /// `sample` says which of the samples an entry of the order stands for.
    ///
    /// The result is a permutation of `order`, and depends on the arguments alone.
    pub fn arrange(&self, cells: &[u32], order: &mut [u32], batch: usize, sample: impl Fn(u32) -> usize) -> Arranged {
        let batch = batch.max(1);
        let row = |entry: u32| -> &[u32] {
            let at = sample(entry) * self.columns;
            &cells[at..at + self.columns]
        };
        let (clean, waited) = self.wait(order, batch, &row);
        if waited == 0 {
            return Arranged::default();
        }
        let exchanged = self.exchange(order, batch, clean, &row);
        let unplaced = self.conflicting(order, batch, clean, &row).len();
        Arranged { moved: waited + exchanged - unplaced, unplaced }
    }

    /// Lets samples wait for a batch that they do not conflict with. Returns how many entries stand in batches without a conflict, and how
    /// many entries had to wait; those that found no batch are behind the former.
    fn wait<'c>(&self, order: &mut [u32], batch: usize, row: &impl Fn(u32) -> &'c [u32]) -> (usize, usize) {
        let mut marks = Marks::new(self.contents);
        let mut placed = Vec::with_capacity(order.len());
        // Waiting entries by a content that they have and that kept them out: if one of them enters a batch, the others cannot. So of each
        // queue one entry is tried for a batch.
        let mut waiting: BTreeMap<u32, VecDeque<u32>> = BTreeMap::new();
        let (mut fresh, mut waited) = (order.iter().copied(), 0);
        loop {
            marks.now += 1;
            let mut free = batch.min(order.len() - placed.len());
            if free == 0 {
                break;
            }
            let queues: Vec<u32> = waiting.keys().copied().collect();
            for queue in queues {
                if free == 0 {
                    break;
                }
                while free > 0
                    && let Some(entry) = waiting.get_mut(&queue).and_then(VecDeque::pop_front)
                {
                    match self.obstacle(&marks, row(entry)) {
                        None => {
                            self.mark(&mut marks, row(entry));
                            placed.push(entry);
                            free -= 1;
                            break;
                        }
                        Some(content) if content == queue => {
                            waiting.entry(queue).or_default().push_front(entry);
                            break;
                        }
                        Some(content) => waiting.entry(content).or_default().push_back(entry),
                    }
                }
            }
            waiting.retain(|_, queue| !queue.is_empty());
            while free > 0
                && let Some(entry) = fresh.next()
            {
                match self.obstacle(&marks, row(entry)) {
                    None => {
                        self.mark(&mut marks, row(entry));
                        placed.push(entry);
                        free -= 1;
                    }
                    Some(content) => {
                        waited += 1;
                        waiting.entry(content).or_default().push_back(entry);
                    }
                }
            }
            if free > 0 {
                break;
            }
        }
        let clean = placed.len();
        // Of each queue one after the other, so that entries which share a content stand apart as far as possible.
        while !waiting.is_empty() {
            placed.extend(waiting.values_mut().filter_map(VecDeque::pop_front));
            waiting.retain(|_, queue| !queue.is_empty());
        }
        order.copy_from_slice(&placed);
        (clean, waited)
    }

    /// Exchanges entries behind the first `clean` ones that conflict with their batch for entries of other batches, where neither of the two
    /// then conflicts. Returns the number of exchanges.
    fn exchange<'c>(&self, order: &mut [u32], batch: usize, clean: usize, row: &impl Fn(u32) -> &'c [u32]) -> usize {
        let bounds = |of: usize| of * batch..((of + 1) * batch).min(order.len());
        let batches: Vec<_> = (0..order.len().div_ceil(batch)).map(bounds).collect();
        let mut left = (COMPARISONS * order.len()).max(COMPARISONS_AT_LEAST);
        let mut exchanged = 0;
        for place in self.conflicting(order, batch, clean, row) {
            let (own, entry) = (place / batch, order[place]);
            // Whether an entry conflicts with nothing in the own batch, once this entry has left it.
            let fits = |order: &[u32], other: u32| {
                !batches[own].clone().any(|at| at != place && self.conflict(row(order[at]), row(other)))
            };
            if fits(order, entry) {
                // The entry that it conflicted with has left.
                continue;
            }
            'batches: for other in (0..batches.len()).rev().filter(|other| *other != own) {
                let Some(rest) = left.checked_sub(batch) else { return exchanged };
                left = rest;
                let mut against = batches[other].clone().filter(|at| self.conflict(row(order[*at]), row(entry)));
                let candidates = match (against.next(), against.next()) {
                    (None, _) => batches[other].clone(),
                    (Some(only), None) => only..only + 1,
                    _ => continue,
                };
                for at in candidates {
                    let Some(rest) = left.checked_sub(batch) else { return exchanged };
                    left = rest;
                    if fits(order, order[at]) {
                        order.swap(place, at);
                        exchanged += 1;
                        break 'batches;
                    }
                }
            }
        }
        exchanged
    }

    /// The places behind the first `clean` ones whose entries conflict with one before them in their batch.
    fn conflicting<'c>(&self, order: &[u32], batch: usize, clean: usize, row: &impl Fn(u32) -> &'c [u32]) -> Vec<usize> {
        let mut marks = Marks::new(self.contents);
        let mut found = Vec::new();
        for (place, entry) in order.iter().enumerate().skip(clean / batch * batch) {
            if place.is_multiple_of(batch) {
                marks.now += 1;
            }
            if self.obstacle(&marks, row(*entry)).is_some() {
                found.push(place);
            }
            self.mark(&mut marks, row(*entry));
        }
        found
    }

    /// A content of `row` because of which it conflicts with the batch; none if it fits.
    fn obstacle(&self, marks: &Marks, row: &[u32]) -> Option<u32> {
        let in_batch = |of: &[u32], content: u32| of[content as usize] == marks.now;
        let own = row.iter().copied().find(|&content| {
            in_batch(&marks.held, content)
                || in_batch(&marks.positives, content)
                || self.anchors.of(content).iter().any(|anchor| in_batch(&marks.anchors, *anchor))
        });
        own.or_else(|| {
            let anchor = *row.first()?;
            let asked = in_batch(&marks.asking, anchor)
                || self.positives.of(anchor).iter().any(|positive| in_batch(&marks.held, *positive));
            asked.then_some(anchor)
        })
    }

    /// Adds `row` to the batch.
    fn mark(&self, marks: &mut Marks, row: &[u32]) {
        for &content in row {
            marks.held[content as usize] = marks.now;
            self.anchors.of(content).iter().for_each(|anchor| marks.asking[*anchor as usize] = marks.now);
        }
        if let Some(&anchor) = row.first() {
            marks.anchors[anchor as usize] = marks.now;
            self.positives.of(anchor).iter().for_each(|positive| marks.positives[*positive as usize] = marks.now);
        }
    }

    /// Whether two samples conflict.
    fn conflict(&self, a: &[u32], b: &[u32]) -> bool {
        let known = |anchor: u32, content: u32| {
            self.positives.of(anchor).binary_search(&content).is_ok() || self.anchors.of(content).binary_search(&anchor).is_ok()
        };
        b.iter().any(|content| a.contains(content) || known(a[0], *content)) || a.iter().any(|content| known(b[0], *content))
    }
}

impl Marks {
    fn new(contents: usize) -> Marks {
        let none = || vec![0; contents];
        Marks { now: 0, held: none(), anchors: none(), positives: none(), asking: none() }
    }
}

#[cfg(test)]
mod tests;
