//! The learning-rate schedule, defined on the full number of epochs: stopping or resuming a trial does not change it.

use crate::spec::{ScheduleKind, TrainingSpec};
use std::f64::consts::PI;

/// The learning rate of every step of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Of the steps in which only the head is trained, if there are any.
    probing: Option<Course>,
    rest: Course,
}

/// One course of the learning rate, from warm-up to end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Course {
    kind: ScheduleKind,
    peak: f64,
    warmup: f64,
    total: f64,
}

impl Schedule {
    /// The schedule of a trial whose epochs have `steps_per_epoch` steps, and which trains only its head for the first
    /// `probing` epochs: they have a course of their own.
    pub fn new(spec: &TrainingSpec, probing: u32, steps_per_epoch: usize) -> Self {
        let course = |epochs| Course::new(spec, epochs, steps_per_epoch);
        let rest = spec.epochs.saturating_sub(probing);
        Self { probing: (probing > 0).then(|| course(probing)), rest: course(rest) }
    }

    /// The learning rate of step `step`, counted from 0 over all epochs.
    pub fn rate(&self, step: u64) -> f64 {
        let step = step as f64;
        match self.probing {
            Some(probing) if step < probing.total => probing.rate(step),
            Some(probing) => self.rest.rate(step - probing.total),
            None => self.rest.rate(step),
        }
    }
}

impl Course {
    fn new(spec: &TrainingSpec, epochs: u32, steps_per_epoch: usize) -> Self {
        let total = f64::from(epochs) * steps_per_epoch as f64;
        Self {
            kind: spec.schedule,
            peak: spec.learning_rate,
            warmup: (spec.warmup_epochs * steps_per_epoch as f64).clamp(0.0, total),
            total,
        }
    }

    /// The learning rate of the course's step `step`, counted from 0.
    ///
    /// Warm-up is linear and reaches the peak with its last step. The cosine runs over the steps that remain and
    /// would be 0 at the step after the last; the drops of `Step` come at 1/2 and 3/4 of all steps.
    fn rate(&self, step: f64) -> f64 {
        let warm = if step < self.warmup { ((step + 1.0) / self.warmup).min(1.0) } else { 1.0 };
        let course = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine if step < self.warmup => 1.0,
            ScheduleKind::Cosine => {
                let progress = (step - self.warmup) / (self.total - self.warmup).max(1.0);
                0.5 * (1.0 + (PI * progress.min(1.0)).cos())
            }
            ScheduleKind::Step if step >= 0.75 * self.total => 0.01,
            ScheduleKind::Step if step >= 0.5 * self.total => 0.1,
            ScheduleKind::Step => 1.0,
        };
        self.peak * warm * course
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind, warmup: f64) -> Schedule {
        Schedule { probing: None, rest: Course { kind, peak: 2.0, warmup, total: 100.0 } }
    }

    #[test]
    fn the_head_alone_has_a_course_of_its_own() {
        let spec = TrainingSpec { epochs: 10, learning_rate: 2.0, warmup_epochs: 0.5, ..TrainingSpec::default() };
        let (whole, first) = (Schedule::new(&spec, 4, 20), TrainingSpec { epochs: 4, ..spec.clone() });
        let (first, rest) = (Schedule::new(&first, 0, 20), TrainingSpec { epochs: 6, ..spec });
        let rest = Schedule::new(&rest, 0, 20);
        assert!((0..80).all(|step| whole.rate(step) == first.rate(step)));
        assert!((80..200).all(|step| whole.rate(step) == rest.rate(step - 80)));
    }

    #[test]
    fn warm_up_rises_linearly_to_the_peak() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Cosine, ScheduleKind::Step] {
            let s = schedule(kind, 10.0);
            assert_eq!(s.rate(0), 0.2);
            assert_eq!(s.rate(4), 1.0);
            assert_eq!(s.rate(9), 2.0);
            assert_eq!(s.rate(10), 2.0);
        }
    }

    #[test]
    fn the_cosine_falls_to_half_in_the_middle_and_to_nothing_at_the_end() {
        let s = schedule(ScheduleKind::Cosine, 0.0);
        assert_eq!(s.rate(0), 2.0);
        assert!((s.rate(50) - 1.0).abs() < 1e-12);
        // torch.optim.lr_scheduler.CosineAnnealingLR(T_max=100) after 25 and 99 steps from 2.0.
        assert!((s.rate(25) - 1.707_106_781_186_547_5).abs() < 1e-12);
        assert!((s.rate(99) - 0.000_493_439_634_268_4).abs() < 1e-12);
        assert!(s.rate(100).abs() < 1e-12);
    }

    #[test]
    fn the_step_schedule_drops_at_a_half_and_at_three_quarters() {
        let s = schedule(ScheduleKind::Step, 0.0);
        assert_eq!(s.rate(49), 2.0);
        assert_eq!(s.rate(50), 0.2);
        assert_eq!(s.rate(74), 0.2);
        assert_eq!(s.rate(75), 0.02);
    }
}
