use loadgen::{LimitKind, PhaseCounts, Verdict, WorkerCpu};
use proptest::prelude::*;
use telemetry::histogram::HistogramSnapshot;

use super::kinship::text;
use super::*;

/// A part that planned `planned` attempts and served them.
fn part(shard: &str, planned: u64) -> Part {
    let mut books =
        Snapshot { origin_ns: 5_000_000_000, monotonic_ns: 7_000_000_000, finished: true, ..Snapshot::default() };
    books.opts.shard = Some(shard.parse().expect("a shard"));
    books.opts.start_at = Some("@1700000000".parse().expect("an instant"));
    (books.measured.planned, books.measured.issued) = (planned, planned);
    books.measured.verdicts = [(Verdict::Served, planned)].into();
    let name = format!("{}.json", shard.replace('/', "-"));
    Part { name, build: Build { version: "1.2.3".to_owned(), revision: "abc".to_owned() }, books, interrupted: false }
}

fn two() -> Vec<Part> {
    vec![part("1/2", 30), part("2/2", 20)]
}

/// What the merge of two parts says after `change` of the second.
fn refused(change: impl FnOnce(&mut Part)) -> String {
    let mut parts = two();
    change(&mut parts[1]);
    merge(parts).expect_err("they do not belong together").to_string()
}

#[test]
fn parts_of_different_loads_are_refused_with_what_differs() {
    for (key, set, says) in [
        ("rate", r#""2000.0""#, "rate is 1000.0 in 1-2.json and 2000.0 in 2-2.json"),
        ("seed", "7", "seed is 1 in 1-2.json and 7 in 2-2.json"),
        ("arrivals", r#""poisson""#, "arrivals is constant in"),
        ("keep", "9", "keep is not set in 1-2.json and 9 in"),
        ("start-at", r#""@1700000001""#, "start-at is 2023-11-14T22:13:20Z in 1-2.json and 2023-11-14T22:13:21Z in"),
    ] {
        let error = refused(|part| {
            let mut opts = serde_json::to_value(&part.books.opts).expect("JSON");
            opts[key] = serde_json::from_str(set).expect("JSON");
            part.books.opts = serde_json::from_value(opts).expect("options");
        });
        assert!(error.starts_with(says) && error.ends_with(": these are parts of different loads"), "{error}");
    }
    let engine = refused(|part| part.books.engine = loadgen::opts::Engine::IoUring);
    assert!(engine.starts_with("engine is epoll in 1-2.json and io-uring in 2-2.json"), "{engine}");
    let build = refused(|part| part.build.revision = String::new());
    assert_eq!(
        build,
        "1-2.json was written by acceptbench 1.2.3 (abc), 2-2.json by 1.2.3 (unknown); run every shard with the same program"
    );
    let division = refused(|part| part.books.opts.shard = None);
    assert!(division.contains("2-2.json is shard 1/1") && division.contains("1-2.json is shard 1/2"), "{division}");
}

#[test]
fn each_shard_is_there_once_and_who_is_missing_is_named() {
    let twice = refused(|part| part.books.opts.shard = Some("1/2".parse().expect("a shard")));
    assert_eq!(twice, "shard 1/2 is given twice, by 1-2.json and by 2-2.json; leave one of them out");
    let lacks = |shards: &[&str]| {
        let parts = shards.iter().map(|shard| part(shard, 1)).collect();
        merge(parts).expect_err("not all are there").to_string()
    };
    assert_eq!(lacks(&["1/3", "3/3"]), "shard 2/3 is missing; give its snapshot too");
    assert_eq!(lacks(&["4/4", "2/4"]), "shards 1/4, 3/4 are missing; give their snapshots too");
    assert_eq!(
        lacks(&["2/4294967295"]),
        "shards 1/4294967295, 3/4294967295, 4/4294967295, 5/4294967295, and 4294967290 more are missing; give their \
         snapshots too"
    );
    assert_eq!(merge(Vec::new()).expect_err("nothing"), MergeError::Nothing);
}

#[test]
fn what_is_a_machines_own_may_differ_and_what_does_not_add_up_is_left_out() {
    let mut parts = two();
    for (part, nanoseconds) in parts.iter_mut().zip([2_000_000_000, 3_000_000_000_u64]) {
        let books = &mut part.books;
        books.monotonic_ns = books.origin_ns + nanoseconds;
        (books.workers, books.ports_available, books.closing, books.connecting) = (2, 28_000, 5, 3);
        books.worker_cpu = vec![WorkerCpu { cpu_ns: 1, ran_ns: 2 }; 2];
        (books.target_rate, books.target_changes) = (500.0, 1);
        (books.half_open.kept, books.half_open.answered) = (4, 3);
        books.kernel.net.active_opens = 99;
        (books.kernel.process.cpu_seconds, books.kernel.process.max_fds) = (0.5, 1024);
        books.kernel.sysctls = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), nanoseconds.to_string())].into();
    }
    parts[1].books.opts.target = "198.18.0.2:80".parse().expect("a target");
    parts[1].books.opts.max_in_flight = "9".parse().expect("a count");
    parts[1].books.finished = false;
    parts[1].books.measured.verdicts.insert(Verdict::Served, 17);
    parts.reverse();
    let merged = merge(parts).expect("parts of one load");
    let books = &merged.books;
    assert_eq!((books.opts.shard, books.opts.target.as_str()), (None, "127.0.0.1:9700"), "the first shard's");
    assert_eq!((books.workers, books.worker_cpu.len(), books.connecting, books.target_changes), (4, 4, 6, 2));
    assert_eq!((books.half_open.kept, books.half_open.answered), (8, 6));
    assert!((books.target_rate - 1000.0).abs() < 1e-9 && (books.kernel.process.cpu_seconds - 1.0).abs() < 1e-9);
    assert_eq!(books.monotonic_ns - books.origin_ns, 3_000_000_000, "the longest");
    assert_eq!((books.ports_available, books.closing, books.kernel.process.max_fds), (0, 0, 0));
    assert_eq!((books.kernel.net.active_opens, &books.budget, books.finished), (0, &None, false));
    assert_eq!(books.kernel.sysctls, [("a".to_owned(), "1".to_owned())].into(), "the one on which they agree");
    assert_eq!(merged.notes(), ["shard 2/2 was not over: 3 attempts without a verdict"]);
    let own: Vec<_> = merged.shards[1].options.iter().map(|(key, value)| (key.as_str(), text(Some(value)))).collect();
    assert_eq!(own, [("max-in-flight", "9".to_owned()), ("target", "198.18.0.2:80".to_owned())]);
}

#[test]
fn a_shard_that_was_the_bottleneck_is_not_lost_in_the_sum() {
    let mut parts = vec![part("1/2", 1_000_000), part("2/2", 100)];
    parts[0].books.measured.lag.buckets = vec![(0, 1_000_000)];
    parts[0].books.measured.lag.count = 1_000_000;
    parts[1].books.limits = vec![Limit { what: LimitKind::Lag, measured: 0.4, limit: 0.1 }];
    (0..100).for_each(|_| parts[1].books.measured.lag.record(400_000_000));
    let no_ports = |part: &mut Part, count| {
        part.books.measured.verdicts.insert(Verdict::NoPorts, count);
        part.books.limits.push(Limit { what: LimitKind::Ports, measured: count as f64, limit: 0.0 });
    };
    no_ports(&mut parts[0], 3);
    no_ports(&mut parts[1], 4);
    let merged = merge(parts).expect("parts of one load");
    let passed: Vec<_> = merged.books.limits.iter().map(|limit| (limit.what, limit.measured)).collect();
    assert_eq!(passed, [(LimitKind::Lag, 0.4), (LimitKind::Ports, 7.0)]);
    let notes = merged.notes().join("\n");
    assert!(
        notes.contains("shard 2/2 was a bottleneck: 1 % of the attempts were issued more than 400 ms late"),
        "{notes}"
    );
}

#[test]
fn what_was_asked_of_one_shard_is_no_limit_of_the_sum() {
    let mut parts = vec![part("1/2", 100), part("2/2", 100)];
    parts[1].books.opts.max_in_flight = "9".parse().expect("a count");
    parts[1].books.measured.verdicts.insert(Verdict::Shed, 5);
    assert_eq!(merge(parts).expect("parts of one load").books.limits, []);
}

#[test]
fn a_shard_that_was_interrupted_is_named() {
    let mut parts = two();
    parts[1].interrupted = true;
    let notes = merge(parts).expect("parts of one load").notes();
    assert!(notes.contains(&"shard 2/2 was interrupted: its part of the load is not whole".to_owned()), "{notes:?}");
}

#[test]
fn a_load_that_was_not_split_is_its_own_sum_and_no_start_in_common_is_said() {
    let mut alone = part("1/1", 7);
    alone.books.opts.shard = None;
    alone.books.opts.start_at = None;
    let merged = merge(vec![alone]).expect("a whole load");
    assert_eq!((merged.books.measured.planned, merged.notes().len()), (7, 0));
    let mut parts = two();
    for part in &mut parts {
        part.books.opts.start_at = None;
    }
    assert!(merge(parts).expect("parts").notes()[0].starts_with("the shards had no common start"));
}

/// What happened to one attempt: its shard, its verdict, its times in ns, the retransmits of its SYN.
type Happened = (usize, usize, u64, u64, usize);

fn counted<'a>(attempts: impl Iterator<Item = &'a Happened>) -> PhaseCounts {
    let mut counts = PhaseCounts { connect_service: vec![HistogramSnapshot::default(); 5], ..PhaseCounts::default() };
    counts.verdicts = Verdict::ALL.map(|verdict| (verdict, 0)).into();
    for &(_, verdict, lag, latency, class) in attempts {
        counts.planned += 1;
        counts.issued += u64::from(verdict % 2 == 0);
        *counts.verdicts.entry(Verdict::ALL[verdict]).or_default() += 1;
        counts.lag.record(lag);
        counts.connect_latency.record(latency);
        counts.connect_service[class].record(latency / 2);
        counts.syn_retransmits += class as u64;
        if Verdict::ALL[verdict] == Verdict::Other {
            *counts.other_errnos.entry((100 + class).to_string()).or_default() += 1;
        }
    }
    counts
}

proptest! {
    /// Whatever attempts fall to whatever shards, the merge is what one generator would have counted of all.
    #[test]
    fn the_merge_of_shards_is_the_sum(
        n in 1_usize..7,
        attempts in proptest::collection::vec((0_usize..99, 0..Verdict::ALL.len(), 0..u64::MAX >> 24, 0..u64::MAX >> 20, 0_usize..5), 0..300),
        warm in 0_usize..100,
    ) {
        let (warm, measured) = attempts.split_at(warm.min(attempts.len()));
        let parts = (0..n).map(|index| {
            let mut part = part(&format!("{}/{n}", index + 1), 0);
            let of = |attempts: &[Happened]| counted(attempts.iter().filter(|attempt| attempt.0 % n == index));
            (part.books.warm_up, part.books.measured) = (of(warm), of(measured));
            part
        });
        // In any order.
        let mut parts: Vec<Part> = parts.collect();
        parts.rotate_left(attempts.len() % n);
        let merged = merge(parts).expect("parts of one load");
        prop_assert_eq!(&merged.books.warm_up, &counted(warm.iter()));
        prop_assert_eq!(&merged.books.measured, &counted(measured.iter()));
        let planned: u64 = merged.shards.iter().map(|shard| shard.planned).sum();
        prop_assert_eq!(planned, attempts.len() as u64);
        // The sum is a snapshot like any other.
        let json = serde_json::to_string(&merged).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Snapshot>(&json).expect("a snapshot"), merged.books);
    }
}
