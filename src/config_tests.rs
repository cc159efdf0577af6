//! The rules for serve's flags and variables, as tests.

use super::*;

fn parse(args: &[&str]) -> Result<Config, String> {
    parse_in(args, &[])
}

fn parse_in(args: &[&str], env: &[(&str, &str)]) -> Result<Config, String> {
    let mut args: Vec<String> = args.iter().map(|a| (*a).into()).collect();
    let more = from_environment(&args, &|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))?;
    args.splice(0..0, more);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Config::from_args(&["tinyfaas", "serve"], &args).map_err(|e| e.output)?.validate()
}

fn at(text: &str) -> Listen {
    Listen::At(text.parse().unwrap())
}

#[test]
fn without_flags_the_contract_s_ports_hold_and_management_is_local() {
    let config = Config::default();
    assert_eq!(config.management, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.http, at("[::]:8000"));
    assert_eq!(config.coap, at("[::]:5683"));
    assert_eq!(config.grpc, at("[::]:9000"));
    assert_eq!(config.backend, BackendChoice::Auto);
    assert_eq!((config.max_upload, config.timeout), (64 << 20, Duration::from_secs(60)));
}

#[test]
fn an_address_is_a_host_with_port_or_a_port() {
    assert_eq!(parse(&["--http", "0.0.0.0:80"]).unwrap().http, at("0.0.0.0:80"));
    assert_eq!(parse(&["--http", "[::1]:80"]).unwrap().http, at("[::1]:80"));
    assert_eq!(parse(&["--http", ":80"]).unwrap().http, at("[::]:80"));
    assert_eq!(parse(&["--http", "80"]).unwrap().http, at("[::]:80"));
    assert_eq!(parse(&["--http", "localhost:0"]).unwrap().http, at("127.0.0.1:0"));
    assert_eq!(parse(&["--http", "off"]).unwrap().http, Listen::Off);
    assert_eq!(parse(&["--management", ":81"]).unwrap().management, "127.0.0.1:81".parse().unwrap());
    for wrong in ["", ":", "host:80", "80:", "1.2.3.4", "::1:80x", "65536", "+80", "-1", "[::1]", ":off"] {
        let error = parse(&["--http", wrong]).unwrap_err();
        assert!(error.contains("--http") && error.contains("use IP:PORT"), "{wrong}: {error}");
    }
    assert!(parse(&["--management", "off"]).unwrap_err().contains("cannot be turned off"));
}

#[test]
fn the_port_variables_move_a_front_door_or_turn_it_off() {
    let env = [("HTTP_PORT", "8001"), ("COAP_PORT", "-1"), ("GRPC_PORT", "0")];
    let config = parse_in(&[], &env).unwrap();
    assert_eq!((config.http, config.coap, config.grpc), (at("[::]:8001"), Listen::Off, at("[::]:0")));
}

#[test]
fn a_wrong_port_variable_fails_and_is_named() {
    for name in ["HTTP_PORT", "COAP_PORT", "GRPC_PORT"] {
        for value in ["", "eighty", "65536", "-2", "80.0", "8000 "] {
            let error = parse_in(&[], &[(name, value)]).unwrap_err();
            assert!(error.starts_with(name) && error.contains("up to 65535"), "{name}={value}: {error}");
        }
    }
}

#[test]
fn a_flag_wins_over_its_variable() {
    let env =
        [("HTTP_PORT", "1"), ("TF_BACKEND", "docker"), ("DOCKER_HOST", "tcp://10.0.0.1:2375"), ("RUST_LOG", "debug")];
    let config = parse_in(&["--http", "2", "--backend", "process", "--docker-host", "unix:///x"], &env).unwrap();
    assert_eq!((config.http, config.backend), (at("[::]:2"), BackendChoice::Process));
    assert_eq!(config.docker_host.as_deref(), Some("unix:///x"));
    assert_eq!(config.log, LevelFilter::Debug);
    assert_eq!(parse_in(&["--log", "off"], &env).unwrap().log, LevelFilter::Off);
}

#[test]
fn an_unknown_backend_fails_and_names_those_that_exist() {
    for error in [parse_in(&[], &[("TF_BACKEND", "k8s")]).unwrap_err(), parse(&["--backend", "k8s"]).unwrap_err()] {
        assert!(error.contains("docker, process or auto"), "{error}");
    }
    assert!(parse_in(&[], &[("TF_BACKEND", "k8s")]).unwrap_err().starts_with("TF_BACKEND"));
}

#[test]
fn a_log_filter_of_another_program_is_no_error() {
    assert_eq!(parse_in(&[], &[("RUST_LOG", "hyper=trace")]).unwrap().log, LevelFilter::Info);
}

#[test]
fn images_are_given_by_runtime() {
    let config = parse(&["--runtime-image", "nodejs=a", "--runtime-base", "nodejs=b", "--runtime-image", "nodejs=c:1"]);
    let docker = config.unwrap().docker("i".into()).unwrap();
    assert_eq!(docker.images, [(Runtime::NODEJS, "a".into()), (Runtime::NODEJS, "c:1".into())]);
    assert_eq!(docker.bases, [(Runtime::NODEJS, "b".into())]);
    for wrong in ["nodejs", "nodejs=", "=x", "Perl=x", "nodejs=a b"] {
        assert!(parse(&["--runtime-image", wrong]).unwrap_err().contains("use "), "{wrong}");
    }
    // Whether there is such a runtime is known once those of --runtimes are.
    let checked = |flag: &str, value: &str| parse(&[flag, value]).unwrap().check_runtimes();
    assert_eq!(checked("--runtime-base", "nodejs=x"), Ok(()));
    for name in ["perl", "image"] {
        let why = checked("--runtime-base", &format!("{name}=x")).unwrap_err();
        assert!(why.starts_with(&format!("--runtime-base: there is no env {name}: use python3, nodejs, ")), "{why}");
    }
}

#[test]
fn the_docker_backend_has_the_same_defaults_with_and_without_flags() {
    let config = Config { state_dir: "/s".into(), ..Config::default() };
    let engine = EngineAddress::parse(EngineAddress::DEFAULT).unwrap();
    let defaults = docker::Config::new(engine, "i".into(), "/s".into());
    assert_eq!(format!("{:?}", config.docker("i".into()).unwrap()), format!("{defaults:?}"));
}

#[test]
fn what_the_docker_backend_is_told_comes_from_flags() {
    let args = ["--no-hardening", "--read-only", "--network", "none", "--reach", "socket", "--handler-log", "8Ki"];
    let docker = parse(&args).unwrap().docker("i".into()).unwrap();
    assert_eq!((docker.hardened, docker.read_only, docker.log_bytes), (false, true, 8192));
    assert_eq!((docker.network, docker.reach), (Network::None, Reach::Socket));
    assert_eq!(parse(&["--network", "edge-1"]).unwrap().network, Network::Named("edge-1".into()));
    assert!(parse(&["--network", "a b"]).unwrap_err().contains("shared, none"));
    assert!(parse(&["--reach", "pigeon"]).unwrap_err().contains("auto, socket or tcp"));
}

#[test]
fn what_handlers_may_use_besides_is_absolute_and_their_users_are_not_those_of_the_system() {
    let config = parse(&["--expose", "/dev/i2c-1", "--expose", "/srv/maps:ro", "--handler-uid", "70000"]).unwrap();
    let paths = process::Paths { read: vec!["/srv/maps".into()], write: vec!["/dev/i2c-1".into()] };
    assert_eq!((config.exposed(), config.handler_uid), (paths, 70_000));
    assert!(parse(&["--expose", "maps:ro"]).unwrap_err().contains("use /PATH"));
    for wrong in ["0", "999", "4000000001", "nobody"] {
        assert!(parse(&["--handler-uid", wrong]).unwrap_err().contains("from 1000 to 4000000000"), "{wrong}");
    }
}

#[test]
fn bounds_are_checked_where_they_are_read() {
    let config = parse(&["--max-upload", "1Gi", "--timeout", "5m", "--queue", "0"]).unwrap();
    assert_eq!((config.max_upload, config.timeout, config.queue), (1 << 30, Duration::from_secs(300), 0));
    let limits = parse(&["--memory", "64Mi", "--cpu", "500m", "--pids", "9"]).unwrap().limits();
    assert_eq!((limits.memory, limits.cpu_millis, limits.pids), (64 << 20, 500, 9));
    for wrong in [["--timeout", "60"], ["--max-connections", "0"], ["--max-body", "lots"], ["--docker-host", "ssh://x"]]
    {
        let error = parse(&wrong).unwrap_err();
        assert!(error.contains(wrong[0]) && error.contains("use "), "{wrong:?}: {error}");
    }
    assert!(parse(&["--public-host", "a b"]).unwrap_err().contains("--public-host"));
}

#[test]
fn state_lives_where_the_user_may_write() {
    let with = |env: &'static [(&str, &str)], root| {
        super::environment::state_dir(root, &move |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    };
    assert_eq!(with(&[("HOME", "/root")], true), PathBuf::from("/var/lib/tinyfaas"));
    assert_eq!(with(&[("HOME", "/home/a")], false), PathBuf::from("/home/a/.local/state/tinyfaas"));
    assert_eq!(with(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")], false), PathBuf::from("/s/tinyfaas"));
    assert_eq!(with(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")], false), PathBuf::from("/h/.local/state/tinyfaas"));
    let config = Config { state_dir: with(&[], false), ..Config::default() };
    assert!(config.validate().unwrap_err().contains("--state-dir"));
    assert!(parse(&["--state-dir", "here"]).unwrap().state_dir.is_absolute());
}

#[cfg(feature = "tls")]
#[test]
fn tls_is_spoken_where_others_connect_or_where_it_is_said() {
    let doors = |more: &[&str]| {
        let config = parse(&[&["--tls-cert", "c", "--tls-key", "k"], more].concat()).unwrap();
        let doors = config.tls_doors_at(config.management);
        (doors.http, doors.grpc, doors.management)
    };
    let elsewhere = ["--management", "0.0.0.0:8080", "--insecure-management"];
    assert_eq!(doors(&[]), (true, true, false));
    assert_eq!(doors(&elsewhere), (true, true, true));
    assert_eq!(doors(&["--management-client-ca", "a"]), (true, true, true));
    assert_eq!(doors(&["--tls-doors", "management"]), (false, false, true));
    assert_eq!(doors(&["--tls-doors", "grpc,http", elsewhere[0], elsewhere[1], elsewhere[2]]), (true, true, false));
    let none = Config::default();
    assert!(
        none.tls_files().is_none()
            && none.tls_doors_at("0.0.0.0:1".parse().unwrap())
                == parse_doors("http").map(|d| TlsDoors { http: false, ..d }).unwrap()
    );
    // Who wants certificates needs no tokens, but TLS.
    let wants = ["--management", "0.0.0.0:8080", "--management-client-ca", "a"];
    assert!(parse(&[&["--tls-cert", "c", "--tls-key", "k"], &wants[..]].concat()).is_ok());
    assert!(parse(&wants).unwrap_err().contains("--tls-cert and --tls-key"));
    for wrong in ["", "coap", "http,", "http grpc", "off"] {
        assert!(parse(&["--tls-doors", wrong]).unwrap_err().contains("http,grpc,management"), "{wrong}");
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn a_build_without_tls_says_so() {
    for flag in ["--tls-cert", "--tls-key", "--management-client-ca"] {
        let error = parse(&[flag, "x"]).unwrap_err();
        assert!(error.starts_with(flag) && error.contains("this build has no TLS"), "{error}");
    }
    assert!(parse(&["--tls-doors", "http"]).unwrap_err().contains("this build has no TLS"));
}
