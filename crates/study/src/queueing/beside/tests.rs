use super::*;
use crate::testing;

/// A trial to which the model applies: `planned` arrivals in 2 s, of which `lost` were lost, 500 µs of service, limit 3.
fn trial(planned: u64, lost: u64) -> Trial {
    let mut trial = testing::trial(0);
    trial.sysctls.insert("net.ipv4.tcp_syncookies".to_owned(), "0".to_owned());
    trial.server.listeners[0].limit = 3;
    trial.server.opts.accept_delay = "spin:exp:500us".parse().unwrap();
    let acceptor = &mut trial.server.acceptors[0];
    (acceptor.accepts, acceptor.service_ns) = (1000, 500_000_000);
    let opts = &mut trial.loadgen.opts;
    opts.arrivals = ArrivalKind::Poisson;
    (opts.deadline, opts.duration) = ("800ms".parse().unwrap(), "2s".parse().unwrap());
    let cohort = &mut trial.loadgen.measured;
    cohort.planned = planned;
    cohort.verdicts.extend([(Verdict::Served, planned - lost), (Verdict::TimedOut, lost), (Verdict::Unserved, 0)]);
    trial
}

fn design() -> Design {
    testing::design(&[(None, vec![testing::factor("server.backlog", &["3"])])])
}

/// Six trials at ρ = 0.8 whose loss scatters around `loss`.
fn six(loss: f64) -> Vec<Trial> {
    let scattered = [-0.004, -0.002, -0.001, 0.001, 0.002, 0.004].map(|by| ((loss + by) * 3200.0).round());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts below 3200")]
    scattered.map(|lost| trial(3200, lost as u64)).to_vec()
}

#[test]
fn theory_stands_at_the_measured_rate_and_service_time_and_k_is_limit_plus_two() {
    let all = of(&design(), &six(0.0888));
    let cell = &all.cells[0];
    assert_eq!((cell.k, cell.trials), (5, 6));
    assert!((cell.arrival_rate - 1600.0).abs() < 1e-9 && (cell.rho - 0.8).abs() < 1e-12);
    // rho^K (1 − rho) / (1 − rho^(K+1)) in exact fractions at rho = 4/5.
    let losses: Vec<f64> = cell.predictions.iter().map(|other| other.loss).collect();
    for (loss, expected) in losses.iter().zip([0.121_846_739_648, 0.088_819_498_656, 0.066_341_653_034]) {
        assert!((loss - expected).abs() < 1e-10, "{loss}, not {expected}");
    }
    assert_eq!(cell.agrees(), Some(true));
    assert_eq!([-1, 1].map(|offset| cell.prediction(offset).unwrap().rejected), [Some(true); 2]);
    assert_eq!(
        all.in_words().as_deref(),
        Some("M/M/1/K within the interval in 1 of 1 cell; K−1 rejected in 1, K+1 in 1")
    );
}

#[test]
fn a_measurement_off_by_one_place_is_not_called_agreement() {
    let all = of(&design(), &six(0.1218));
    assert_eq!(all.cells[0].agrees(), Some(false));
    assert_eq!(all.cells[0].prediction(-1).unwrap().rejected, Some(false));
    let (low, high) = (all.cells[0].interval[0], all.cells[0].interval[1]);
    assert!(low < 0.1218 && 0.1218 < high && low > 0.1 && high < 0.14, "{low}–{high}");
}

#[test]
fn what_rate_and_service_time_explain_is_no_scatter() {
    // Rates from 1440 to 1760 per second, and in each trial exactly the loss that theory gives for it.
    let trials: Vec<Trial> = [2880, 3040, 3200, 3280, 3440, 3520]
        .into_iter()
        .map(|planned: u64| {
            let loss = Mm1k::new(planned as f64 / 2.0, 0.0005, 5).unwrap().loss();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count below 3520")]
            trial(planned, (loss * planned as f64).round() as u64)
        })
        .collect();
    let cell = &of(&design(), &trials).cells[0];
    let width = cell.interval[1] - cell.interval[0];
    assert!(width < 0.001, "{width}: only what rounding to whole connections leaves");
}

#[test]
fn the_interval_is_students_and_widens_with_the_number_of_cells() {
    // Mean 3.5, standard deviation 1.870829 of six; t(0.975; 5) = 2.570582.
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let one = half_width(&values, 1).unwrap();
    assert!((one - 2.570_582 * 1.870_829 / 6.0_f64.sqrt()).abs() < 1e-5, "{one}");
    // t(0.995; 5) = 4.032143 is what five cells need.
    let five = half_width(&values, 5).unwrap();
    assert!((five - 4.032_143 * 1.870_829 / 6.0_f64.sqrt()).abs() < 1e-5, "{five}");
}

#[test]
fn each_assumption_is_asked_for() {
    type Bend = fn(&mut Trial);
    let bends: [(&str, Bend); 15] = [
        ("poisson", |t| t.loadgen.opts.arrivals = ArrivalKind::Constant),
        ("exponential", |t| t.server.opts.accept_delay = "spin:500us".parse().unwrap()),
        ("more than one acceptor", |t| t.server.opts.acceptors = 2.try_into().unwrap()),
        ("ring", |t| t.server.opts.engine = Engine::IoUringMultishot),
        ("ring", |t| t.server.opts.engine = Engine::IoUring),
        ("window", |t| t.topology = Topology::Attached),
        ("sent again", |t| t.loadgen.measured.syn_retransmits = 1),
        ("greet", |t| t.server.opts.handler = Handler::Fork),
        ("confirm greeting", |t| t.loadgen.opts.confirm = Confirm::None),
        ("SYN retry", |t| t.loadgen.opts.deadline = "1s".parse().unwrap()),
        ("tcp_syncookies", |t| t.sysctls.extend([("net.ipv4.tcp_syncookies".to_owned(), "1".to_owned())])),
        ("half-open", |t| t.loadgen.half_open.kept = 1),
        ("stalls", |t| t.server.opts.stall = Some("0s+1s".parse().unwrap())),
        ("fastopen", |t| t.server.opts.fastopen = 1),
        ("not made", |t| t.loadgen.measured.verdicts.extend([(Verdict::Shed, 1)])),
    ];
    assert_eq!(misfit(&trial(3200, 280)), None);
    for (word, bend) in bends {
        let mut bent = trial(3200, 280);
        bend(&mut bent);
        let reason = misfit(&bent).unwrap_or_default();
        assert!(reason.contains(word), "{word}: {reason}");
    }
}

#[test]
fn five_trials_are_too_few_and_a_run_without_any_cell_shows_nothing() {
    let mut trials = six(0.0888);
    trials[0].invalid.push("residual".to_owned());
    assert_eq!(of(&design(), &trials), Queueing::default());
    let two = testing::design(&[(None, vec![testing::factor("server.backlog", &["3", "31"])])]);
    let mut trials = six(0.0888);
    trials.extend(six(0.0888).into_iter().take(5).map(|trial| Trial { cell: 1, ..trial }));
    let all = of(&two, &trials);
    assert_eq!((all.cells.len(), all.inapplicable[0].cell), (1, 1));
    assert_eq!(all.inapplicable[0].reason, "5 valid trials, 6 are needed");
}

/// Six trials of 3200 arrivals at ρ = 0.8 and a limit of 31, so K = 33: theory expects 0.4 losses in each.
fn rare(lost: [u64; 6]) -> Queueing {
    let mut trials = lost.map(|lost| trial(3200, lost)).to_vec();
    for trial in &mut trials {
        trial.server.listeners[0].limit = 31;
    }
    of(&design(), &trials)
}

#[test]
fn losses_too_rare_to_be_normal_reject_nothing() {
    let all = rare([0; 6]);
    let cell = &all.cells[0];
    assert!(cell.prediction(0).unwrap().difference[1] < 0.0, "no scatter at all, and theory outside of it");
    assert_eq!(cell.agrees(), None);
    assert!(cell.predictions.iter().all(|other| other.rejected.is_none()), "{cell:?}");
    assert_eq!(
        all.in_words().as_deref(),
        Some("M/M/1/K too few losses to judge in 1 cell; K−1 rejected in 0, K+1 in 0")
    );
    assert_eq!(rare([3, 0, 0, 0, 0, 1]).cells[0].agrees(), None);
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("rejected"), "{text}");
    assert_eq!(serde_json::from_str::<Queueing>(&text).unwrap(), all);
}

#[test]
fn many_losses_where_theory_knows_of_none_are_judged() {
    assert_eq!(rare([300, 310, 290, 305, 295, 300]).cells[0].agrees(), Some(false));
    assert_eq!(rare([20, 36, 20, 48, 28, 24]).cells[0].agrees(), Some(false));
    assert_eq!(rare([300, 310, 19, 305, 295, 300]).cells[0].agrees(), None, "one trial has fewer than twenty");
}

#[test]
fn who_was_served_too_late_had_room() {
    let mut trials = six(0.0888);
    for trial in &mut trials {
        // 100 more were lost to the client, and had been accepted; 7 of the warm-up's were late as well.
        let served = trial.loadgen.measured.verdict(Verdict::Served);
        trial.loadgen.measured.verdicts.extend([(Verdict::Served, served - 100), (Verdict::Unserved, 100)]);
        trial.loadgen.warm_up.verdicts.insert(Verdict::Unserved, 7);
        trial.ledger.terms.too_late = 107;
    }
    let late = of(&design(), &trials);
    assert_eq!(late.cells[0].agrees(), Some(true));
    assert!((late.cells[0].loss - of(&design(), &six(0.0888)).cells[0].loss).abs() < 1e-12);
    for trial in &mut trials {
        trial.ledger.terms.too_late = 0;
    }
    assert_eq!(of(&design(), &trials).cells[0].agrees(), Some(false), "phantoms had no room");
}

#[test]
fn an_acceptor_that_waits_for_the_clients_end_is_no_server_of_the_model() {
    let mut trial = trial(3200, 280);
    trial.server.opts.engine = Engine::Blocking;
    assert_eq!(misfit(&trial), None, "it greets and closes at once");
    trial.server.opts.close = server::opts::Close::Wait;
    assert!(misfit(&trial).unwrap().contains("greet"));
}

#[test]
fn a_limit_of_nothing_leaves_a_room_without_a_queue() {
    let mut trials = six(0.3);
    for trial in &mut trials {
        trial.server.listeners[0].limit = 0;
    }
    let rooms: Vec<u32> = of(&design(), &trials).cells[0].predictions.iter().map(|other| other.k).collect();
    assert_eq!(rooms, [1, 2, 3]);
}
