//! The process: command line, configuration, wiring, ports, shutdown.
