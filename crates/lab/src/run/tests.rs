use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::testing;

type Steps = Rc<RefCell<Vec<&'static str>>>;

/// Runs nothing, and writes down when it is asked to.
struct Idle {
    steps: Steps,
    ready: bool,
}

impl Bench for Idle {
    fn begin(&mut self, _directory: &Directory) -> Result<(), RunError> {
        self.steps.borrow_mut().push("ready");
        if self.ready { Ok(()) } else { Err(RunError::Requirement("not ready".to_owned())) }
    }

    fn trial(&mut self, turn: &Turn<'_>) -> Result<Trial, TrialError> {
        Ok(testing::trial(turn.planned, true))
    }
}

/// What happens to a run of one trial, in its order, and what came of it.
fn steps(ready: bool) -> (Vec<&'static str>, Result<Finished, RunError>) {
    let (root, experiment) =
        (tempfile::tempdir().expect("a directory"), testing::experiment("replicates = 1", &["16"]));
    let build = Build { version: "1.0.0".to_owned(), revision: "abc".to_owned() };
    let environment = Environment::default();
    let directory =
        Directory::create(root.path(), &experiment, &environment, session(&build, Vec::new())).expect("made");
    let mut work = Work { directory, agenda: Agenda::new(&experiment), trials: Vec::new(), environment };
    let request = Request { experiment: &experiment, program: Path::new("/nowhere"), admin: Listen::Off, build };
    let steps = Steps::default();
    let mut bench = Idle { steps: Rc::clone(&steps), ready };
    let finished = run_in(&request, &mut bench, &mut work, &Stop::new(), &mut |event| {
        steps.borrow_mut().push(match event {
            Event::Started(_) => "started",
            Event::Began { .. } => "began",
            Event::Ended { .. } => "ended",
            Event::Lingering => "lingering",
        });
    });
    let told = steps.borrow().clone();
    (told, finished)
}

#[test]
fn a_run_is_said_to_have_started_when_everything_stands_ready() {
    let (told, finished) = steps(true);
    assert_eq!(told, ["ready", "started", "began", "ended"]);
    assert_eq!(finished.expect("a run").trials.len(), 1);
    let (told, finished) = steps(false);
    assert_eq!(told, ["ready"]);
    assert_eq!(finished.expect_err("no run").to_string(), "not ready");
}
