//! Epochs and seats of rungs, in integer arithmetic.

/// The largest k with `min_resource * eta^k <= max_resource`: how many halvings fit. In integers, because
/// `floor(log(R / r) / log(eta))` is one too small for (243, 3), (1000, 10) and (59049, 3).
pub fn halvings(min_resource: u32, max_resource: u32, eta: u32) -> u32 {
    let (mut k, mut resource) = (0, u64::from(min_resource.max(1)) * u64::from(eta.max(2)));
    while resource <= u64::from(max_resource) {
        k += 1;
        resource *= u64::from(eta.max(2));
    }
    k
}

/// Epochs of `k + 1` rungs: `max_resource / eta^(k - i)` (Li et al. 2018, Algorithm 1), so the last is the full
/// number, neighbours differ by the factor eta, and the first is at least the minimum resource.
pub fn epochs(max_resource: u32, eta: u32, k: u32) -> Vec<u32> {
    (0..=k).map(|i| max_resource / eta.max(2).pow(k - i)).collect()
}

/// Seats after `i` halvings of `n`: `n / eta^i`, at least one.
pub fn seats_after(n: u32, eta: u32, i: u32) -> u32 {
    (n / eta.max(2).saturating_pow(i)).max(1)
}

/// Seats of `k + 1` rungs, from `n`.
pub fn seats(n: u32, eta: u32, k: u32) -> Vec<u32> {
    (0..=k).map(|i| seats_after(n, eta, i)).collect()
}

/// Trials that enter each bracket of a round of Hyperband, the one with most trials first (see [`crate::scheduler`]).
pub fn round(min_resource: u32, max_resource: u32, eta: u32, algorithm1: bool) -> Vec<u32> {
    let most = halvings(min_resource, max_resource, eta);
    let entrants = |s: u32| {
        let power = u64::from(eta).pow(s);
        let (all, own) = (u64::from(most) + 1, u64::from(s) + 1);
        let n = if algorithm1 { (all * power).div_ceil(own) } else { all / own * power };
        u32::try_from(n).unwrap_or(u32::MAX)
    };
    (0..=most).rev().map(entrants).collect()
}
