//! The pure parts of the bench `peers`: what it is told, what it reads from other tools, and its arithmetic. The bench
//! itself has no test harness, and loads a machine for minutes.

#[path = "../benches/peers/outputs.rs"]
mod outputs;
#[path = "../benches/peers/settings.rs"]
mod settings;
#[path = "../benches/peers/statistics.rs"]
mod statistics;
#[path = "../benches/peers/table.rs"]
mod table;
#[path = "../benches/peers/words.rs"]
mod words;

#[path = "peers/arithmetic.rs"]
mod arithmetic;
#[path = "peers/asking.rs"]
mod asking;
#[path = "peers/reading.rs"]
mod reading;
