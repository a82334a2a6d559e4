//! `windrose serve`.

use std::io;
use std::sync::Arc;

use windrose_proto::time::SystemClock;
use windrose_store::disk::OsDisk;

use super::{load_config, with_causes};
use crate::app::App;
use crate::cli::{Exit, ServeArgs};
use crate::{logging, output, signals};

/// Serves until SIGTERM or SIGINT; reads the configuration again on SIGHUP.
pub(super) fn run(args: &ServeArgs) -> Exit {
    let loaded = match load_config(&args.config) {
        Ok(loaded) => loaded,
        Err(message) => {
            output::error_line(&message);
            return Exit::Usage;
        }
    };
    logging::init(&loaded.config.log);
    let config = args.config.clone();
    let source = Arc::new(move || load_config(&config));
    let app = match App::start(&loaded, source, Arc::new(OsDisk), Arc::new(SystemClock)) {
        Ok(app) => app,
        Err(error) => {
            output::error_line(&with_causes(&error));
            return Exit::Failed;
        }
    };
    let listening: io::Result<(signals::Stop, signals::Reload)> =
        app.ingest().block_on(async { Ok((signals::Stop::listen()?, signals::Reload::listen()?)) });
    let (stop, reload) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            output::error_line(&format!("cannot wait for signals: {error}"));
            app.shutdown();
            return Exit::Failed;
        }
    };
    let reloads = app.ingest().spawn(reload.on_each(Arc::clone(app.reloader())));
    app.ingest().block_on(stop.requested());
    reloads.abort();
    app.shutdown();
    Exit::Ok
}
