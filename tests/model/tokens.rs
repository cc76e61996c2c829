//! Tokens of limits, counted anew from the batches that are out.

use flowyml::scheduler::Batch;

use super::Pair;

impl Pair {
    /// Return what is free of each limit, counted anew.
    fn free(&self) -> Vec<u32> {
        let same = |a: &Batch, b: &Batch| format!("{a:?}") == format!("{b:?}");
        let out = self.out.iter().map(|(batch, _)| batch);
        let is_out = |batch: &&Batch| !self.out.iter().any(|(other, _)| same(batch, other));
        let kept = self.kept.iter().filter(is_out);
        let mut free = self.bounds.totals.clone();
        for batch in out.chain(kept) {
            let node = self.locate(batch.at(0).expect("an item").0).0;
            for (limit, amount) in self.bounds.needs(node) {
                let free = &mut free[*limit as usize];
                *free = free
                    .checked_sub(*amount)
                    .expect("never more than there are");
            }
        }
        free
    }

    /// Say of a node whether the tokens that it needs are there.
    pub(super) fn can_run(&self) -> impl Fn(u32) -> bool {
        let free = self.free();
        move |node| {
            let needs = self.bounds.needs(node);
            needs.iter().all(|need| need.1 <= free[need.0 as usize])
        }
    }

    pub(super) fn keep_tokens(&mut self, choice: u32) {
        let at = choice as usize % self.out.len().max(1);
        if let Some((batch, _)) = self.out.get(at) {
            self.scheduler.keep_tokens(batch).expect("legal");
            let known = |other: &Batch| format!("{other:?}") == format!("{batch:?}");
            if batch.limited() && !self.kept.iter().any(known) {
                self.kept.push(batch.clone());
            }
        }
    }

    pub(super) fn return_tokens(&mut self, choice: u32) {
        if !self.kept.is_empty() {
            let batch = self.kept.swap_remove(choice as usize % self.kept.len());
            self.scheduler.return_tokens(&batch).expect("legal");
            assert!(self.scheduler.return_tokens(&batch).is_err());
        }
    }

    pub(super) fn compare_ready(&self) {
        let (ready, can) = (self.model.ready(), self.can_run());
        let now = ready.iter().filter(|item| can(item.0)).count() as u32;
        assert_eq!(self.scheduler.ready(), now);
        assert_eq!(self.scheduler.parked(), ready.len() as u32 - now);
    }
}
