//! Sets of completion indexes, as a Job's status writes them: `0,2-5,9`.

use std::fmt;

/// Ranges in order, that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a status's words; what is none, or not below `completions`, is left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            (first >= 0 && first < completions && last >= first).then(|| (first, last.min(completions - 1)))
        };
        Self::of_ranges(text.split(',').filter_map(range))
    }

    /// The set of these.
    pub(super) fn of(indexes: impl IntoIterator<Item = i32>) -> Self {
        Self::of_ranges(indexes.into_iter().map(|index| (index, index)))
    }

    fn of_ranges(ranges: impl IntoIterator<Item = (i32, i32)>) -> Self {
        let mut ranges: Vec<(i32, i32)> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What is in either.
    pub(super) fn or(&self, other: &Self) -> Self {
        Self::of_ranges(self.0.iter().chain(&other.0).copied())
    }

    pub(super) fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| *last >= index)
    }

    pub(super) fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many are in both.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let both = self.0.iter().flat_map(|(a, b)| {
            let start = other.0.partition_point(|(_, last)| last < a);
            let touching = other.0.iter().skip(start).take_while(move |(first, _)| first <= b);
            touching.map(move |(first, last)| b.min(last) - a.max(first) + 1)
        });
        both.sum()
    }

    /// The first `count` below `completions` that are not in the set.
    pub(super) fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|(_, last)| last.saturating_add(1)));
        let ends = self.0.iter().map(|(first, _)| *first).chain([completions]);
        starts.zip(ends).flat_map(|(from, to)| from..to.min(completions)).take(count).collect()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        for (text, written, count) in [
            ("", "", 0),
            ("0", "0", 1),
            ("0,1", "0,1", 2),
            ("1,2,3", "1-3", 3),
            ("3,5-7", "3,5-7", 4),
            ("0-4,5,9-20", "0-5,9", 7),
            ("x,-1,4-2,7", "7", 1),
            ("99", "", 0),
        ] {
            let indexes = Indexes::parse(text, 10);
            assert_eq!((indexes.to_string().as_str(), indexes.count()), (written, count), "{text}");
            assert_eq!(Indexes::parse(&indexes.to_string(), 10), indexes);
        }
    }

    #[test]
    fn sets_answer_as_sets_do() {
        let set = Indexes::parse("0,2-4,8", 10);
        let inside: Vec<i32> = (-1..12).filter(|index| set.has(*index)).collect();
        assert_eq!(inside, [0, 2, 3, 4, 8]);
        assert_eq!(set.first_missing(3, 10), [1, 5, 6]);
        assert_eq!(set.first_missing(9, 10), [1, 5, 6, 7, 9]);
        assert_eq!(set.or(&Indexes::of([1, 9])).to_string(), "0-4,8,9");
        assert_eq!(set.common(&Indexes::parse("3-9", 10)), 3);
        assert_eq!(set.common(&Indexes::default()), 0);
        assert_eq!(Indexes::default().first_missing(2, 1), [0]);
    }
}
