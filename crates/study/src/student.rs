//! Student's t: how likely a mean is that far from 0 by chance, from few values.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Two-sided p of a t statistic with `freedom` degrees of freedom; 0 for an infinite statistic, `None` without a degree of
/// freedom.
pub fn two_sided(t: f64, freedom: usize) -> Option<f64> {
    if freedom == 0 || t.is_nan() {
        return None;
    }
    if t.is_infinite() {
        return Some(0.0);
    }
    let distribution = StudentsT::new(0.0, 1.0, freedom as f64).ok()?;
    Some((2.0 * distribution.sf(t.abs())).clamp(0.0, 1.0))
}

/// Two-sided p that the mean of `differences` is 0, from them alone (paired t). `None` of fewer than two; 0 where they all
/// are the same and not 0, 1 where they all are 0.
pub fn of_mean(differences: &[f64]) -> Option<f64> {
    let number = differences.len();
    let mean = differences.iter().sum::<f64>() / number as f64;
    let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
    let freedom = number.checked_sub(1)?;
    if mean == 0.0 {
        return (freedom > 0).then_some(1.0);
    }
    let error = (squares / freedom as f64 / number as f64).sqrt();
    two_sided(mean / error, freedom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_one_sign_and_size_are_certain_and_one_says_nothing() {
        assert_eq!(of_mean(&[0.5, 0.5, 0.5]), Some(0.0));
        assert_eq!(of_mean(&[0.0, 0.0]), Some(1.0));
        assert_eq!(of_mean(&[1.0, -1.0]), Some(1.0));
        assert_eq!((of_mean(&[1.0]), of_mean(&[]), two_sided(f64::NAN, 3)), (None, None, None));
    }

    #[test]
    fn a_mean_at_the_tabled_quantile_has_its_p() {
        // Mean 4.303 standard errors from 0 with two degrees of freedom: 5 %.
        let error = 1.0 / 3.0_f64.sqrt();
        let mean = 4.302_653 * error;
        let p = of_mean(&[mean - 1.0, mean, mean + 1.0]).unwrap();
        assert!((p - 0.05).abs() < 1e-6, "{p}");
    }
}
