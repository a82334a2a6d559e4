//! `windrose serve`.

use std::sync::Arc;

use windrose_proto::time::SystemClock;
use windrose_store::disk::OsDisk;

use super::{load_config, with_causes};
use crate::app::App;
use crate::cli::{Exit, ServeArgs};
use crate::{logging, output, signals};

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: &ServeArgs) -> Exit {
    let loaded = match load_config(&args.config) {
        Ok(loaded) => loaded,
        Err(message) => {
            output::error_line(&message);
            return Exit::Usage;
        }
    };
    logging::init(&loaded.config.log);
    let app = match App::start(&loaded, Arc::new(OsDisk), Arc::new(SystemClock)) {
        Ok(app) => app,
        Err(error) => {
            output::error_line(&with_causes(&error));
            return Exit::Failed;
        }
    };
    let stop = app.ingest().block_on(async { signals::Stop::listen() });
    let stop = match stop {
        Ok(stop) => stop,
        Err(error) => {
            output::error_line(&format!("cannot wait for signals: {error}"));
            app.shutdown();
            return Exit::Failed;
        }
    };
    app.ingest().block_on(stop.requested());
    app.shutdown();
    Exit::Ok
}
