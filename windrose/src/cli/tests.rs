use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn named_flags_win_over_set() {
    let cli =
        parse("windrose check-config --set data_dir=a --set wal.sync=never --data-dir b").expect("good arguments");
    let Command::CheckConfig(args) = cli.command else { panic!("check-config") };
    let flags = args.config.flags();
    assert_eq!(flags.get("data_dir").map(String::as_str), Some("b"));
    assert_eq!(flags.get("wal.sync").map(String::as_str), Some("never"));
}

#[test]
fn wrong_arguments_are_refused() {
    for wrong in [
        "windrose",
        "windrose fly",
        "windrose check-config --set wal.sync",
        "windrose demo --rps 0",
        "windrose demo --rps inf",
        "windrose demo --duration soon",
        "windrose demo --target-otlp http://127.0.0.1:4317",
        "windrose trace",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn exit_codes_are_the_documented_ones() {
    let code = |exit: Exit| format!("{:?}", ExitCode::from(exit));
    for (exit, number) in [(Exit::Ok, 0), (Exit::Failed, 1), (Exit::Usage, 2), (Exit::NotReady, 3)] {
        assert_eq!(code(exit), format!("{:?}", ExitCode::from(number)));
    }
    assert_eq!(run(["windrose", "fly"].map(OsString::from)), Exit::Usage);
}
