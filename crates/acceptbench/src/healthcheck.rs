//! `acceptbench healthcheck`: the health check of a container that holds nothing but this program.

use std::time::Duration;

use crate::cli::HealthcheckArgs;
use crate::exit::{End, Failure};

/// Asks `/healthz` once.
pub(crate) fn healthcheck(args: &HealthcheckArgs) -> Result<End, Failure> {
    match telemetry::admin::get_local(args.address, "/healthz", Duration::from_secs(2)) {
        Ok((200, _)) => Ok(End::Success),
        Ok((status, _)) => Err(Failure::Requirement(format!("http://{}/healthz answered {status}", args.address))),
        Err(error) => Err(Failure::requirement(error)),
    }
}
