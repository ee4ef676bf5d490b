//! What the panel "What binds the accept queue" says of three servers: each of its cases, and always exactly one.

use std::collections::BTreeMap;

use dashboards::client::{Range, Series};
use dashboards::query::{Binds, Role, metric};

use crate::ask::Prometheus;

/// What is true of a server now: where its metrics are, the case, and the numbers in its legend.
pub(crate) type Expected<'a> = (&'a str, Binds, &'a [(&'a str, &'a str)]);

/// Holds the panel against what is true now, and against itself at every second of `range`.
pub(crate) fn check(prometheus: &Prometheus, range: Range, expected: &[Expected]) {
    for (instance, case, numbers) in expected {
        let series = prometheus.instant(&case.query(), range).expect("an answer");
        let series: Vec<&Series> = series.iter().filter(|series| series.label("instance") == *instance).collect();
        let [one] = series.as_slice() else {
            let all = Binds::ALL.map(|case| prometheus.instant(&case.query(), range));
            panic!("{instance}: {case:?} has {series:?}; every case: {all:#?}")
        };
        for (label, number) in *numbers {
            assert_eq!(one.label(label), *number, "{instance}: {label} of {case:?}");
            assert!(case.legend().contains(&format!("{{{{{label}}}}}")), "{case:?} does not say {label}");
        }
        let (_, dropped) = one.points[0];
        assert!((0.0..=1.0).contains(&dropped), "{instance}: {dropped} of packets dropped");
    }
    // Each case at each second, by where the metrics are.
    let mut cases: BTreeMap<(String, i64), Vec<Binds>> = BTreeMap::new();
    for case in Binds::ALL {
        for (instance, second) in seconds(prometheus, &case.query(), range) {
            cases.entry((instance, second)).or_default().push(case);
        }
    }
    let shown = seconds(prometheus, &Role::Server.gauge(&metric::listeners::LIMIT), range);
    for (instance, ..) in expected {
        let shown: Vec<_> = shown.iter().filter(|(of, _)| of == instance).collect();
        assert!(shown.len() > 5, "{instance} was seen at {} seconds only", shown.len());
        let wrong: Vec<_> = shown.iter().filter(|at| cases.get(at).is_none_or(|cases| cases.len() != 1)).collect();
        assert!(wrong.is_empty(), "{instance}: not exactly one case at {wrong:?}: {cases:?}");
        println!("{instance}: exactly one case at each of {} seconds", shown.len());
    }
}

/// When an expression has series, by where their metrics are.
fn seconds(prometheus: &Prometheus, expression: &str, range: Range) -> Vec<(String, i64)> {
    let mut seconds = Vec::new();
    for series in prometheus.range(expression, range).expect("an answer") {
        for (time, _) in &series.points {
            #[expect(clippy::cast_possible_truncation, reason = "a time to the second")]
            seconds.push((series.label("instance").to_owned(), time.round() as i64));
        }
    }
    seconds
}
