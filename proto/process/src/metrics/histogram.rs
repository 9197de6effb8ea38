//! How often a value was how large: the histograms of Prometheus.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Page;

/// What a histogram is of, and where its buckets end.
#[derive(Debug)]
pub struct Scale {
    /// Upper ends of the buckets but the last, which has none; in an order that grows.
    ends: &'static [u32],
    /// How many of what is counted make one of what the ends are in.
    fine: u64,
    /// How many of what the ends are in make one of what is shown.
    shown: u32,
}

impl Scale {
    /// Of durations, with ends in milliseconds; shown in seconds.
    #[must_use]
    pub const fn durations(ends: &'static [u32]) -> Self {
        Self { ends, fine: 1_000_000, shown: 1000 }
    }

    /// Of numbers.
    #[must_use]
    pub const fn numbers(ends: &'static [u32]) -> Self {
        Self { ends, fine: 1, shown: 1 }
    }
}

/// See the module. Takes room when the first value comes.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    /// One more than there are ends.
    counts: OnceLock<Box<[AtomicU64]>>,
    sum: AtomicU64,
}

impl Histogram {
    /// One that has counted nothing.
    #[must_use]
    pub const fn new(scale: &'static Scale) -> Self {
        Self { scale, counts: OnceLock::new(), sum: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn took(&self, took: Duration) {
        self.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a value.
    pub fn add(&self, value: u64) {
        let zeros = || (0..=self.scale.ends.len()).map(|_| AtomicU64::new(0)).collect();
        let at = self.scale.ends.partition_point(|end| value > u64::from(*end).saturating_mul(self.scale.fine));
        if let Some(count) = self.counts.get_or_init(zeros).get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Writes its lines under the name, if there was anything to count.
    pub fn write(&self, out: &mut Page, name: &str, labels: &str) {
        let Some(counts) = self.counts.get() else { return };
        let (mut sum, comma) = (0, if labels.is_empty() { "" } else { "," });
        let bucket = format!("{name}_bucket");
        for (end, count) in self.scale.ends.iter().zip(counts) {
            sum += count.load(Ordering::Relaxed);
            let end = f64::from(*end) / f64::from(self.scale.shown);
            out.line(&bucket, format_args!("{{{labels}{comma}le=\"{end}\"}}"), sum);
        }
        sum += counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        #[expect(clippy::cast_precision_loss, reason = "a sum is told in digits enough")]
        let total = self.sum.load(Ordering::Relaxed) as f64 / (self.scale.fine as f64 * f64::from(self.scale.shown));
        out.line(&bucket, format_args!("{{{labels}{comma}le=\"+Inf\"}}"), sum);
        out.line(&format!("{name}_sum"), format_args!("{{{labels}}}"), total);
        out.line(&format!("{name}_count"), format_args!("{{{labels}}}"), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_where_they_belong() {
        static SECONDS: Scale = Scale::durations(&[5, 1500]);
        static BYTES: Scale = Scale::numbers(&[10, 100]);
        let mut out = Page::default();
        let (times, sizes) = (Histogram::new(&SECONDS), Histogram::new(&BYTES));
        times.write(&mut out, "nothing", "");
        for milliseconds in [5, 6, 1500, 1501] {
            times.took(Duration::from_millis(milliseconds));
        }
        sizes.add(101);
        times.write(&mut out, "t", "a=\"b\"");
        sizes.write(&mut out, "s", "");
        let expected = "t_bucket{a=\"b\",le=\"0.005\"} 1\nt_bucket{a=\"b\",le=\"1.5\"} 3\nt_bucket{a=\"b\",le=\"+Inf\"} 4\n\
                        t_sum{a=\"b\"} 3.012\nt_count{a=\"b\"} 4\ns_bucket{le=\"10\"} 0\ns_bucket{le=\"100\"} 0\n\
                        s_bucket{le=\"+Inf\"} 1\ns_sum{} 101\ns_count{} 1\n";
        assert_eq!(out.0, expected);
    }
}
