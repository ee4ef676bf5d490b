//! What each tool says it did, read from what it prints. Pure: a text in, a claim or a complaint out.
//!
//! Counts and times are read rather than rates, so that the claims of several processes of one tool add up. A tool whose
//! output cannot be read, or that reports failures, is a failed run and no slow one.

/// What a tool says it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Claim {
    /// Connections, or requests where each has a connection of its own, that went well.
    pub(crate) done: u64,
    /// Those that did not.
    pub(crate) failed: u64,
    /// In what time, seconds.
    pub(crate) seconds: f64,
}

impl Claim {
    /// What processes that ran at the same time did together. The longest time counts, so a process that began late does
    /// not make the others fast.
    pub(crate) fn together(claims: &[Self]) -> Self {
        let zero = Self { done: 0, failed: 0, seconds: 0.0 };
        claims.iter().fold(zero, |sum, claim| Self {
            done: sum.done + claim.done,
            failed: sum.failed + claim.failed,
            seconds: sum.seconds.max(claim.seconds),
        })
    }

    /// Done per second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }
}

/// `acceptbench loadgen` under a closed loop, which plans for exactly `seconds`; the time it prints includes looking for
/// the end.
///
/// # Errors
/// What is missing.
pub(crate) fn loadgen(text: &str, seconds: f64) -> Result<Claim, String> {
    let planned: u64 = behind(text, "planned ")?;
    let verdict = |name: &str| text.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let count = |rest: &str| rest.split_whitespace().next().and_then(|word| word.parse().ok());
    let done: u64 = ["served ", "connected "].into_iter().filter_map(verdict).find_map(count).unwrap_or(0);
    Ok(Claim { done, failed: planned.saturating_sub(done), seconds })
}

/// Our raw client: `connected N failed N seconds S`.
///
/// # Errors
/// What is missing.
pub(crate) fn raw(text: &str) -> Result<Claim, String> {
    let (done, failed) = (behind(text, "connected ")?, behind(text, "failed ")?);
    Ok(Claim { done, failed, seconds: behind(text, "seconds ")? })
}

/// wrk. The time it prints has two digits behind the point, so it is taken from the rate, which has more.
///
/// # Errors
/// What is missing.
pub(crate) fn wrk(text: &str) -> Result<Claim, String> {
    let line = text.lines().find(|line| line.contains(" requests in "));
    let line = line.ok_or("no `requests in`")?.trim_start();
    let done: u64 = line.split(' ').next().and_then(|word| word.parse().ok()).ok_or("no number of requests")?;
    let rate: f64 = behind(text, "Requests/sec:")?;
    // Printed only when there are any.
    let errors = ["Socket errors: connect ", ", read ", ", write ", ", timeout ", "Non-2xx or 3xx responses: "];
    let failed = if text.contains("Socket errors: ") || text.contains("Non-2xx") {
        errors.iter().filter_map(|name| behind::<u64>(text, name).ok()).sum()
    } else {
        0
    };
    Ok(Claim { done, failed, seconds: done as f64 / rate })
}

/// ab.
///
/// # Errors
/// What is missing.
pub(crate) fn ab(text: &str) -> Result<Claim, String> {
    // Its failures count one request several times, and failed ones are complete too.
    let failed = behind::<u64>(text, "Failed requests:")? + behind(text, "Non-2xx responses:").unwrap_or(0);
    let complete: u64 = behind(text, "Complete requests:")?;
    let done = complete.saturating_sub(failed);
    Ok(Claim { done, failed, seconds: behind(text, "Time taken for tests:")? })
}

/// httperf.
///
/// # Errors
/// What is missing.
pub(crate) fn httperf(text: &str) -> Result<Claim, String> {
    let total: u64 = behind(text, "Total: connections ")?;
    let done: u64 = behind(text, " 2xx=")?;
    Ok(Claim { done, failed: total.saturating_sub(done), seconds: behind(text, "test-duration ")? })
}

/// h2load. As for wrk, the time comes from the rate.
///
/// # Errors
/// What is missing.
pub(crate) fn h2load(text: &str) -> Result<Claim, String> {
    let total: u64 = behind(text, "\nrequests: ")?;
    let line = text.lines().find(|line| line.starts_with("status codes: ")).unwrap_or_default();
    let done: u64 = behind(line, "status codes: ")?;
    let rate: f64 = behind(text.split_once("finished in ").ok_or("no `finished in`")?.1, ", ")?;
    Ok(Claim { done, failed: total.saturating_sub(done), seconds: done as f64 / rate })
}

/// The number that follows `name` in `text`, blanks between them aside, and whatever comes behind it.
fn behind<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, String> {
    let missing = || format!("no number behind `{}`", name.trim());
    let (_, rest) = text.split_once(name).ok_or_else(missing)?;
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').parse().map_err(|_| missing())
}
