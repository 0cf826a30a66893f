//! When the server looks for the default image of a model that it has none of: a machine that boots asks for it again
//! and again, and anybody with a cable can make up models.
//!
//! ```text
//!   machine of a model without image ─▶ begin ─▶ Start ─▶ … ─▶ ended ─▶ [`AGAIN_S`] ─▶ forgotten
//!                                          ├─ Runs, Rests: of this model
//!                                          └─ Busy, Full: of others
//! ```

use std::collections::BTreeMap;
use walt_types::Model;

/// Seconds between the end of a search for a model's image and the next one.
pub const AGAIN_S: u64 = 60;
/// Searches that run at once.
pub const RUNNING_MAX: usize = 2;
/// Models whose last search is remembered. While it is full, others are not looked for.
pub const MODELS_MAX: usize = 64;

/// What to do about a machine of a model without image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Look for the image, and call [`Searches::ended`].
    Start,
    /// The search for this model is running.
    Runs,
    /// The last one ended a short time ago.
    Rests,
    /// As many searches are running as may.
    Busy,
    /// Too many models were looked for in the last [`AGAIN_S`] seconds.
    Full,
}

/// The searches that are running or ended a short time ago. Times are in seconds since the epoch.
#[derive(Debug, Default)]
pub struct Searches(BTreeMap<Model, Option<u64>>);

impl Searches {
    /// Asks for a search for the image of a model.
    pub fn begin(&mut self, model: &Model, now: u64) -> Answer {
        self.0.retain(|_, ended| ended.is_none_or(|at| now < at.saturating_add(AGAIN_S)));
        match self.0.get(model) {
            Some(None) => return Answer::Runs,
            Some(Some(_)) => return Answer::Rests,
            None => {}
        }
        if self.0.values().filter(|ended| ended.is_none()).count() >= RUNNING_MAX {
            return Answer::Busy;
        }
        if self.0.len() >= MODELS_MAX {
            return Answer::Full;
        }
        self.0.insert(model.clone(), None);
        Answer::Start
    }

    /// Records the end of a search, whatever it led to.
    pub fn ended(&mut self, model: &Model, now: u64) {
        if let Some(ended) = self.0.get_mut(model) {
            *ended = Some(now);
        }
    }

    /// Whether the search for a model is running.
    pub fn is_running(&self, model: &Model) -> bool {
        self.0.get(model) == Some(&None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(number: usize) -> Model {
        format!("model-{number}").parse().unwrap()
    }

    #[test]
    fn one_search_per_model_and_a_pause() {
        let mut searches = Searches::default();
        assert_eq!(searches.begin(&model(1), 100), Answer::Start);
        assert!(searches.is_running(&model(1)) && !searches.is_running(&model(2)));
        assert_eq!(searches.begin(&model(1), 100 + 10 * AGAIN_S), Answer::Runs);
        searches.ended(&model(1), 1000);
        searches.ended(&model(2), 1000);
        assert!(!searches.is_running(&model(1)));
        assert_eq!(searches.begin(&model(1), 1000 + AGAIN_S - 1), Answer::Rests);
        assert_eq!(searches.begin(&model(2), 1001), Answer::Start, "it never began");
        assert_eq!(searches.begin(&model(1), 1000 + AGAIN_S), Answer::Start);
    }

    #[test]
    fn bounds() {
        let mut searches = Searches::default();
        for number in 0..RUNNING_MAX {
            assert_eq!(searches.begin(&model(number), 0), Answer::Start);
        }
        assert_eq!(searches.begin(&model(99), 0), Answer::Busy);
        (0..RUNNING_MAX).for_each(|number| searches.ended(&model(number), 1));
        for number in RUNNING_MAX..MODELS_MAX {
            assert_eq!(searches.begin(&model(number), 1), Answer::Start, "{number}");
            searches.ended(&model(number), 1);
        }
        assert_eq!(searches.begin(&model(MODELS_MAX), AGAIN_S), Answer::Full);
        assert_eq!(
            searches.begin(&model(MODELS_MAX), AGAIN_S + 1),
            Answer::Start,
            "all others are forgotten"
        );
    }
}
