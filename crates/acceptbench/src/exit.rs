//! Exit codes, and errors as one line. 70 bug > 69 requirement missing > 64 usage or file > 130 interrupted >
//! 2 invalid > 1 an expectation failed > 0.

use std::process::ExitCode;

use crate::terminal;

/// How the program ends when nothing is wrong with its input or the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All well.
    Success,
    /// An expectation of the experiment failed.
    Unexpected,
    /// A cell ended with too few valid trials, or the generator was the bottleneck.
    Invalid,
    /// Told to stop.
    Interrupted,
}

impl End {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Unexpected => 1,
            Self::Invalid => 2,
            Self::Interrupted => 130,
        }
    }
}

/// Why the program could not do what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request is wrong: a flag, a key, a file.
    Usage(String),
    /// The machine lacks something.
    Requirement(String),
}

impl Failure {
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        // The alternate form is anyhow's whole chain of causes.
        Self::Usage(format!("{error:#}"))
    }

    /// The text begins with the name of the option that is wrong.
    pub(crate) fn flag(error: impl std::fmt::Display) -> Self {
        Self::Usage(format!("--{error}"))
    }

    pub(crate) fn requirement(error: impl std::fmt::Display) -> Self {
        Self::Requirement(format!("{error:#}"))
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Requirement(_) => 69,
        }
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        let (Self::Usage(message) | Self::Requirement(message)) = self;
        message
    }
}

/// Says what went wrong, in one line, and returns the exit code.
pub(crate) fn code(result: Result<End, Failure>) -> ExitCode {
    ExitCode::from(match result {
        Ok(end) => end.code(),
        Err(failure) => {
            terminal::complain(failure.message());
            failure.code()
        }
    })
}

/// A panic is a bug of this program: it says so and exits with 70.
pub(crate) fn on_panic() {
    std::panic::set_hook(Box::new(|info| {
        terminal::leave_screen();
        terminal::complain(&format!("bug, please report it: {info}"));
        std::process::exit(70);
    }));
}
