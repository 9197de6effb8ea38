//! How long admission takes, whom it refuses, and how webhooks fare: counted for `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Operation;
use crate::metrics::{Histogram, Scale};

/// How long plugins and steps take, as in Kubernetes.
static PLUGINS: Scale = Scale::durations(&[5, 25, 100, 500, 1000, 2500]);

/// How long webhooks take, likewise.
static WEBHOOKS: Scale = Scale::durations(&[5, 25, 100, 500, 1000, 2500, 10_000, 25_000]);

/// Webhooks are called by names that are configured; no more of them are told apart.
const MOST: usize = 1000;

/// Which half of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// What may change the object.
    Admit,
    /// What only judges it.
    Validate,
}

impl Step {
    /// Both, in their order.
    pub(crate) const ALL: [Self; 2] = [Self::Admit, Self::Validate];

    /// As Kubernetes labels it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }

    /// As Kubernetes labels the webhooks of it.
    pub(crate) const fn of_webhooks(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validating",
        }
    }
}

/// Durations by what was done and whether it was refused.
#[derive(Debug)]
pub(crate) struct Durations([[Histogram; 2]; Operation::ALL.len()]);

impl Durations {
    fn new() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(&PLUGINS))))
    }

    fn took(&self, operation: Operation, is_refused: bool, took: Duration) {
        let of = self.0.get(operation as usize).and_then(|both| both.get(usize::from(is_refused)));
        if let Some(histogram) = of {
            histogram.took(took);
        }
    }

    /// Each of them.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Operation, bool, &Histogram)> {
        Operation::ALL
            .into_iter()
            .zip(&self.0)
            .flat_map(|(operation, [taken, refused])| [(operation, false, taken), (operation, true, refused)])
    }
}

/// Which calls of webhooks are counted together: name, step, and what was done.
pub(crate) type CallKind = (String, Step, Operation);

/// How the call of a webhook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEnd {
    /// It let the write pass.
    Passed,
    /// It said no, with this code.
    Refused(u16),
    /// It could not be called, and the write was refused.
    FailedClosed,
    /// It could not be called, and was left out.
    FailedOpen,
}

/// The calls of one webhook.
#[derive(Debug)]
pub(crate) struct Calls {
    /// How long those took that let pass, and those that refused.
    pub(crate) took: [Histogram; 2],
    /// How often it answered with a code, or (0) did not.
    pub(crate) codes: BTreeMap<(u16, bool), u64>,
    /// How often it was left out because it could not be called.
    pub(crate) failed_open: u64,
}

impl Calls {
    fn count(&mut self, end: CallEnd, took: Duration) {
        let (code, is_refused) = match end {
            CallEnd::Passed => (200, false),
            // What is no code at all is told as one number.
            CallEnd::Refused(code) => (if (100..600).contains(&code) { code } else { 600 }, true),
            CallEnd::FailedClosed => (0, true),
            CallEnd::FailedOpen => (0, false),
        };
        self.failed_open += u64::from(end == CallEnd::FailedOpen);
        *self.codes.entry((code, is_refused)).or_default() += 1;
        let [passed, refused] = &self.took;
        if is_refused { refused } else { passed }.took(took);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Figures {
    steps: [Durations; Step::ALL.len()],
    /// By name, in the order in which they are asked first.
    plugins: Vec<(&'static str, Step, Durations)>,
    webhooks: Mutex<BTreeMap<CallKind, Calls>>,
}

impl Figures {
    pub(super) fn new(plugins: impl Iterator<Item = (&'static str, Step)>) -> Self {
        Self {
            steps: std::array::from_fn(|_| Durations::new()),
            plugins: plugins.map(|(name, step)| (name, step, Durations::new())).collect(),
            webhooks: Mutex::default(),
        }
    }

    /// Begins a step.
    pub(super) fn begin(&self, step: Step, operation: Operation) -> Clock<'_> {
        let now = Instant::now();
        Clock { figures: self, step, operation, begun: now, last: now }
    }

    /// A webhook was called.
    pub(crate) fn called(&self, kind: CallKind, end: CallEnd, took: Duration) {
        let mut webhooks = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        if webhooks.len() < MOST || webhooks.contains_key(&kind) {
            let none = || Calls {
                took: [Histogram::new(&WEBHOOKS), Histogram::new(&WEBHOOKS)],
                codes: BTreeMap::new(),
                failed_open: 0,
            };
            webhooks.entry(kind).or_insert_with(none).count(end, took);
        }
    }

    /// The durations of each step.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (Step, &Durations)> {
        Step::ALL.into_iter().zip(&self.steps)
    }

    /// Those of each plugin.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = (&'static str, Step, &Durations)> {
        self.plugins.iter().map(|(name, step, durations)| (*name, *step, durations))
    }

    /// Looks at the calls of webhooks.
    pub(crate) fn webhooks<T>(&self, look: impl FnOnce(&BTreeMap<CallKind, Calls>) -> T) -> T {
        look(&self.webhooks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Measures a step and the plugins of it, one after the other.
pub(super) struct Clock<'f> {
    figures: &'f Figures,
    step: Step,
    operation: Operation,
    begun: Instant,
    last: Instant,
}

impl Clock<'_> {
    /// A plugin is done; returns what it said.
    pub(super) fn lap<T, E>(&mut self, name: &str, result: Result<T, E>) -> Result<T, E> {
        let now = Instant::now();
        let own = self.figures.plugins.iter().find(|(known, step, _)| *known == name && *step == self.step);
        if let Some((_, _, durations)) = own {
            durations.took(self.operation, result.is_err(), now - self.last);
        }
        self.last = now;
        result
    }

    /// The step is done; returns what came of it.
    pub(super) fn end<T, E>(self, result: Result<T, E>) -> Result<T, E> {
        if let Some(durations) = self.figures.steps.get(self.step as usize) {
            durations.took(self.operation, result.is_err(), self.begun.elapsed());
        }
        result
    }
}
