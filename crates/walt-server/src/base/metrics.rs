//! Figures for Prometheus: counters that are kept in memory, and the text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4).
//!
//! Names have the unit as a suffix and `_total` if they count. The values of labels come from fixed lists: routes as they
//! are declared, stages, kinds of ends.
//!
//! The text is written here and not by the crate prometheus-client, whose format is that of OpenMetrics: `promtool check
//! metrics` takes the one that is written here.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use walt_core::boots::{End, Record, Stage};

/// Upper bounds of the times of requests, in seconds.
const REQUEST_BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Upper bounds of the times of boots and of their stages, in seconds.
const BOOT_BOUNDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0];
/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many observations there were, by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is larger.
    buckets: Vec<AtomicU64>,
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// Nothing was observed yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, nanoseconds: AtomicU64::new(0) }
    }

    /// A time was observed, in seconds; one below 0 counts as 0.
    pub fn observe(&self, seconds: f64) {
        let seconds = seconds.max(0.0);
        let at = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add((seconds * 1e9) as u64, Ordering::Relaxed);
    }
}

/// What is counted since the start of the server.
#[derive(Debug)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str, u16), Histogram>>,
    boots: Histogram,
    stages: Vec<(Stage, Histogram)>,
    ends: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            boots: Histogram::new(&BOOT_BOUNDS),
            stages: Stage::ALL.map(|stage| (stage, Histogram::new(&BOOT_BOUNDS))).into(),
            ends: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A request of the API was answered (a stream: it has begun). The route is its template.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let method = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].into_iter().find(|m| *m == method);
        let key = (route.to_owned(), method.unwrap_or("other"), status);
        let mut all = self.requests.lock();
        all.entry(key).or_insert_with(|| Histogram::new(&REQUEST_BOUNDS)).observe(took.as_secs_f64());
    }

    /// The record of a boot has changed: whether it has come to an end by this.
    pub fn boot(&self, had_booted: bool, had_ended: bool, record: &Record) {
        if let (false, Some(total)) = (had_booted, record.total()) {
            self.boots.observe(total);
            for (reached, took) in record.durations() {
                let of = self.stages.iter().find(|(stage, _)| *stage == reached.stage);
                // Invariant: all stages are there.
                of.expect("a stage").1.observe(took);
            }
            self.ended("booted");
        }
        if let (false, Some(end), None) = (had_ended, &record.end, record.total()) {
            self.ended(match end {
                End::Timeout => "timeout",
                End::Panic(_) => "panic",
                End::Rebooted(_) => "rebooted",
                End::PoweredOff => "powered-off",
                End::Stopped(_) => "stopped",
                End::NotStarted(_) => "not-started",
            });
        }
    }

    fn ended(&self, how: &'static str) {
        *self.ends.lock().entry(how).or_default() += 1;
    }

    /// Writes all of this.
    pub fn write(&self, text: &mut Text) {
        text.family("walt_boots_total", "counter", "Boots of nodes, by how they went.");
        for (outcome, count) in self.ends.lock().iter() {
            text.sample("walt_boots_total", &[("outcome", outcome)], *count as f64);
        }
        let name = "walt_boot_duration_seconds";
        text.family(name, "histogram", "Time from power-on until the ssh server of the image answers.");
        text.histogram(name, &[], &self.boots);
        let name = "walt_boot_stage_duration_seconds";
        text.family(name, "histogram", "Time of each stage of the boots that succeeded.");
        for (stage, times) in &self.stages {
            text.histogram(name, &[("stage", stage.name())], times);
        }
        let name = "walt_api_request_duration_seconds";
        text.family(
            name,
            "histogram",
            "Time until requests to the API were answered; of streams, until they began.",
        );
        for ((route, method, status), times) in self.requests.lock().iter() {
            let labels = [("route", route.as_str()), ("method", method), ("status", &status.to_string())];
            text.histogram(name, &labels, times);
        }
    }
}

/// Text in the format of Prometheus.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Samples with this name follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (n, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if n == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family with one sample.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], of: &Histogram) {
        let counts: Vec<u64> = of.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let sum = of.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        self.buckets(name, labels, of.bounds, &counts, sum);
    }

    /// The samples of a histogram: how many there are up to each bound (and not up to the one before), and of all others;
    /// and their sum.
    pub fn buckets(&mut self, name: &str, labels: &[(&str, &str)], bounds: &[f64], counts: &[u64], sum: f64) {
        let bucket = format!("{name}_bucket");
        let bounds = bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), total as f64);
        }
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, total as f64);
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walt_core::boots::Cause;

    #[test]
    fn histograms_are_cumulative() {
        static BOUNDS: [f64; 2] = [0.5, 1.0];
        let times = Histogram::new(&BOUNDS);
        for seconds in [0.5, 0.75, 0.75, 2.0, -1.0] {
            times.observe(seconds);
        }
        let mut text = Text::default();
        text.family("t_seconds", "histogram", "A \\ and\na line.");
        text.histogram("t_seconds", &[("a", "x\"y\\z\n")], &times);
        text.one("n", "gauge", "N.", 3.0);
        let a = r#"a="x\"y\\z\n""#;
        let expected = format!(
            "# HELP t_seconds A \\\\ and\\na line.\n# TYPE t_seconds histogram\n\
             t_seconds_bucket{{{a},le=\"0.5\"}} 2\nt_seconds_bucket{{{a},le=\"1\"}} 4\nt_seconds_bucket{{{a},le=\"+Inf\"}} 5\n\
             t_seconds_sum{{{a}}} 4\nt_seconds_count{{{a}}} 5\n# HELP n N.\n# TYPE n gauge\nn 3\n"
        );
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn boots_count_once() {
        let metrics = Metrics::default();
        let mut record = Record::new(100.0, Cause::node(), "i".into());
        record.reach(Stage::Init, 104.0, 0);
        metrics.boot(false, false, &record);
        record.reach(Stage::Ssh, 106.0, 0);
        metrics.boot(false, false, &record);
        metrics.boot(true, false, &record);
        // The end of the system that has booted is not that of its boot.
        record.close(End::PoweredOff, 200.0);
        metrics.boot(true, false, &record);
        for (end, _) in [(End::Timeout, 1), (End::Panic("p".into()), 2), (End::NotStarted("n".into()), 3)] {
            let mut failed = Record::new(0.0, Cause::node(), "i".into());
            failed.close(end, 1.0);
            metrics.boot(false, false, &failed);
            metrics.boot(false, true, &failed);
        }
        metrics.request("/x/{name}", "BREW", 404, Duration::from_millis(2));
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.into_string();
        for line in [
            "walt_boots_total{outcome=\"booted\"} 1",
            "walt_boots_total{outcome=\"timeout\"} 1",
            "walt_boots_total{outcome=\"panic\"} 1",
            "walt_boots_total{outcome=\"not-started\"} 1",
            "walt_boot_duration_seconds_sum 6",
            "walt_boot_stage_duration_seconds_sum{stage=\"init\"} 4",
            "walt_boot_stage_duration_seconds_sum{stage=\"ssh\"} 2",
            "walt_boot_stage_duration_seconds_count{stage=\"dhcp\"} 0",
            "walt_api_request_duration_seconds_bucket{route=\"/x/{name}\",method=\"other\",status=\"404\",le=\"0.0025\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("powered-off"));
    }
}
