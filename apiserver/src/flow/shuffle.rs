//! Shuffle sharding: each flow is dealt a hand of queues, so that two flows seldom share all of theirs, and one that fills
//! its queues leaves most others a queue that is not full.

/// Deals `hand` different ones of `deck` queues by a hash. There are never more than there are queues.
pub(super) fn deal(mut hash: u64, deck: u32, hand: u32) -> Vec<u32> {
    let mut sorted: Vec<u32> = Vec::new();
    let mut dealt = Vec::new();
    for taken in 0..hand.min(deck) {
        let left = u64::from(deck - taken);
        // Below `deck`, so it fits.
        let mut card = u32::try_from(hash % left).unwrap_or_default();
        hash /= left;
        // The n-th of those that are left: those dealt before it are stepped over.
        for other in &sorted {
            card += u32::from(card >= *other);
        }
        sorted.insert(sorted.partition_point(|other| *other < card), card);
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hand_holds_different_queues_and_all_of_them_are_dealt() {
        let mut seen = BTreeSet::new();
        for hash in 0..5000_u64 {
            let hand = deal(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), 16, 4);
            let different: BTreeSet<u32> = hand.iter().copied().collect();
            assert_eq!((hand.len(), different.len()), (4, 4), "{hand:?}");
            assert!(hand.iter().all(|card| *card < 16), "{hand:?}");
            seen.extend(different);
        }
        assert_eq!(seen.len(), 16);
        assert_eq!(deal(7, 1, 1), [0]);
        assert_eq!(deal(u64::MAX, 2, 5).len(), 2, "no more than there are");
        assert_eq!(deal(7, 0, 3), [0_u32; 0]);
    }

    #[test]
    fn every_hand_comes_from_one_number() {
        // 5 * 4 hands of two out of five, in the order they are dealt.
        let hands: BTreeSet<Vec<u32>> = (0..20).map(|hash| deal(hash, 5, 2)).collect();
        assert_eq!(hands.len(), 20);
    }
}
