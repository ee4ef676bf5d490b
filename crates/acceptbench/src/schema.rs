//! `acceptbench schema`: the JSON Schema of an experiment file.

use crate::exit::{End, Failure};
use crate::terminal::say;

/// Prints it.
pub(crate) fn schema() -> Result<End, Failure> {
    let text = serde_json::to_string_pretty(&lab::schema()).map_err(Failure::requirement)?;
    say(&text);
    Ok(End::Success)
}
