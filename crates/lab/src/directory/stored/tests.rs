use std::io::Write;

use jiff::Timestamp;
use study::results::Session;
use tempfile::TempDir;

use super::*;
use crate::schedule::Planned;
use crate::testing;

fn session() -> Session {
    let (version, revision) = ("1.0.0".to_owned(), "abc".to_owned());
    Session { started: Timestamp::UNIX_EPOCH, version, revision, warnings: Vec::new() }
}

/// A run of three trials, of which the first `kept` were kept; its runner is gone.
fn interrupted(kept: usize) -> (TempDir, PathBuf) {
    let root = TempDir::new().expect("a directory");
    let experiment = testing::experiment("replicates = 1\norder = \"as-written\"", &["16", "128", "1024"]);
    let mut directory =
        Directory::create(root.path(), &experiment, &Environment::default(), session()).expect("a results directory");
    for planned in Agenda::new(&experiment).left().take(kept) {
        directory.append(&testing::trial(planned, true)).expect("kept");
    }
    (root, directory.path)
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path.join(TRIALS)).expect("the file");
    file.write_all(bytes).expect("written");
}

/// What stands in `trials.jsonl`.
fn lines(path: &Path) -> String {
    fs::read_to_string(path.join(TRIALS)).expect("text")
}

fn numbers(reopened: &Reopened) -> (Vec<usize>, Vec<usize>) {
    let stored = reopened.stored.trials.iter().map(|trial| trial.trial).collect();
    (stored, reopened.agenda.left().map(|planned| planned.trial).collect())
}

#[test]
fn what_is_stored_is_told_from_what_is_left() {
    for kept in 0..=3 {
        let (root, path) = interrupted(kept);
        let reopened = Reopened::open(&path).expect("a run");
        assert_eq!(numbers(&reopened), ((0..kept).collect(), (kept..3).collect()));
        assert_eq!(reopened.stored.course.sessions, [session()]);
        drop(reopened);
        if kept > 0 {
            let latest = Reopened::open(&root.path().join("latest")).expect("the same");
            assert_eq!(latest.path(), path);
        }
    }
}

#[test]
fn a_run_is_called_by_its_own_name_whatever_leads_to_it() {
    let (root, path) = interrupted(2);
    let link = root.path().join("latest");
    let elsewhere = TempDir::new().expect("a directory");
    let far = elsewhere.path().join("latest");
    std::os::unix::fs::symlink(&link, &far).expect("a link to a link");
    let target = fs::read_link(&link).expect("a link");
    for way in [link.join(""), link.join("."), link.join("logs/.."), path.join("logs/../logs/.."), far.clone()] {
        let reopened = Reopened::open(&way).unwrap_or_else(|error| panic!("{}: {error}", way.display()));
        assert_eq!(reopened.path().canonicalize().ok(), path.canonicalize().ok(), "{}", way.display());
        assert_eq!(Some(reopened.directory.run().as_str()), path.file_name().and_then(|name| name.to_str()));
        assert_eq!(Stored::read(&way).expect("a run").path, reopened.path());
        assert_eq!(fs::read_link(&link).expect("still a link"), target, "{}", way.display());
        assert_eq!(fs::read_link(&far).expect("still a link"), link, "{}", way.display());
    }
}

#[test]
fn what_to_do_about_a_full_disk_depends_on_whether_the_run_is_there() {
    let (_root, path) = interrupted(1);
    let full = |directory: &Directory| {
        let error = failed("write", &directory.path, directory.hint())(io::ErrorKind::StorageFull.into());
        error.to_string()
    };
    let reopened = Reopened::open(&path).expect("a run");
    assert!(full(&reopened.directory).ends_with("; free some space, then go on with acceptbench run --resume DIR"));
    drop(reopened);
    let (_root, path) = interrupted(0);
    let reopened = Reopened::open(&path).expect("a run");
    assert!(!full(&reopened.directory).contains("--results"), "{}", full(&reopened.directory));
    let root = TempDir::new().expect("a directory");
    let experiment = testing::experiment("replicates = 1", &["16"]);
    let mut new = Directory::create(root.path(), &experiment, &Environment::default(), session()).expect("made");
    assert!(full(&new).ends_with("; free some space, or write elsewhere with --results DIR"), "{}", full(&new));
    new.append(&testing::trial(Agenda::new(&experiment).upcoming().expect("one"), true)).expect("kept");
    assert!(full(&new).ends_with(" --resume DIR"), "it is there: {}", full(&new));
}

#[test]
fn a_trial_that_is_to_be_repeated_is_left_to_run() {
    let root = TempDir::new().expect("a directory");
    let experiment = testing::experiment("replicates = 1\nretries = 1\norder = \"as-written\"", &["16", "128"]);
    let mut directory =
        Directory::create(root.path(), &experiment, &Environment::default(), session()).expect("a results directory");
    for (planned, counts) in Agenda::new(&experiment).left().zip([false, true]) {
        directory.append(&testing::trial(planned, counts)).expect("kept");
    }
    let agenda = Stored::read(&directory.path).expect("a run").agenda().expect("its own trials");
    assert_eq!((agenda.done(), agenda.places()), (1, 2), "both places have a record, and one that counts");
    assert_eq!(agenda.upcoming(), Some(Planned { trial: 0, block: 0, cell: 0, retry: 1 }));
}

#[test]
fn a_last_line_that_was_not_written_to_its_end_is_cut_off() {
    let planned = Planned { trial: 2, block: 0, cell: 2, retry: 0 };
    let whole = serde_json::to_vec(&testing::trial(planned, true)).expect("JSON");
    let half = &whole[..whole.len() / 2];
    for torn in [half, &whole, &[half, b"\n"].concat(), b"{", b"\0\0\0\0\n", b"\xff\xfe"] {
        let (_root, path) = interrupted(2);
        let before = lines(&path);
        append(&path, torn);
        assert_eq!(Stored::read(&path).expect("a report can be made").trials.len(), 2);
        let mut reopened = Reopened::open(&path).expect("a run");
        assert_eq!(numbers(&reopened), (vec![0, 1], vec![2]), "{torn:?}");
        assert_eq!(lines(&path), before);
        reopened.directory.append(&testing::trial(planned, true)).expect("kept");
        drop(reopened);
        assert_eq!(numbers(&Reopened::open(&path).expect("a run")), (vec![0, 1, 2], vec![]));
    }
}

#[test]
fn every_other_malformed_line_is_named_with_its_place() {
    let record = |trial, retry| {
        let planned = Planned { trial, block: 0, cell: trial, retry };
        let mut line = serde_json::to_vec(&testing::trial(planned, true)).expect("JSON");
        line.push(b'\n');
        line
    };
    for (lines, message) in [
        ([b"{\"trial\":\n".to_vec(), record(2, 0)].concat(), "trials.jsonl:3: not a trial: EOF"),
        (b"{\"trial\":2}\n".to_vec(), "trials.jsonl:3: not a trial: missing field `block`"),
        (b"\n\n".to_vec(), "trials.jsonl:3: not a trial: EOF"),
        (record(1, 0), "trials.jsonl:3: trial 1 counts already; was a file"),
        (record(3, 0), "trials.jsonl:3: trial 3 (block 0, cell 3) is not in the order of experiment.toml; was"),
        ([record(2, 0), record(2, 1)].concat(), "trials.jsonl:4: trial 2 counts already; was a file"),
    ] {
        let (_root, path) = interrupted(2);
        append(&path, &lines);
        let error = Reopened::open(&path).expect_err("not a run's").to_string();
        assert!(error.contains(message), "{error}");
    }
    let (_root, path) = interrupted(1);
    fs::write(path.join(COURSE), "{\n\"only\": 5}").expect("written");
    let error = Reopened::open(&path).expect_err("the part is not known").to_string();
    assert!(error.contains("run.json:2: "), "{error}");
}

#[test]
fn two_runners_never_write_to_one_directory() {
    let (_root, path) = interrupted(1);
    let first = Reopened::open(&path).expect("a run");
    let error = Reopened::open(&path).expect_err("taken").to_string();
    let expected = format!("another runner is at work in {}; wait for its end, or stop it first", path.display());
    assert_eq!(error, expected);
    drop(first);
    Reopened::open(&path).expect("free again");
}

#[test]
fn a_run_killed_before_it_began_says_so() {
    let (_root, path) = interrupted(0);
    fs::remove_file(path.join(EXPERIMENT)).expect("removed");
    let words = format!(
        "{} holds no experiment.toml: it is no run, or its runner was ended before it began; name the directory of a run, or \
         run the experiment again",
        path.display()
    );
    assert_eq!(Reopened::open(&path).expect_err("nothing to go on with").to_string(), words);
    assert_eq!(Stored::read(&path).expect_err("nothing to report").to_string(), words);
    let error = Reopened::open(&path.join("nowhere")).expect_err("no directory").to_string();
    assert!(error.ends_with("; name the directory of a run, or run an experiment first"), "{error}");
}

#[test]
fn a_part_stays_a_part() {
    let root = TempDir::new().expect("a directory");
    let mut experiment = testing::experiment("replicates = 2", &["16", "128", "1024"]);
    experiment.select(&["server.backlog < 1024".parse().expect("a condition")]).expect("two cells");
    let directory = Directory::create(root.path(), &experiment, &Environment::default(), session()).expect("made");
    let path = directory.path.clone();
    drop(directory);
    let reopened = Reopened::open(&path).expect("a run");
    let left: Vec<Planned> = reopened.agenda.left().collect();
    assert_eq!(left, Agenda::new(&experiment).left().collect::<Vec<_>>());
    assert_eq!((left.len(), reopened.stored.experiment.trials()), (4, 4));
    assert_eq!(
        reopened.stored.notes(),
        ["This was a part: only the cells with `server.backlog < 1024` were run, 2 of 3."]
    );
}
