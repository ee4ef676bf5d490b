//! The step-down: how often the greatest statistic of those left at a step reaches the observed one, and what p that makes.

/// Statistics closer than this, absolutely or relatively, are equal: rounding must not make a relabelling less than the order
/// it repeats, nor a difference of nothing more than nothing.
const TIE: f64 = 1e-9;

/// The observed statistics, greatest first. Their signs do not matter.
pub(crate) struct Steps {
    order: Vec<usize>,
    sizes: Vec<f64>,
}

impl Steps {
    pub(crate) fn of(observed: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..observed.len()).collect();
        order.sort_by(|a, b| observed[*b].abs().total_cmp(&observed[*a].abs()));
        let size = |index: &usize| observed[*index].abs() * (1.0 - TIE) - TIE;
        Self { sizes: order.iter().map(size).collect(), order }
    }

    /// No step was reached yet.
    pub(crate) fn none(&self) -> Vec<u64> {
        vec![0; self.order.len()]
    }

    /// Counts at which steps the greatest statistic of those left there reaches the observed one.
    pub(crate) fn count(&self, found: &[f64], reached: &mut [u64]) {
        let mut greatest = 0.0_f64;
        for (step, index) in self.order.iter().enumerate().rev() {
            greatest = greatest.max(found[*index].abs());
            reached[step] += u64::from(greatest >= self.sizes[step]);
        }
    }

    /// Adjusted p in the order of what was observed: none is below that of an earlier step.
    pub(crate) fn adjusted(&self, reached: &[u64], relabellings: u64, exact: bool) -> Vec<f64> {
        let mut adjusted = vec![1.0; self.order.len()];
        let mut least = 0.0_f64;
        for (index, reached) in self.order.iter().zip(reached) {
            // A random sample leaves the order that was run out; it is one of the relabellings (Phipson & Smyth 2010).
            let p = if exact {
                *reached as f64 / relabellings as f64
            } else {
                (*reached + 1) as f64 / (relabellings + 1) as f64
            };
            least = least.max(p);
            adjusted[*index] = least;
        }
        adjusted
    }
}
