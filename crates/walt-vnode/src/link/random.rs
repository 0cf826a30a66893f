//! Random numbers that are the same for the same seed: the generator xoshiro256++ (Blackman and Vigna, 2019), started
//! by splitmix64. Nobody guards anything by them.

use walt_types::networks::Distribution;

/// Shape of the Pareto distribution: the smallest whole number that has a standard deviation.
const PARETO_SHAPE: f64 = 3.0;
/// Longest deviation, in standard deviations: the tail of a Pareto distribution has no end.
const DEVIATION_MAX: f64 = 20.0;

/// A generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Random([u64; 4]);

impl Random {
    /// The sequence of this seed; each `stream` of a seed has its own.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut state = seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self([next(), next(), next(), next()])
    }

    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        result
    }

    /// At least 0 and less than 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A deviation with mean 0: of standard deviation 1, or for [`Distribution::Uniform`] between -1 and 1. Takes two
    /// numbers, whichever the distribution.
    pub(super) fn deviation(&mut self, distribution: Distribution) -> f64 {
        // 1 - unit: more than 0, as logarithm and power need it.
        let (a, b) = (1.0 - self.unit(), self.unit());
        let found = match distribution {
            Distribution::Uniform => 2.0 * b - 1.0,
            // Box and Muller.
            Distribution::Normal => (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos(),
            Distribution::Pareto => {
                let k = PARETO_SHAPE;
                let mean = k / (k - 1.0);
                let deviation = (k / ((k - 1.0).powi(2) * (k - 2.0))).sqrt();
                (a.powf(-1.0 / k) - mean) / deviation
            }
        };
        found.clamp(-DEVIATION_MAX, DEVIATION_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_streams_differ() {
        let first = |seed, stream| Random::new(seed, stream).next();
        assert_eq!(first(1, 2), first(1, 2));
        assert!(first(1, 2) != first(1, 3) && first(1, 2) != first(2, 2) && first(0, 0) != first(0, 1));
    }

    #[test]
    fn numbers_are_spread() {
        let mut random = Random::new(7, 0);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            let unit = random.unit();
            assert!((0.0..1.0).contains(&unit));
            counts[(unit * 10.0) as usize] += 1;
        }
        // 5 standard deviations of a binomial distribution.
        assert!(counts.iter().all(|n| n.abs_diff(10_000) < 475), "{counts:?}");
    }

    #[test]
    fn distributions() {
        const N: usize = 200_000;
        for distribution in Distribution::ALL {
            let mut random = Random::new(1, 1);
            let mut all: Vec<f64> = (0..N).map(|_| random.deviation(distribution)).collect();
            let mean = all.iter().sum::<f64>() / N as f64;
            let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / N as f64).sqrt();
            all.sort_by(f64::total_cmp);
            let at = |part: f64| all[(part * N as f64) as usize];
            assert!(mean.abs() < 0.015, "{distribution:?} {mean}");
            // Quantiles from the formulas of the distributions.
            let (wanted, low, median, high) = match distribution {
                Distribution::Normal => (1.0, -1.6449, 0.0, 1.6449),
                Distribution::Uniform => (1.0 / 3.0_f64.sqrt(), -0.9, 0.0, 0.9),
                // x = (u^(-1/3) - 1.5) / sqrt(0.75), whose standard deviation is 0.93 when it is cut at 20.
                Distribution::Pareto => (0.93, -0.5574, -0.2772, 1.4022),
            };
            let close = |a: f64, b: f64, by: f64| assert!((a - b).abs() < by, "{distribution:?}: {a}, {b}");
            close(deviation, wanted, 0.06);
            close(at(0.05), low, 0.02);
            close(at(0.5), median, 0.02);
            close(at(0.95), high, 0.03);
            assert!(all[0] >= -DEVIATION_MAX && all[N - 1] <= DEVIATION_MAX);
        }
    }
}
