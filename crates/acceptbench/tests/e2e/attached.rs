//! Attached runs: a server and a load generator that run on in a private network namespace, whose sysctls are stepped
//! and put back. Each test is run again inside a namespace of its own, so that no test can reach the host's sysctls.

mod deployment;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use study::results::{Topology, Trial};

use crate::attached::deployment::{Deployment, RATE, Run, inside, number, somaxconn};
use crate::bad_input::file_is_refused;
use crate::host::with_role;
use crate::support::{last_of_each, machine, random, text};

/// What the runner's death takes to be undone at most.
const UNDONE: Duration = Duration::from_secs(2);

#[test]
fn every_step_is_read_back_and_its_window_balances() {
    inside("every_step_is_read_back_and_its_window_balances", || {
        const LEVELS: [&str; 3] = ["16", "64", "256"];
        let deployment = Deployment::start();
        let before = somaxconn();
        assert!(!LEVELS.contains(&before.as_str()), "the test would not see a change: {before}");
        let run = Run::new(&experiment("300ms", "1s", 1));
        let (code, said) = run.to_its_end(&[]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(somaxconn(), before);
        let trials = last_of_each(run.trials());
        assert_eq!(trials.len(), LEVELS.len());
        for (trial, level) in trials.iter().zip(LEVELS) {
            assert_eq!(trial.topology, Topology::Attached);
            assert_eq!(trial.sysctls["net.core.somaxconn"], level, "as written, in the order of the file");
            assert_eq!(trial.server.kernel.sysctls["net.core.somaxconn"], level, "as the server's namespace has it");
            assert_eq!(trial.invalid, Vec::<String>::new());
            assert_eq!((trial.server.opts.backlog, trial.loadgen.opts.rate.per_second()), (100, RATE));
            // A window of 1 s: nothing of what came before it may be counted, and nothing may be missing.
            let planned = number(trial.loadgen.measured.planned);
            let seconds = trial.timings.load_ms / 1e3;
            assert!((0.9..1.5).contains(&seconds), "{seconds} s");
            assert!((planned - RATE * seconds).abs() < RATE * 0.1, "{planned} planned in {seconds} s");
            let accepted = number(trial.server.accepted());
            assert!((accepted - planned).abs() < RATE * 0.1, "{accepted} accepted of {planned}");
            let served = number(trial.loadgen.measured.verdict(loadgen::Verdict::Served));
            assert!(served > 0.9 * planned && served <= planned + RATE * 0.1, "{served} served of {planned}");
            let numbers: Vec<u8> = trial.ledger.lines.iter().map(|line| line.number).collect();
            assert_eq!(numbers, [1, 2, 3, 7], "the lines that a window can tell");
            for line in &trial.ledger.lines {
                assert!(line.balances(), "{line:?}");
                assert!(number(line.allowance) < 0.5 * planned, "an allowance that allows everything: {line:?}");
            }
        }
        assert!(said.contains(&format!("{} trials · sysctls restored", run.trials().len())), "{said}");
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("16, 64, 256; now again {before} ")), "{said}");
        assert!(!said.contains("host untouched") && !said.contains("phantom"), "{said}");
        let report = run.lab.run(&["report"]);
        assert!(text(&report.stdout).contains("sysctls restored"), "{}", text(&report.stdout));
        drop(deployment);
    });
}

/// Three steps; `window` is measured `settle` after each.
fn experiment(settle: &str, window: &str, replicates: u32) -> String {
    format!(
        r#"
        [experiment]
        name = "attached"
        question = "what does a step do?"
        topology = "attached"
        order = "as-written"
        replicates = {replicates}
        measure = "{window}"
        [attach]
        server = "127.0.0.1:9710"
        loadgens = ["localhost:9711"]
        settle = "{settle}"
        [[factor]]
        set = "sysctl.net.core.somaxconn"
        to = [16, 64, 256]
        "#
    )
}

/// Waits until the runner and `__restore` are gone and the value is the old one.
fn undone(run: &Run, before: &str, what: &str) {
    let began = Instant::now();
    loop {
        let (now, left) = (somaxconn(), run.processes());
        if now == before && left.is_empty() {
            return;
        }
        assert!(began.elapsed() < UNDONE, "{what}: somaxconn is {now}, not {before}; processes left: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_runner_has_its_changes_undone() {
    inside("a_killed_runner_has_its_changes_undone", || {
        let _deployment = Deployment::start();
        let before = somaxconn();
        let mut changed = 0;
        for number in 0..12 {
            let run = Run::new(&experiment("20ms", "60ms", 20));
            let mut runner = run.start(&[]);
            std::thread::sleep(Duration::from_millis(random(number, 500)));
            runner.kill().expect("killed");
            runner.wait().expect("a child");
            changed += u32::from(somaxconn() != before);
            undone(&run, &before, &format!("killed, try {number}"));
        }
        // Right after its death somebody must have had something to undo.
        eprintln!("{changed} of 12 were caught between two values");
        let run = Run::new(&experiment("100ms", "200ms", 1));
        let mut runner = run.start(&[]);
        let began = Instant::now();
        while somaxconn() == before {
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was ever changed");
            std::thread::sleep(Duration::from_millis(1));
        }
        runner.kill().expect("killed");
        runner.wait().expect("a child");
        undone(&run, &before, "killed after a change");
        let directory = run.directory();
        let left = fs::read_to_string(directory.join("attached.json")).expect("what was left");
        assert!(left.contains("\"restored\": true"), "{left}");
        // What an administrator sets now is no leftover of the run.
        let set = "777";
        kernel::sysctl::NetTree::default().write("net.core.somaxconn", set).expect("set");
        let output = run.lab.run(&["run", "--admin", "off", "--resume", directory.to_str().expect("a path")]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(somaxconn(), set);
    });
}

#[test]
fn a_runner_told_to_stop_undoes_its_changes_first() {
    inside("a_runner_told_to_stop_undoes_its_changes_first", || {
        let _deployment = Deployment::start();
        let before = somaxconn();
        for (signal, settle, window) in
            [(Signal::INT, "10s", "10s"), (Signal::TERM, "1ms", "10s"), (Signal::TERM, "20ms", "50ms")]
        {
            let run = Run::new(&experiment(settle, window, 20));
            let runner = run.start(&[]);
            let began = Instant::now();
            while somaxconn() == before {
                assert!(began.elapsed() < Duration::from_secs(10), "nothing was ever changed");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(120));
            kill_process(Pid::from_child(&runner), signal).expect("a signal");
            let output = runner.wait_with_output().expect("a child");
            assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
            assert_eq!(somaxconn(), before, "put back before the runner ended");
            undone(&run, &before, "told to stop");
        }
    });
}

#[test]
fn a_trial_whose_generator_was_restarted_does_not_count_and_is_repeated() {
    inside("a_trial_whose_generator_was_restarted_does_not_count_and_is_repeated", || {
        let mut deployment = Deployment::start();
        let file = experiment("10ms", "1500ms", 1).replace("to = [16, 64, 256]", "to = [16]");
        let run = Run::new(&file);
        let runner = run.start(&[]);
        std::thread::sleep(Duration::from_millis(600));
        deployment.restart_generator();
        let output = runner.wait_with_output().expect("a child");
        let trials = run.trials();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let [first, second] = trials.as_slice() else { panic!("{} records: {said}", trials.len()) };
        assert!(first.invalid.iter().any(|r| r.starts_with("the load generator was restarted")), "{:?}", first.invalid);
        assert!(second.is_valid() && said.contains("does not count, will be repeated"), "{said}");
        let place = |trial: &Trial| (trial.trial, trial.block, trial.cell);
        assert_eq!((place(first), first.retry, second.retry), (place(second), 0, 1));
        let shown = text(&output.stdout);
        assert!(shown.contains("2 trials") && shown.contains("1 of 2 trials is left out"), "{shown}");
    });
}

#[test]
fn sysctls_that_nobody_put_back_are_repaired_before_a_run_goes_on() {
    inside("sysctls_that_nobody_put_back_are_repaired_before_a_run_goes_on", || {
        let deployment = Deployment::start();
        let before = somaxconn();
        let run = Run::new(&experiment("20ms", "400ms", 1));
        let mut runner = run.start(&[]);
        let began = Instant::now();
        while run.trials().is_empty() || somaxconn() == before {
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was ever kept");
            std::thread::sleep(Duration::from_millis(1));
        }
        // As when their container ends: the one that would put them back goes first.
        kill_process(with_role(&runner, "__restore").expect("a restorer"), Signal::KILL).expect("killed");
        runner.kill().expect("killed");
        runner.wait().expect("a child");
        assert_ne!(somaxconn(), before, "nobody put it back");
        let kept = run.trials();
        let output = run.lab.run(&["run", "--resume", "--admin", "off"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(somaxconn(), before);
        let trials = run.trials();
        assert_eq!(trials[..kept.len()], kept);
        let counted = last_of_each(trials).into_iter().filter(Trial::is_valid).map(|trial| trial.cell);
        assert_eq!(counted.collect::<Vec<_>>(), [0, 1, 2]);
        let changes =
            fs::read_to_string(run.lab.path().join("results/latest/attached.json")).expect("what was changed");
        assert!(changes.contains(&format!("\"net.core.somaxconn\": \"{before}\"")), "{changes}");
        assert!(changes.contains("\"restored\": true"), "{changes}");
        drop(deployment);
        // Nothing is left to run, so nobody needs to answer.
        let output = run.lab.run(&["run", "--resume"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("attached: all of 3 trials are stored"), "{}", text(&output.stderr));
    });
}

#[test]
fn the_page_says_at_every_scrape_which_step_is_in_which_phase() {
    inside("the_page_says_at_every_scrape_which_step_is_in_which_phase", || {
        let _deployment = Deployment::start();
        let run = Run::new(&experiment("300ms", "400ms", 1));
        let mut runner = run.start(&["--admin", "127.0.0.1:9712"]);
        let admin = "127.0.0.1:9712".parse().expect("an address");
        let (mut seen, mut last) = (Vec::<(String, String)>::new(), String::new());
        while runner.try_wait().expect("a child").is_none() {
            if let Ok((200, page)) = telemetry::admin::get_local(admin, "/metrics", Duration::from_millis(500)) {
                let active: Vec<&str> = page
                    .lines()
                    .filter(|line| line.starts_with("acceptbench_experiment_trial_info{") && line.ends_with(" 1"))
                    .collect();
                assert!(active.len() <= 1, "{active:?}");
                if let [line] = active[..] {
                    let label = |name: &str| {
                        let (_, rest) = line.split_once(&format!("{name}=\"")).expect("the label");
                        rest.split('"').next().expect("its end").to_owned()
                    };
                    let step = (label("trial"), label("phase"));
                    let level = ["16", "64", "256"][step.0.parse::<usize>().expect("a number")];
                    assert!(page.contains(&format!(
                        "acceptbench_experiment_factor_value{{factor=\"sysctl.net.core.somaxconn\"}} {level}\n"
                    )));
                    if seen.last() != Some(&step) {
                        seen.push(step);
                    }
                }
                last = page;
            }
            let server = telemetry::admin::get_local(admin, "/server/metrics", Duration::from_millis(500));
            if let Ok((status, body)) = server {
                assert_eq!((status, body.contains("their own admin ports")), (404, true), "{body}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = runner.wait_with_output().expect("a child");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let steps =
            ["0", "1", "2"].map(|trial| ["settle", "measured"].map(|phase| (trial.to_owned(), phase.to_owned())));
        assert_eq!(seen, steps.concat(), "both phases of every trial, in their order");
        assert!(last.contains("acceptbench_experiment_trials_completed_total 3\n"), "{last}");
        assert!(last.contains("acceptbench_experiment_result{"), "{last}");
        assert!(last.contains("acceptbench_ledger_residual{line=\"7\"} 0\n"), "{last}");
        assert!(!last.contains("ledger_phantoms"), "not known of a window, so not claimed: {last}");
    });
}

#[test]
fn what_cannot_be_changed_is_known_before_anything_is() {
    inside("what_cannot_be_changed_is_known_before_anything_is", || {
        let _deployment = Deployment::start();
        let before = somaxconn();
        let with = |more: &str| format!("{}{more}", experiment("10ms", "50ms", 1));
        let missing = with("[[factor]]\nset = \"sysctl.net.ipv4.tcp_no_such\"\nto = [1]\n");
        let elsewhere = tempfile::tempdir().expect("a directory");
        let read_only = elsewhere.path().join("core");
        fs::create_dir(&read_only).expect("a directory");
        fs::write(read_only.join("somaxconn"), "77\n").expect("a file");
        let tree = elsewhere.path().to_str().expect("a path");
        for (file, flags, words) in [
            (missing, &[][..], "writing sysctl 'net.ipv4.tcp_no_such': /proc/sys/net/ipv4/tcp_no_such does not exist"),
            (with(""), &["--sysctl-path", "/nowhere"], "attach.sysctl-path /nowhere is no directory; "),
            (with(""), &["--sysctl-path", tree], "net.core.somaxconn is 77 there and"),
            (
                with(""),
                &["--attach-server", "127.0.0.1:9719"],
                "server 127.0.0.1:9719: get http://127.0.0.1:9719/snapshot",
            ),
            (
                with(""),
                &["--attach-loadgen", "127.0.0.1:9710"],
                "load generator 127.0.0.1:9710: http://127.0.0.1:9710/",
            ),
        ] {
            let run = Run::new(&file);
            let (code, said) = run.to_its_end(flags);
            assert_eq!(code, Some(69), "{said}");
            let complaints: Vec<&str> = said.lines().filter(|line| line.starts_with("acceptbench: ")).collect();
            assert!(complaints.len() == 1 && complaints[0].contains(words), "`{words}` is not in {said}");
            assert_eq!(somaxconn(), before);
            assert!(!run.lab.path().join("results").exists(), "nothing is left");
        }
        assert_eq!(fs::read_to_string(read_only.join("somaxconn")).expect("the file"), "77\n");
        // One at least is in order.
        let (code, said) = Run::new(&with("")).to_its_end(&[]);
        assert!(matches!(code, Some(0 | 2)), "{said}");
    });
}

#[test]
fn what_cannot_be_put_back_is_named_with_its_value() {
    inside("what_cannot_be_put_back_is_named_with_its_value", || {
        let _deployment = Deployment::start();
        // A tree that is no procfs, and a sysctl that the server does not report: nobody can tell.
        let tree = tempfile::tempdir().expect("a directory");
        let file = tree.path().join("ipv4/tcp_orphan_retries");
        fs::create_dir(tree.path().join("ipv4")).expect("a directory");
        fs::write(&file, "3\n").expect("a file");
        let experiment = experiment("1ms", "1s", 1)
            .replace("net.core.somaxconn\"", "net.ipv4.tcp_orphan_retries\"")
            .replace("[16, 64, 256]", "[7]");
        let run = Run::new(&experiment);
        let runner = run.start(&["--sysctl-path", tree.path().to_str().expect("a path")]);
        let began = Instant::now();
        while !fs::read_to_string(&file).expect("the file").starts_with('7') {
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was ever changed");
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::remove_file(&file).expect("removed");
        let output = runner.wait_with_output().expect("a child");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with("acceptbench: sysctl net.ipv4.tcp_orphan_retries could not be set back to 3: ")
                && last.ends_with("; set it by hand"),
            "{said}"
        );
        let report = run.lab.run(&["report"]);
        assert!(text(&report.stdout).contains("sysctls not restored"), "{}", text(&report.stdout));
    });
}

#[test]
fn a_file_that_asks_too_much_of_a_running_deployment_is_refused() {
    let _machine = machine();
    let base = experiment("1s", "1s", 1).trim_start().to_owned();
    let with = |piece: &str, other: &str| {
        assert_eq!(base.matches(piece).count(), 1, "`{piece}`");
        base.replacen(piece, other, 1)
    };
    let and = |more: &str| format!("{base}\n{more}");
    let level = "set = \"sysctl.net.core.somaxconn\"\n        to = [16, 64, 256]";
    for (file, words) in [
        (and("[server]\nbacklog = 16 # here\n"), "server.backlog cannot be set with topology = \"attached\": "),
        (and("[loadgen]\nrate = 16 # here\n"), "loadgen.rate cannot be set with topology = \"attached\": "),
        (
            and("[half-open]\ncount = 16 # here\n"),
            "half-open.count cannot be set with topology = \"attached\": half-open sockets fill the SYN queue of a service",
        ),
        (with(level, "set = \"server.backlog\"\nto = [16] # here\n"), "server.backlog cannot be set with topology"),
        (with(level, "set = \"half-open.count\"\nto = [16] # here\n"), "use topology = \"veth\" or \"loopback\""),
        (with(level, "set = \"loadgen.rate\"\nto = [16] # here\n"), "run already; vary sysctl.NAME"),
        (with(level, "set = \"experiment.measure\"\nto = [\"1s\"] # here\n"), "experiment.measure cannot be set"),
        (with(level, "set = \"sysctl.net.core.rmem_max\"\nto = [16] # here\n"), "shared by all"),
        (
            with("topology = \"attached\"", "topology = \"veth\"").replace("[attach]", "[attach] # here"),
            "topology = \"attached\" only",
        ),
        (with("measure = \"1s\"", "measure = \"0s\" # here"), "measure must be above 0"),
        (
            with("topology = \"attached\"", "topology = \"attached\" # here").replace("measure = \"1s\"", ""),
            "needs experiment.measure",
        ),
        (with("replicates = 1", "warm-up = \"1s\" # here"), "warm-up is not used"),
        (with("replicates = 1", "family = \"ipv6\" # here"), "the load generators connect already"),
        (with("\"localhost:9711\"", "").replace("[attach]", "[attach] # here"), "attach.loadgens must name"),
        (with("127.0.0.1:9710\"", "127.0.0.1\" # here"), "server: `127.0.0.1` is no admin address"),
        (with("order = \"as-written\"", "order = \"ascending\" # here"), "order: unknown variant `ascending`"),
    ] {
        file_is_refused(&file, &[words]);
    }
    let none = base
        .split_once("[attach]")
        .expect("the table")
        .0
        .replace("\"attached\"\n        order", "\"attached\" # here\n        order");
    file_is_refused(&none, &["needs an [attach] table"]);
}

#[test]
fn flags_that_attach_are_for_attached_experiments_only() {
    let _machine = machine();
    for flag in [["--attach-server", "x:1"], ["--attach-loadgen", "x:1"], ["--sysctl-path", "/sysctl"]] {
        let lab = crate::support::Lab::new();
        let output = lab.run(&["run", "backlog", "--admin", "off", flag[0], flag[1]]);
        assert_eq!(output.status.code(), Some(64));
        let said = text(&output.stderr);
        assert_eq!(
            said,
            format!(
                "acceptbench: {} is for experiments with topology = \"attached\"; backlog makes namespaces of its own\n",
                flag[0]
            )
        );
    }
}

#[test]
fn without_a_deployment_the_sweep_says_what_to_start() {
    let _machine = machine();
    let lab = crate::support::Lab::new();
    let began = Instant::now();
    // Not the sidecar's path, so that the host's sysctls stay out of reach wherever this runs.
    let output = lab.run(&["run", "sweep", "--admin", "off", "--sysctl-path", "/nowhere"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("--profile sweep up") && began.elapsed() < Duration::from_secs(2), "{said}");
    let listed = text(&lab.run(&["list"]).stdout);
    assert!(listed.contains("(10 trials, at most 121 s; attached: needs a running deployment"), "{listed}");
}
