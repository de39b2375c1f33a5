use std::ffi::OsString;

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Command, String> {
    let words = std::iter::once("sluice")
        .chain(line.split_whitespace())
        .map(OsString::from);
    Args::try_parse_from(words)
        .map(|args| args.command)
        .map_err(|error| error.to_string())
}

fn standalone(line: &str) -> StandaloneArgs {
    match parse(line).expect("parses") {
        Command::Standalone(args) => args,
        Command::Run(_) | Command::Check(_) | Command::Requests(_) | Command::Top(_) => {
            panic!("not standalone: {line}")
        }
    }
}

#[test]
fn the_command_definition_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn defaults_on_the_command_line_are_those_of_new() {
    assert_eq!(
        standalone("standalone a.yaml b.yaml"),
        StandaloneArgs::new(["a.yaml".into(), "b.yaml".into()])
    );
}

#[test]
fn every_option_is_read() {
    let args = standalone(
        "standalone a.yaml --data-dir d --secrets-dir s --bind [::1] --admin [::]:9 --workers 3 \
         --memory-limit 2GiB --log-format json --log-level warn,hyper=error",
    );
    let serve = ServeArgs {
        data_dir: Some("d".into()),
        bind: Some(Ipv6Addr::LOCALHOST.into()),
        admin: "[::]:9".parse().unwrap(),
        workers: NonZeroUsize::new(3),
        memory_limit_bytes: Some(2 << 30),
        log_format: LogFormat::Json,
        log_level: "warn,hyper=error".to_owned(),
    };
    let expected = StandaloneArgs {
        secrets_dir: Some("s".into()),
        serve,
        ..StandaloneArgs::new(["a.yaml".into()])
    };
    assert_eq!(args, expected);
    let Ok(Command::Check(args)) = parse("check a.yaml --secrets-dir s --write d") else {
        panic!("not check");
    };
    assert_eq!(args.secrets_dir, Some("s".into()));
    assert_eq!(args.write, Some("d".into()));
}

#[test]
fn run_takes_the_options_of_standalone() {
    let line = "run --config c.json --secrets-dir s --bind ::1 --workers 2";
    let Ok(Command::Run(args)) = parse(line) else {
        panic!("not run");
    };
    let expected = RunArgs {
        manager: ManagerArgs::default(),
        config: "c.json".into(),
        secrets_dir: Some("s".into()),
        serve: ServeArgs {
            bind: Some(Ipv6Addr::LOCALHOST.into()),
            workers: NonZeroUsize::new(2),
            ..ServeArgs::default()
        },
    };
    assert_eq!(args, expected);
}

#[test]
fn bad_values_name_the_option_and_what_to_write() {
    let cases = [
        ("standalone", &["<MANIFEST>"][..]),
        ("check", &["<MANIFEST>"]),
        ("run", &["--config <FILE>"]),
        ("run a.yaml --config b", &["'a.yaml'"]),
        ("serve", &["unrecognized subcommand 'serve'"]),
        (
            "standalone a --bind localhost",
            &["--bind", "expected an IP address without a port"],
        ),
        (
            "standalone a --bind 0.0.0.0:80",
            &["--bind", "without a port"],
        ),
        ("standalone a --admin 8081", &["--admin", "127.0.0.1:8081"]),
        ("standalone a --workers 0", &["--workers", "from 1 to 1024"]),
        (
            "standalone a --workers 1025",
            &["--workers", "from 1 to 1024"],
        ),
        ("standalone a --workers -1", &["-1"]),
        (
            "standalone a --memory-limit lots",
            &["--memory-limit", "2GiB"],
        ),
        (
            "standalone a --memory-limit 2GiBs",
            &["--memory-limit", "2GiB"],
        ),
        (
            "standalone a --memory-limit 1.5GiB",
            &["--memory-limit", "whole number"],
        ),
        (
            "standalone a --memory-limit 1MiB",
            &["--memory-limit", "minimum of 64MiB"],
        ),
        (
            "standalone a --memory-limit 99999999999TiB",
            &["--memory-limit", "more than any machine"],
        ),
        (
            "standalone a --log-format xml",
            &["--log-format", "text, json"],
        ),
        ("standalone a --log-level loud", &["--log-level", "loud"]),
        ("standalone a --log-level info,x=y", &["--log-level", "x=y"]),
        ("standalone a --colour", &["--colour"]),
    ];
    for (line, parts) in cases {
        let error = parse(line).expect_err(line);
        for part in parts {
            assert!(error.contains(part), "{line}: {part:?} is not in:\n{error}");
        }
    }
}

#[test]
fn memory_units() {
    let cases = [
        ("67108864", 64 << 20),
        ("65536KiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("64 MiB", 64 << 20),
        ("100M", 100_000_000),
        ("2GB", 2_000_000_000),
        ("1Ti", 1 << 40),
    ];
    for (text, bytes) in cases {
        assert_eq!(parse_memory(text), Ok(bytes), "{text}");
    }
}

#[test]
fn binds_to_both_families_unless_told() {
    let mut args = ServeArgs::default();
    assert_eq!(
        args.bind_candidates(),
        [
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
            Ipv4Addr::UNSPECIFIED.into()
        ]
    );
    args.bind = Some(Ipv4Addr::LOCALHOST.into());
    assert_eq!(args.bind_candidates(), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
}

#[test]
fn the_manager_is_named_for_run_only() {
    let run = |more: &str| parse(&format!("run --config c {more}"));
    let Ok(Command::Run(args)) = run(
        "--manager https://manager.sluice:9444 --manager-ca ca.pem --manager-token t --pod p --cpu-request 250m",
    ) else {
        panic!("not run");
    };
    assert_eq!(
        args.manager,
        ManagerArgs {
            url: Some("https://manager.sluice:9444".parse().unwrap()),
            ca: Some("ca.pem".into()),
            token: Some("t".into()),
            pod: Some("p".to_owned()),
            cpu_request_millicores: Some(250),
        }
    );
    let Ok(Command::Run(args)) = run("") else {
        panic!("not run");
    };
    assert_eq!(args.manager, ManagerArgs::default());
    for (cores, millicores) in [("2", 2_000), ("0.5", 500), ("1m", 1)] {
        let Ok(Command::Run(args)) = run(&format!("--cpu-request {cores}")) else {
            panic!("{cores} is not read");
        };
        assert_eq!(args.manager.cpu_request_millicores, Some(millicores));
    }
    for bad in [
        "--manager manager:9444",
        "--manager ftp://manager:9444",
        "--manager https://manager",
        "--manager https://manager:9444/path",
        "--manager https://user@manager:9444",
        "--cpu-request 0",
        "--cpu-request -1",
        "--cpu-request lots",
        "--cpu-request 1e9",
    ] {
        assert!(run(bad).is_err(), "{bad}");
    }
    assert!(parse("standalone a.yaml --manager http://m:1").is_err());
}
