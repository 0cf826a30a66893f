//! What a link does to its frames: the parameters, their grammar, and what does not fit together.

use crate::ParseError;
use std::{fmt, str::FromStr};

/// Longest `lat` and `jitter`, in microseconds.
pub const TIME_MAX_US: u64 = 60_000_000;
/// Highest rate, in kbit/s.
pub const RATE_MAX_KBPS: u64 = 100_000_000;
/// Longest queue, in frames.
pub const QUEUE_MAX: u32 = 100_000;
/// Frames that wait for their turn on a link with a rate, unless `queue` says otherwise.
pub const QUEUE_DEFAULT: u32 = 1000;

/// A part of all frames, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(u32);

impl Share {
    /// All of them.
    const ALL: u32 = 1_000_000;
    /// Millionths of a percent.
    const PERCENT: u32 = 10_000;

    /// From 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL)
    }

    /// Whether it is none at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for Share {
    type Err = ParseError;
    /// `1%`, `0.25%`: at most four digits behind the point.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || ParseError(format!("'{s}' is not a share; a share is 0% to 100%, such as 0.5%"));
        let number = s.strip_suffix('%').ok_or_else(bad)?;
        let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(rest) || rest.len() > 4 {
            return Err(bad());
        }
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        // At most four digits: it fits, and the missing ones are zeroes.
        let rest: u32 = format!("{rest:0<4}").parse().map_err(|_| bad())?;
        match whole.checked_mul(Self::PERCENT).and_then(|w| w.checked_add(rest)) {
            Some(all) if all <= Self::ALL => Ok(Self(all)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::PERCENT, self.0 % Self::PERCENT);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

/// Loss in bursts, by the model of Gilbert: a link is good or bad, and a bad one loses every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Burst {
    /// The probability, before each frame, that a good link becomes bad.
    pub begin: Share,
    /// The probability, before each frame, that a bad link becomes good: its inverse is the mean length of a burst.
    pub end: Share,
}

impl FromStr for Burst {
    type Err = ParseError;
    /// `1%/25%`.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (begin, end) = s.split_once('/').ok_or_else(|| {
            ParseError(format!(
                "'{s}' is not a pair of shares, such as 1%/25%: begin and end of bursts of loss"
            ))
        })?;
        let burst = Self { begin: begin.parse()?, end: end.parse()? };
        if burst.end.is_zero() {
            return Err(ParseError(format!(
                "the burst '{s}' would never end: its second share must not be 0%"
            )));
        }
        Ok(burst)
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.begin, self.end)
    }
}

/// How delays are spread around the latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Distribution {
    /// The normal distribution; the jitter is its standard deviation.
    #[default]
    Normal,
    /// A Pareto distribution with shape 3, of mean 0; the jitter is its standard deviation, and it is cut at 20 of them.
    Pareto,
    /// Every delay up to the jitter, in both directions, is as likely.
    Uniform,
}

impl Distribution {
    /// All of them, in the order in which messages list them.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Pareto, Self::Uniform];

    /// Its name in the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pareto => "pareto",
            Self::Uniform => "uniform",
        }
    }
}

/// What one direction of a link does to frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Impairments {
    /// Delay of every frame, in microseconds.
    pub latency_us: u64,
    /// Width of the spread of delays, in microseconds.
    pub jitter_us: u64,
    /// Form of the spread.
    pub distribution: Distribution,
    /// Frames lost, each one by itself.
    pub loss: Share,
    /// Frames lost in bursts.
    pub burst: Option<Burst>,
    /// Frames delivered twice.
    pub duplicate: Share,
    /// Frames that skip the delay, and so overtake others.
    pub reorder: Share,
    /// Frames in which one bit is flipped.
    pub corrupt: Share,
    /// Most frames that wait for the rate; [`QUEUE_DEFAULT`] if absent.
    pub queue: Option<u32>,
    /// Rate, in kbit/s; no bound if absent.
    pub rate_kbps: Option<u64>,
}

/// What a link does to frames, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    /// Towards the node.
    pub down: Impairments,
    /// From the node.
    pub up: Impairments,
    /// Nothing passes.
    pub is_cut: bool,
    /// Where random decisions begin; another place each time if absent.
    pub seed: Option<u64>,
}

/// One parameter of a direction.
struct Parameter {
    key: &'static str,
    get: fn(&Impairments) -> Option<String>,
    /// Sets it; the empty text gives the default.
    set: fn(&mut Impairments, &str) -> Result<(), ParseError>,
}

fn share_text(share: Share) -> Option<String> {
    (!share.is_zero()).then(|| share.to_string())
}

/// The value of a text, the default for the empty one.
fn or_default<T: Default>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    if text.is_empty() { Ok(T::default()) } else { parse(text) }
}

/// The parameters of a direction, in the order of the canonical text.
const PARAMETERS: &[Parameter] = &[
    Parameter {
        key: "lat",
        get: |i| (i.latency_us > 0).then(|| time_text(i.latency_us)),
        set: |i, text| or_default(text, |t| time("lat", t)).map(|us| i.latency_us = us),
    },
    Parameter {
        key: "jitter",
        get: |i| (i.jitter_us > 0).then(|| time_text(i.jitter_us)),
        set: |i, text| or_default(text, |t| time("jitter", t)).map(|us| i.jitter_us = us),
    },
    Parameter {
        key: "dist",
        get: |i| (i.distribution != Distribution::default()).then(|| i.distribution.name().to_owned()),
        set: |i, text| or_default(text, distribution).map(|d| i.distribution = d),
    },
    Parameter {
        key: "loss",
        get: |i| share_text(i.loss),
        set: |i, text| or_default(text, str::parse).map(|share| i.loss = share),
    },
    Parameter {
        key: "burst",
        get: |i| i.burst.map(|burst| burst.to_string()),
        set: |i, text| or_default(text, |t| t.parse().map(Some)).map(|burst| i.burst = burst),
    },
    Parameter {
        key: "dup",
        get: |i| share_text(i.duplicate),
        set: |i, text| or_default(text, str::parse).map(|share| i.duplicate = share),
    },
    Parameter {
        key: "reorder",
        get: |i| share_text(i.reorder),
        set: |i, text| or_default(text, str::parse).map(|share| i.reorder = share),
    },
    Parameter {
        key: "corrupt",
        get: |i| share_text(i.corrupt),
        set: |i, text| or_default(text, str::parse).map(|share| i.corrupt = share),
    },
    Parameter {
        key: "queue",
        get: |i| i.queue.map(|queue| queue.to_string()),
        set: |i, text| or_default(text, |t| queue(t).map(Some)).map(|queue| i.queue = queue),
    },
    Parameter {
        key: "bw",
        get: |i| i.rate_kbps.map(rate_text),
        set: |i, text| or_default(text, |t| rate(t).map(Some)).map(|rate| i.rate_kbps = rate),
    },
];

/// What names the direction from the node.
const UP: &str = ".up";

/// A whole number and its unit, with the factor of the unit; `None` if it is none, or does not fit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

const TIME_UNITS: [(&str, u64); 3] = [("us", 1), ("ms", 1_000), ("s", 1_000_000)];
const RATE_UNITS: [(&str, u64); 3] = [("kbps", 1), ("mbps", 1_000), ("gbps", 1_000_000)];

fn time(key: &str, text: &str) -> Result<u64, ParseError> {
    let us = with_unit(text, &TIME_UNITS).ok_or_else(|| {
        ParseError(format!(
            "'{text}' is not a time; '{key}' is a whole number followed by us, ms or s, such as 10ms"
        ))
    })?;
    if us > TIME_MAX_US {
        let most = TIME_MAX_US / 1_000_000;
        return Err(ParseError(format!("'{key}={text}' is too long; the longest is {most}s")));
    }
    Ok(us)
}

/// In the largest unit that gives a whole number.
fn largest_unit(value: u64, units: [(&'static str, u64); 3]) -> (u64, &'static str) {
    let [(small, _), middle, large] = units;
    for (unit, factor) in [large, middle] {
        if value.is_multiple_of(factor) {
            return (value / factor, unit);
        }
    }
    (value, small)
}

fn time_text(us: u64) -> String {
    let (number, unit) = largest_unit(us, TIME_UNITS);
    format!("{number}{unit}")
}

fn rate(text: &str) -> Result<u64, ParseError> {
    let kbps = with_unit(text, &RATE_UNITS).filter(|kbps| *kbps > 0).ok_or_else(|| {
        ParseError(format!(
            "'{text}' is not a rate; 'bw' is a whole number, not 0, followed by kbps, Mbps or Gbps, such as 100Mbps"
        ))
    })?;
    if kbps > RATE_MAX_KBPS {
        let most = RATE_MAX_KBPS / 1_000_000;
        return Err(ParseError(format!("'bw={text}' is too much; the most is {most}Gbps")));
    }
    Ok(kbps)
}

fn rate_text(kbps: u64) -> String {
    let (number, unit) = largest_unit(kbps, [("kbps", 1), ("Mbps", 1_000), ("Gbps", 1_000_000)]);
    format!("{number}{unit}")
}

fn queue(text: &str) -> Result<u32, ParseError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u32>().ok().filter(|n| digits && (1..=QUEUE_MAX).contains(n)).ok_or_else(|| {
        ParseError(format!(
            "'{text}' is not a length of a queue; it is a number of frames from 1 to {QUEUE_MAX}"
        ))
    })
}

fn distribution(text: &str) -> Result<Distribution, ParseError> {
    Distribution::ALL.into_iter().find(|d| d.name() == text).ok_or_else(|| {
        let known = Distribution::ALL.map(Distribution::name).join(", ");
        ParseError(format!("there is no distribution '{text}'; there are: {known}"))
    })
}

impl Impairments {
    /// What does not fit together; `up` is how the parameters of this direction are called.
    fn check(&self, up: &str) -> Result<(), ParseError> {
        if self.jitter_us > self.latency_us {
            let (jitter, latency) = (time_text(self.jitter_us), time_text(self.latency_us));
            return Err(ParseError(format!(
                "jitter{up}={jitter} is more than lat{up}={latency}: no frame can arrive before it was sent"
            )));
        }
        if self.distribution != Distribution::default() && self.jitter_us == 0 {
            let name = self.distribution.name();
            return Err(ParseError(format!("dist{up}={name} has no effect without jitter{up}")));
        }
        if !self.reorder.is_zero() && self.latency_us == 0 {
            let share = self.reorder;
            return Err(ParseError(format!(
                "reorder{up}={share} has no effect without lat{up}: a frame overtakes those that are delayed"
            )));
        }
        if let (Some(queue), None) = (self.queue, self.rate_kbps) {
            return Err(ParseError(format!(
                "queue{up}={queue} has no effect without bw{up}: frames wait for a rate only"
            )));
        }
        Ok(())
    }
}

impl Shape {
    /// Whether the link is a plain cable.
    pub fn is_plain(&self) -> bool {
        *self == Self { seed: self.seed, ..Self::default() }
    }

    /// The shape after changes: `key=value` each, where `key=` brings the default back.
    ///
    /// # Errors
    /// One of them is not a change of a link, or they do not fit together.
    pub fn changed<'a>(mut self, changes: impl IntoIterator<Item = &'a str>) -> Result<Self, ParseError> {
        for change in changes {
            let (key, value) = change.split_once('=').ok_or_else(|| {
                ParseError(format!("'{change}' is not of the form <parameter>=<value>, such as lat=10ms"))
            })?;
            self.set(key, value)?;
        }
        self.down.check("")?;
        self.up.check(UP)?;
        Ok(self)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), ParseError> {
        match key {
            "link" => {
                self.is_cut = match value {
                    "down" => true,
                    "up" | "" => false,
                    _ => {
                        return Err(ParseError(format!(
                            "'{value}' is not a state of a link; it is 'up' or 'down'"
                        )));
                    }
                };
                return Ok(());
            }
            "seed" => {
                let bad = || ParseError(format!("'{value}' is not a seed; a seed is a whole number"));
                let digits = value.bytes().all(|b| b.is_ascii_digit());
                self.seed = match value {
                    "" => None,
                    _ if digits => Some(value.parse().map_err(|_| bad())?),
                    _ => return Err(bad()),
                };
                return Ok(());
            }
            _ => {}
        }
        let (name, direction) = match key.strip_suffix(UP) {
            Some(name) => (name, &mut self.up),
            None => (key, &mut self.down),
        };
        let parameter = PARAMETERS.iter().find(|p| p.key == name).ok_or_else(|| {
            let known: Vec<&str> = PARAMETERS.iter().map(|p| p.key).collect();
            ParseError(format!(
                "a link has no parameter '{key}'; there are: {}, each also with {UP} for the direction from the node, \
                 link and seed",
                known.join(", ")
            ))
        })?;
        (parameter.set)(direction, value)
    }
}

impl FromStr for Shape {
    type Err = ParseError;
    /// Parameters separated by commas; the empty text is a plain cable.
    fn from_str(s: &str) -> Result<Self, ParseError> {
        if s.is_empty() {
            return Ok(Self::default());
        }
        let words: Vec<&str> = s.split(',').collect();
        let mut keys = Vec::new();
        for word in &words {
            let key = word.split_once('=').map_or(*word, |(key, _)| key);
            if word.ends_with('=') {
                return Err(ParseError(format!("'{word}' has no value")));
            }
            if keys.contains(&key) {
                return Err(ParseError(format!("'{key}' is there twice")));
            }
            keys.push(key);
        }
        Self::default().changed(words)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        for parameter in PARAMETERS {
            for (direction, suffix) in [(&self.down, ""), (&self.up, UP)] {
                if let Some(value) = (parameter.get)(direction) {
                    words.push(format!("{}{suffix}={value}", parameter.key));
                }
            }
        }
        if self.is_cut {
            words.push("link=down".to_owned());
        }
        if let Some(seed) = self.seed {
            words.push(format!("seed={seed}"));
        }
        f.write_str(&words.join(","))
    }
}

crate::serde_by_text!(Shape);
