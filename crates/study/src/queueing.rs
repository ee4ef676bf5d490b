//! M/M/1/K, the queue of the textbook, beside the measurement: Poisson arrivals, exponential service, one acceptor, and
//! room for K connections, the one in service included.
//!
//! K is the queue limit + 2: the kernel lets limit + 1 connections wait (`sk_acceptq_is_full` is `>`, `include/net/sock.h`),
//! and one more has left the queue and is being served. Formulas: L. Kleinrock, Queueing Systems, vol. 1 (1975), section
//! 3.6; the time in the system by Little's law.

mod beside;

pub(crate) use beside::TOO_FEW;
pub use beside::{CellTheory, Inapplicable, LEAST_TRIALS, Prediction, Queueing, of};

/// An M/M/1/K queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mm1k {
    arrival_rate: f64,
    service_seconds: f64,
    k: u32,
}

impl Mm1k {
    /// Arrivals per second, mean service time (s) and room, all above 0; `None` otherwise.
    pub fn new(arrival_rate: f64, service_seconds: f64, k: u32) -> Option<Self> {
        let sound = |value: f64| value.is_finite() && value > 0.0;
        (sound(arrival_rate) && sound(service_seconds) && k > 0).then_some(Self { arrival_rate, service_seconds, k })
    }

    /// Offered load: arrival rate × service time.
    pub fn rho(&self) -> f64 {
        self.arrival_rate * self.service_seconds
    }

    /// The share of arrivals that find no room: by PASTA the share of the time that K are in the system.
    pub fn loss(&self) -> f64 {
        let (sum, _) = self.sums();
        if self.rho() <= 1.0 { self.rho().powf(f64::from(self.k)) / sum } else { 1.0 / sum }
    }

    /// Mean number in the system, the one in service included.
    pub fn mean_number(&self) -> f64 {
        let (sum, weighted) = self.sums();
        let mean = weighted / sum;
        if self.rho() <= 1.0 { mean } else { f64::from(self.k) - mean }
    }

    /// Arrivals per second that get in.
    pub fn throughput(&self) -> f64 {
        self.arrival_rate * (1.0 - self.loss())
    }

    /// Mean time from arrival to the end of service of those who get in, s (Little's law).
    pub fn time_in_system(&self) -> f64 {
        self.mean_number() / self.throughput()
    }

    /// Σ rⁿ and Σ n·rⁿ for n = 0..=K, where r is ρ, or 1/ρ counted down from K where ρ is above 1. All terms are at most
    /// 1 and added, so nothing cancels at ρ = 1 and nothing overflows at a large K; the closed form does both.
    fn sums(&self) -> (f64, f64) {
        let ratio = if self.rho() <= 1.0 { self.rho() } else { 1.0 / self.rho() };
        let (mut term, mut sum, mut weighted) = (1.0, 0.0, 0.0);
        for n in 0..=self.k {
            let moment = f64::from(n) * term;
            // No later term reaches the last digit: they fall faster than n grows.
            if n > 0 && moment < weighted * f64::EPSILON * (1.0 - ratio) && f64::from(n) * (1.0 - ratio) > 1.0 {
                break;
            }
            sum += term;
            weighted += moment;
            term *= ratio;
        }
        (sum, weighted)
    }
}

#[cfg(test)]
mod tests;
