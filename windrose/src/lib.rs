//! The process: command line, configuration, wiring, ports, shutdown.
//!
//! No domain logic lives here: what a span, a hop or a topology is, is decided in the other crates.
//! Only this crate reads the environment and prints.

pub mod app;
pub mod cli;
pub mod client;
mod commands;
pub mod config;
pub mod demo;
mod logging;
pub mod maintenance;
mod metrics;
mod metrics_page;
mod ops;
pub mod output;
pub mod ports;
pub mod readiness;
pub mod reload;
mod scraping;
mod signals;
pub mod table;
pub mod tasks;
pub mod telemetry;
pub mod views;
