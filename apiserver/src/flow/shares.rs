//! How many seats each priority level has: its part of all there are, and what levels lend each other (KEP-1040,
//! "Borrowing").

/// What a level is entitled to, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Its part of all seats.
    pub(crate) nominal: u32,
    /// What is left to it when it lends all it may.
    pub(crate) least: u32,
    /// What it may have with all it may borrow.
    pub(crate) most: u32,
}

/// What a level's object says of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) shares: u32,
    pub(super) lendable_percent: u32,
    pub(super) borrowing_percent: Option<u32>,
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A percentage, rounded.
fn percent(of: u32, percent: u32) -> u32 {
    small((u64::from(of) * u64::from(percent) + 50) / 100)
}

/// What each level is entitled to of `total` seats.
pub(super) fn entitle(total: u32, wishes: &[Wish]) -> Vec<Bounds> {
    let all: u64 = wishes.iter().map(|wish| u64::from(wish.shares)).sum();
    let bounds = |wish: &Wish| {
        let nominal = small((u64::from(total) * u64::from(wish.shares)).div_ceil(all.max(1)));
        let least = nominal - percent(nominal, wish.lendable_percent).min(nominal);
        let borrowed = wish.borrowing_percent.map_or(total, |limit| percent(nominal, limit));
        Bounds { nominal, least, most: nominal.saturating_add(borrowed).min(total.max(nominal)) }
    };
    wishes.iter().map(bounds).collect()
}

/// Who wants how much of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) bounds: Bounds,
    /// Seats in use and waited for.
    pub(super) demand: u32,
}

/// Divides the seats: each level has what it wants of its nominal part and keeps what it does not lend; what others do
/// not want goes to those who want more, in proportion to their parts; what nobody wants stays with whose it is.
pub(super) fn divide(claims: &[Claim]) -> Vec<u32> {
    let total: u64 = claims.iter().map(|claim| u64::from(claim.bounds.nominal)).sum();
    let mut given: Vec<u32> = claims.iter().map(|c| c.demand.min(c.bounds.nominal).max(c.bounds.least)).collect();
    let mut left = small(total.saturating_sub(given.iter().map(|seats| u64::from(*seats)).sum()));
    let wanted: Vec<u32> = claims.iter().map(|c| c.demand.min(c.bounds.most)).collect();
    let nominal: Vec<u32> = claims.iter().map(|c| c.bounds.nominal).collect();
    for goal in [&wanted, &nominal] {
        left = fill(&mut given, goal, &nominal, left);
    }
    given
}

/// Raises `given` towards `goal` by `left` seats in proportion to `weights`; what is left then.
fn fill(given: &mut [u32], goal: &[u32], weights: &[u32], mut left: u32) -> u32 {
    while left > 0 {
        let open = || given.iter().zip(goal).zip(weights).filter(|((given, goal), _)| given < goal);
        let sum: u64 = open().map(|(_, weight)| u64::from(*weight).max(1)).sum();
        if sum == 0 {
            break;
        }
        let round = left;
        for ((given, goal), weight) in given.iter_mut().zip(goal).zip(weights) {
            // Rounded up, so that each round gives something.
            let part = (u64::from(round) * u64::from(*weight).max(1)).div_ceil(sum);
            let part = small(part).min(goal.saturating_sub(*given)).min(left);
            *given += part;
            left -= part;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Wish {
        Wish { shares, lendable_percent, borrowing_percent }
    }

    #[test]
    fn parts_are_rounded_up_and_lent_and_borrowed_by_percent() {
        let bounds = entitle(600, &[wish(5, 0, None), wish(40, 50, Some(25)), wish(200, 90, None), wish(0, 0, None)]);
        let shown: Vec<_> = bounds.iter().map(|b| (b.nominal, b.least, b.most)).collect();
        assert_eq!(shown, [(13, 13, 600), (98, 49, 123), (490, 49, 600), (0, 0, 600)]);
        assert_eq!(entitle(600, &[wish(0, 0, None)]), [Bounds { nominal: 0, least: 0, most: 600 }]);
    }

    #[test]
    fn what_is_not_wanted_is_lent_and_comes_back_when_it_is() {
        let bounds = entitle(100, &[wish(50, 80, None), wish(30, 50, Some(100)), wish(20, 0, None)]);
        for (demands, expected, why) in [
            ([0, 0, 0], [50, 30, 20], "nobody wants anything: each has its own"),
            ([500, 0, 0], [65, 15, 20], "one may borrow what the others lend"),
            ([500, 500, 0], [50, 30, 20], "both want: nothing is lent, the third lends nothing"),
            ([0, 500, 0], [20, 60, 20], "no more than the limit of borrowing"),
            ([0, 500, 500], [10, 54, 36], "two share what the first lends by their parts"),
            ([50, 30, 500], [50, 30, 20], "nobody loses what he uses of his own"),
            ([12, 500, 0], [20, 60, 20], "what is over stays with its owner"),
        ] {
            let claims: Vec<Claim> =
                bounds.iter().zip(demands).map(|(bounds, demand)| Claim { bounds: *bounds, demand }).collect();
            assert_eq!(divide(&claims), expected, "{why}");
        }
    }

    #[test]
    fn never_more_than_there_is_and_never_less_than_ones_own() {
        let bounds =
            entitle(97, &[wish(7, 33, None), wish(13, 100, Some(50)), wish(29, 90, None), wish(1, 0, Some(0))]);
        let total: u32 = bounds.iter().map(|b| b.nominal).sum();
        for seed in 0..2000_u32 {
            let demand = |n: u32| (seed.wrapping_mul(2_654_435_761).rotate_left(n * 7)) % 150;
            let claims: Vec<Claim> = (0..4).map(|n| Claim { bounds: bounds[n as usize], demand: demand(n) }).collect();
            let given = divide(&claims);
            assert!(given.iter().sum::<u32>() <= total, "{claims:?} {given:?}");
            for (claim, given) in claims.iter().zip(&given) {
                assert!(*given >= claim.demand.min(claim.bounds.nominal).max(claim.bounds.least), "{claims:?} {given}");
                assert!(*given <= claim.bounds.most.max(claim.bounds.nominal), "{claims:?} {given}");
            }
        }
    }
}
